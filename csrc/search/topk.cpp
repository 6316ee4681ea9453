#include "search/topk.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "machine/thread_pool.hpp"
#include "search/panel_search.hpp"

namespace gte {
namespace {

// Queries that share one pass over the rows.
constexpr size_t group_queries = 22 * tile_queries;
// A thread that has less than this many bytes of rows x queries to read costs more to wake than it saves.
constexpr size_t least_bytes_for_thread = 1 << 19;

// What one thread keeps through a search.
struct Worker {
    PanelDots dots;
    std::vector<uint64_t> keys;
    std::vector<Reservoir> best;  // one for each query
};

struct Search {
    const Kernels& kernels;
    const Rows& rows;
    const Queries& queries;
    size_t panels_in_chunk;
    std::atomic<size_t> next_chunk{0};
    std::atomic<int64_t> bad_row{INT64_MAX};
    std::vector<Worker> workers{};
};

void note_bad_row(Search& search, int64_t row) {
    int64_t lowest = search.bad_row.load();
    while (row < lowest && !search.bad_row.compare_exchange_weak(lowest, row)) {
    }
}

void work_on_search(void* context, size_t slot) {
    Search& search = *static_cast<Search*>(context);
    Worker& worker = search.workers[slot];
    const size_t rows_in_chunk = search.panels_in_chunk * panel_rows;
    for (;;) {
        const size_t start = search.next_chunk.fetch_add(1) * rows_in_chunk;
        if (start >= search.rows.count) {
            return;
        }
        const size_t end = std::min(start + rows_in_chunk, search.rows.count);
        Panel panels[2];
        set_panel(panels[0], search.rows, start);
        size_t current = 0;
        for (size_t first = start; first < end; first += panel_rows, current ^= 1) {
            // The last panel of a chunk has no successor to prefetch; it names itself.
            set_panel(panels[current ^ 1], search.rows, first + panel_rows < end ? first + panel_rows : first);
            const int64_t bad_row = search_panel(search.kernels, search.rows, search.queries, panels[current],
                                                 panels[current ^ 1], worker.dots, worker.best.data());
            if (bad_row >= 0) {
                note_bad_row(search, bad_row);
            }
        }
    }
}

void write_results(const Search& search, size_t k, float* scores, int64_t* indices) {
    std::vector<uint64_t> keys;
    for (size_t query = 0; query < search.queries.count; ++query) {
        keys.clear();
        for (const Worker& worker : search.workers) {
            const Reservoir& best = worker.best[query];
            keys.insert(keys.end(), best.keys(), best.keys() + best.size());
        }
        keep_best(keys.data(), keys.size(), k);
        std::sort(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(k), std::greater<uint64_t>());
        for (size_t i = 0; i < k; ++i) {
            scores[query * k + i] = key_score(keys[i]);
            indices[query * k + i] = key_row(keys[i]);
        }
    }
}

int64_t search_group(const Kernels& kernels, const Rows& rows, const float* query_values, size_t query_count, size_t k,
                     size_t thread_count, float* scores, int64_t* indices) {
    const Queries queries = prepare_queries(query_values, query_count, rows.dim, rows.type, kernels.int8_row_offset);
    const double bytes = static_cast<double>(rows.count) * static_cast<double>(row_words(rows.type, rows.dim) * 4);
    const double work = bytes * static_cast<double>(query_count) / least_bytes_for_thread;
    const size_t slots = std::min(std::max<size_t>(thread_count, 1), static_cast<size_t>(std::min(work, 1e4)) + 1);
    // Long runs of memory for each thread, and enough of them that a slow thread holds up the others by little.
    const size_t panels_in_chunk = std::max<size_t>(1, rows.count / panel_rows / (slots * 16));

    Search search{kernels, rows, queries, panels_in_chunk};
    search.workers.resize(slots);
    for (Worker& worker : search.workers) {
        worker.dots = make_panel_dots(queries);
        worker.keys.resize(query_count * Reservoir::capacity(k));
        for (size_t query = 0; query < query_count; ++query) {
            worker.best.emplace_back(worker.keys.data() + query * Reservoir::capacity(k), k);
        }
    }
    run_on_pool(slots, work_on_search, &search);
    if (search.bad_row != INT64_MAX) {
        return search.bad_row;
    }
    write_results(search, k, scores, indices);
    return -1;
}

struct CandidateSearch {
    const Kernels& kernels;
    const Rows& rows;
    const float* queries = nullptr;
    size_t query_count = 0;
    const uint32_t* candidates = nullptr;
    size_t candidate_count = 0;
    size_t k = 0;
    float* scores = nullptr;
    int64_t* indices = nullptr;
    std::atomic<size_t> next_query{0};
    std::atomic<int64_t> bad_row{-1};
    std::atomic<bool> out_of_memory{false};
};

void work_on_candidates(void* context, size_t) {
    CandidateSearch& search = *static_cast<CandidateSearch*>(context);
    Rows rows = search.rows;
    rows.count = search.candidate_count;
    for (;;) {
        const size_t query = search.next_query.fetch_add(1);
        if (query >= search.query_count) {
            return;
        }
        rows.selected = search.candidates + query * search.candidate_count;
        try {
            const int64_t bad_row =
                search_group(search.kernels, rows, search.queries + query * rows.dim, 1, search.k, 1,
                             search.scores + query * search.k, search.indices + query * search.k);
            if (bad_row >= 0) {
                search.bad_row = bad_row;
            }
        } catch (const std::bad_alloc&) {
            search.out_of_memory = true;
        }
    }
}

}  // namespace

int64_t search(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count, size_t k,
               size_t thread_count, float* scores, int64_t* indices) {
    for (size_t first = 0; first < query_count; first += group_queries) {
        const int64_t bad_row =
            search_group(kernels, rows, queries + first * rows.dim, std::min(group_queries, query_count - first), k,
                         thread_count, scores + first * k, indices + first * k);
        if (bad_row >= 0) {
            return bad_row;
        }
    }
    return -1;
}

int64_t search_candidates(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count,
                          const uint32_t* candidates, size_t candidate_count, size_t k, size_t thread_count,
                          float* scores, int64_t* indices) {
    CandidateSearch search{kernels, rows};
    search.queries = queries;
    search.query_count = query_count;
    search.candidates = candidates;
    search.candidate_count = candidate_count;
    search.k = k;
    search.scores = scores;
    search.indices = indices;
    run_on_pool(std::min(std::max<size_t>(thread_count, 1), query_count), work_on_candidates, &search);
    if (search.out_of_memory) {
        throw std::bad_alloc();
    }
    return search.bad_row;
}

}  // namespace gte
