#include "search/topk.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "machine/thread_pool.hpp"
#include "search/panel_search.hpp"

namespace gte {
namespace {

// Queries that share one pass over the rows.
constexpr size_t group_queries = 22 * tile_queries;
// A thread that has less than this many bytes of rows x queries to read costs more to wake than it saves.
constexpr size_t least_bytes_for_thread = 1 << 19;
// Panels between two looks at whether the search should stop: a few hundred microseconds for one query.
constexpr size_t panels_between_polls = 64;

// What one thread keeps through a search.
struct Worker {
    PanelWork panel_work;
    std::vector<uint64_t> keys;
    // One for each query. A reservoir takes rows in ascending order, so those below the thread's own share have
    // another.
    std::vector<Reservoir> best, best_below;
};

// The chunks that a thread starts with. Who has none left takes some of the others'.
struct alignas(64) Share {
    std::atomic<size_t> next{0};
    size_t end = 0;
};

struct Search {
    const Kernels& kernels;
    const Rows& rows;
    const Queries& queries;
    size_t panels_in_chunk;
    Stop& stop;
    std::atomic<int64_t> bad_row{INT64_MAX};
    SharedThreshold threshold{};
    std::vector<Share> shares{};
    std::vector<Worker> workers{};
};

// row: -1 for none.
void note_bad_row(Search& search, int64_t row) {
    int64_t lowest = search.bad_row.load();
    while (row >= 0 && row < lowest && !search.bad_row.compare_exchange_weak(lowest, row)) {
    }
}

// False: the search should stop.
bool search_chunk(Search& search, size_t chunk, size_t slot, Reservoir* best) {
    PanelWork& work = search.workers[slot].panel_work;
    const size_t rows_in_chunk = search.panels_in_chunk * panel_rows, start = chunk * rows_in_chunk;
    const size_t end = std::min(start + rows_in_chunk, search.rows.count);
    Panel panels[2];
    set_panel(panels[0], search.rows, start);
    size_t current = 0, panel_count = 0;
    for (size_t first = start; first < end; first += panel_rows, current ^= 1) {
        if (++panel_count % panels_between_polls == 0) {
            if (slot == 0) {
                search.stop.poll();
            }
            if (search.stop.stopped()) {
                return false;
            }
        }
        // The last panel of a chunk has no successor to prefetch; it names itself.
        set_panel(panels[current ^ 1], search.rows, first + panel_rows < end ? first + panel_rows : first);
        note_bad_row(search, search_panel(search.kernels, search.rows, search.queries, panels[current],
                                          panels[current ^ 1], work, best));
    }
    return true;
}

// A thread has the same share in each search of these rows, because its part may still be in its CPU's cache.
void work_on_search(void* context, size_t slot) {
    Search& search = *static_cast<Search*>(context);
    Worker& worker = search.workers[slot];
    Reservoir* best = worker.best.data();
    for (size_t step = 0; step < search.shares.size(); ++step) {
        const size_t number = (slot + step) % search.shares.size();
        if (number == 0 && slot > 0) {
            note_bad_row(search, score_waiting(search.kernels, search.rows, search.queries, worker.panel_work, best));
            best = worker.best_below.data();
        }
        Share& share = search.shares[number];
        for (size_t chunk; (chunk = share.next.fetch_add(1)) < share.end;) {
            if (!search_chunk(search, chunk, slot, best)) {
                return;
            }
        }
    }
    note_bad_row(search, score_waiting(search.kernels, search.rows, search.queries, worker.panel_work, best));
}

// The lowest searched row that none of the keys stands for.
int64_t first_missing(const Rows& rows, const std::vector<uint64_t>& keys) {
    std::vector<uint32_t> found;
    for (const uint64_t key : keys) {
        found.push_back(key_row(key));
    }
    std::sort(found.begin(), found.end());
    for (size_t i = 0; i < rows.count; ++i) {
        const uint32_t row = rows.selected != nullptr ? rows.selected[i] : static_cast<uint32_t>(i);
        if (!std::binary_search(found.begin(), found.end(), row)) {
            return row;
        }
    }
    return 0;
}

// Returns -1, or a row that got no score, as happens when another thread writes to the rows while they are searched.
int64_t write_results(const Search& search, size_t k, float* scores, int64_t* indices) {
    std::vector<uint64_t> keys;
    for (size_t query = 0; query < search.queries.count; ++query) {
        keys.clear();
        for (const Worker& worker : search.workers) {
            for (const std::vector<Reservoir>* all : {&worker.best, &worker.best_below}) {
                if (query < all->size()) {
                    const Reservoir& best = (*all)[query];
                    keys.insert(keys.end(), best.keys(), best.keys() + best.size());
                }
            }
        }
        if (keys.size() < k) {
            return first_missing(search.rows, keys);
        }
        keep_best(keys.data(), keys.size(), k);
        std::sort(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(k), std::greater<uint64_t>());
        for (size_t i = 0; i < k; ++i) {
            scores[query * k + i] = key_score(keys[i]);
            indices[query * k + i] = key_row(keys[i]);
        }
    }
    return -1;
}

// Another thread may change the caller's queries while they are searched. They need not be aligned.
std::vector<float> copy_queries(const void* queries, size_t first, size_t count, size_t dim) {
    std::vector<float> copied(count * dim);
    std::memcpy(copied.data(), static_cast<const char*>(queries) + first * dim * sizeof(float),
                copied.size() * sizeof(float));
    for (size_t i = 0; i < copied.size(); ++i) {
        if (!std::isfinite(copied[i])) {
            throw std::invalid_argument("queries[" + std::to_string(first + i / dim) + "] is not finite");
        }
    }
    return copied;
}

int64_t search_group(const Kernels& kernels, const Rows& rows, const float* query_values, size_t query_count, size_t k,
                     size_t thread_count, Stop& stop, float* scores, int64_t* indices) {
    const Queries queries = prepare_queries(query_values, query_count, rows.dim, rows.type, kernels.int8_row_offset);
    const double bytes = static_cast<double>(rows.count) * static_cast<double>(row_words(rows.type, rows.dim) * 4);
    const double work = bytes * static_cast<double>(query_count) / least_bytes_for_thread;
    const size_t slots = std::min(std::max<size_t>(thread_count, 1), static_cast<size_t>(std::min(work, 1e4)) + 1);
    // Long runs of memory for each thread, and enough of them that a slow thread holds up the others by little.
    const size_t panels_in_chunk = std::max<size_t>(1, rows.count / panel_rows / (slots * 16));

    Search search{kernels, rows, queries, panels_in_chunk, stop};
    const size_t rows_in_chunk = panels_in_chunk * panel_rows;
    const size_t chunk_count = (rows.count + rows_in_chunk - 1) / rows_in_chunk;
    search.shares = std::vector<Share>(slots);
    search.workers.resize(slots);
    const size_t capacity = Reservoir::capacity(k);
    for (size_t slot = 0; slot < slots; ++slot) {
        search.shares[slot].next = slot * chunk_count / slots;
        search.shares[slot].end = (slot + 1) * chunk_count / slots;
        Worker& worker = search.workers[slot];
        worker.panel_work = make_panel_work(queries, search.threshold);
        worker.keys.resize((slot > 0 ? 2 : 1) * query_count * capacity);
        uint64_t* keys = worker.keys.data();
        for (std::vector<Reservoir>* best : {&worker.best, &worker.best_below}) {
            for (size_t query = 0; query < query_count && keys != worker.keys.data() + worker.keys.size(); ++query) {
                best->emplace_back(keys, k);
                keys += capacity;
            }
        }
    }
    run_on_pool(slots, work_on_search, &search);
    if (search.bad_row != INT64_MAX) {
        return search.bad_row;
    }
    return stop.stopped() ? -1 : write_results(search, k, scores, indices);
}

struct CandidateSearch {
    const Kernels& kernels;
    const Rows& rows;
    Stop& stop;
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

void work_on_candidates(void* context, size_t slot) {
    CandidateSearch& search = *static_cast<CandidateSearch*>(context);
    Rows rows = search.rows;
    rows.count = search.candidate_count;
    Stop never;  // the caller's is polled between queries
    for (;;) {
        const size_t query = search.next_query.fetch_add(1);
        if (query >= search.query_count || search.stop.stopped()) {
            return;
        }
        rows.selected = search.candidates + query * search.candidate_count;
        try {
            const int64_t bad_row =
                search_group(search.kernels, rows, search.queries + query * rows.dim, 1, search.k, 1, never,
                             search.scores + query * search.k, search.indices + query * search.k);
            if (bad_row >= 0) {
                search.bad_row = bad_row;
            }
        } catch (const std::exception&) {  // bad_alloc, or length_error from a vector
            search.out_of_memory = true;
        }
        if (slot == 0) {
            search.stop.poll();
        }
    }
}

}  // namespace

int64_t search(const Kernels& kernels, const Rows& rows, const void* queries, size_t query_count, size_t k,
               size_t thread_count, Stop& stop, float* scores, int64_t* indices) {
    for (size_t first = 0; first < query_count; first += group_queries) {
        const size_t count = std::min(group_queries, query_count - first);
        const std::vector<float> group = copy_queries(queries, first, count, rows.dim);
        const int64_t bad_row = search_group(kernels, rows, group.data(), count, k, thread_count, stop,
                                             scores + first * k, indices + first * k);
        if (bad_row >= 0 || stop.stopped()) {
            return bad_row;
        }
    }
    return -1;
}

int64_t search_candidates(const Kernels& kernels, const Rows& rows, const void* queries, size_t query_count,
                          const uint32_t* candidates, size_t candidate_count, size_t k, size_t thread_count, Stop& stop,
                          float* scores, int64_t* indices) {
    const std::vector<float> copied = copy_queries(queries, 0, query_count, rows.dim);
    CandidateSearch search{kernels, rows, stop};
    search.queries = copied.data();
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
