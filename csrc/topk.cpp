#include "topk.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "queries.hpp"
#include "reservoir.hpp"
#include "thread_pool.hpp"

namespace gte {
namespace {

// Values of a float row (words of another) that are packed and used at a time: 32 rows of them take 8 KB.
constexpr size_t segment_length = 64;
// Queries that share one pass over the rows.
constexpr size_t group_queries = 22 * tile_queries;
// A thread that has less than this many bytes of rows x queries to read costs more to wake than it saves.
constexpr size_t least_bytes_for_thread = 1 << 19;

// Sums of squares outside of these bounds may have lost digits, or their root, to overflow or underflow.
constexpr float least_regular_square = 1e-30f;
constexpr float largest_regular_square = 1e30f;

// What one thread keeps through a search.
struct Worker {
    std::vector<float> float_dots;  // [tile][tile_queries][panel_rows], of the kind that the rows have
    std::vector<int32_t> int_dots;
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

// Up to panel_rows neighbours among the searched rows.
struct Panel {
    size_t row_count;
    uint32_t numbers[panel_rows];
    const char* rows[panel_rows];
};

// A row whose squares leave the range of float; it is scored in double.
struct IrregularRow {
    size_t place;  // in the panel
    const float* values;
    double scale;  // 1 / |row|
};

// A panel that is not full repeats its last row; offer() leaves the repetitions out.
void point_to_rows(const Rows& rows, size_t first, Panel& panel) {
    panel.row_count = std::min(panel_rows, rows.count - first);
    for (size_t i = 0; i < panel_rows; ++i) {
        const size_t position = first + std::min(i, panel.row_count - 1);
        const size_t row = rows.selected == nullptr ? position : rows.selected[position];
        panel.numbers[i] = static_cast<uint32_t>(row);
        panel.rows[i] = rows.data + static_cast<ptrdiff_t>(row) * rows.row_stride;
    }
}

void note_bad_row(Search& search, int64_t row) {
    int64_t lowest = search.bad_row.load();
    while (row < lowest && !search.bad_row.compare_exchange_weak(lowest, row)) {
    }
}

// Dot products of a panel of float32 or float16 rows with all queries, and the rows' sums of squares.
void multiply_floats(const Search& search, Worker& worker, const Panel& panel, const Panel& next, float* squares) {
    const bool halves = search.rows.type == RowType::float16;
    const size_t values_in_word = halves ? 2 : 1;
    const size_t words = row_words(search.rows.type, search.rows.dim);
    const size_t segment_words = segment_length / values_in_word;
    alignas(64) uint32_t packed[segment_length * panel_rows];
    alignas(64) float widened[segment_length * panel_rows];
    std::fill(worker.float_dots.begin(), worker.float_dots.end(), 0.0f);
    std::fill(squares, squares + panel_rows, 0.0f);
    for (size_t first = 0; first < words; first += segment_words) {
        const size_t word_count = std::min(segment_words, words - first);
        search.kernels.pack_panel(panel.rows, next.rows, first, word_count, packed);
        const float* values = reinterpret_cast<const float*>(packed);
        if (halves) {
            search.kernels.widen_halves(packed, word_count, widened);
            values = widened;
        }
        const size_t value_count = word_count * values_in_word;
        search.kernels.sum_of_squares(values, value_count, squares);
        for (size_t query = 0; query < search.queries.count; query += tile_queries) {
            const float* tile = search.queries.float_tiles.data() + query * words * values_in_word;
            search.kernels.dot_float(values, tile + first * values_in_word * tile_queries, value_count,
                                     std::min(tile_queries, search.queries.count - query),
                                     worker.float_dots.data() + query * panel_rows);
        }
    }
}

// 1 / |row| for each row of a panel from its sum of squares. Returns how many rows float is not enough for.
size_t measure_rows(Search& search, const Panel& panel, const float* squares, float* scales, IrregularRow* irregular) {
    size_t irregular_count = 0;
    for (size_t i = 0; i < panel_rows; ++i) {
        scales[i] = 0.0f;
        if (squares[i] >= least_regular_square && squares[i] <= largest_regular_square) {
            scales[i] = 1.0f / std::sqrt(squares[i]);
        } else if (search.rows.type == RowType::float32 && i < panel.row_count) {
            const float* values = reinterpret_cast<const float*>(panel.rows[i]);
            const double norm = norm_in_double(values, search.rows.dim);
            if (!std::isfinite(norm)) {
                note_bad_row(search, panel.numbers[i]);
            } else if (norm > 0) {
                irregular[irregular_count++] = {i, values, 1.0 / norm};
            }
        }
    }
    return irregular_count;
}

float score_in_double(const IrregularRow& row, const float* unit_query, size_t dim) {
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) {
        dot += static_cast<double>(unit_query[i]) * row.values[i];
    }
    return static_cast<float>(dot * row.scale);
}

// mask: a bit for each row of the panel whose score is above the threshold.
void offer(uint32_t mask, const float* scores, const Panel& panel, Reservoir& best) {
    for (size_t i = 0; mask != 0 && i < panel.row_count; ++i, mask >>= 1) {
        if (mask & 1) {
            best.push(scores[i], panel.numbers[i]);
        }
    }
}

void search_float_panel(Search& search, Worker& worker, const Panel& panel, const Panel& next) {
    float squares[panel_rows], scales[panel_rows];
    IrregularRow irregular[panel_rows];
    multiply_floats(search, worker, panel, next, squares);
    const size_t irregular_count = measure_rows(search, panel, squares, scales, irregular);
    for (size_t i = 0; i < irregular_count; ++i) {
        scales[irregular[i].place] = 1.0f;
    }
    for (size_t query = 0; query < search.queries.count; ++query) {
        float* scores = worker.float_dots.data() + query * panel_rows;
        for (size_t i = 0; i < irregular_count; ++i) {
            const float* unit_query = search.queries.unit.data() + query * search.rows.dim;
            scores[irregular[i].place] = score_in_double(irregular[i], unit_query, search.rows.dim);
        }
        Reservoir& best = worker.best[query];
        offer(search.kernels.finish_float(scores, scales, best.threshold(), scores), scores, panel, best);
    }
}

void search_int_panel(const Search& search, Worker& worker, const Panel& panel, const Panel& next) {
    const size_t words = row_words(search.rows.type, search.rows.dim);
    const DotWords dot = search.rows.type == RowType::int8 ? search.kernels.dot_int8 : search.kernels.dot_binary;
    const Queries& queries = search.queries;
    alignas(64) uint32_t packed[segment_length * panel_rows];
    float scores[panel_rows], scales[panel_rows];
    for (size_t query = 0; query < queries.count; ++query) {
        int32_t* dots = worker.int_dots.data() + query * panel_rows;
        std::fill(dots, dots + panel_rows, queries.starts[query]);
    }
    for (size_t first = 0; first < words; first += segment_length) {
        const size_t count = std::min(segment_length, words - first);
        search.kernels.pack_panel(panel.rows, next.rows, first, count, packed);
        for (size_t query = 0; query < queries.count; query += tile_queries) {
            dot(packed, queries.word_tiles.data() + query * words + first * tile_queries, count,
                std::min(tile_queries, queries.count - query), worker.int_dots.data() + query * panel_rows);
        }
    }
    for (size_t i = 0; i < panel_rows; ++i) {
        scales[i] = search.rows.scales[panel.numbers[i]];
    }
    for (size_t query = 0; query < queries.count; ++query) {
        Reservoir& best = worker.best[query];
        const int32_t* dots = worker.int_dots.data() + query * panel_rows;
        const float query_scale = queries.scales[query];
        offer(search.kernels.finish_int(dots, scales, query_scale, best.threshold(), scores), scores, panel, best);
    }
}

void work_on_search(void* context, size_t slot) {
    Search& search = *static_cast<Search*>(context);
    Worker& worker = search.workers[slot];
    const size_t rows_in_chunk = search.panels_in_chunk * panel_rows;
    const bool floats = search.rows.type == RowType::float32 || search.rows.type == RowType::float16;
    for (;;) {
        const size_t start = search.next_chunk.fetch_add(1) * rows_in_chunk;
        if (start >= search.rows.count) {
            return;
        }
        const size_t end = std::min(start + rows_in_chunk, search.rows.count);
        Panel panels[2];
        point_to_rows(search.rows, start, panels[0]);
        size_t current = 0;
        for (size_t first = start; first < end; first += panel_rows, current ^= 1) {
            Panel &panel = panels[current], &next = panels[current ^ 1];
            // The last panel of a chunk has no successor to call into the cache; it names itself.
            point_to_rows(search.rows, first + panel_rows < end ? first + panel_rows : first, next);
            if (floats) {
                search_float_panel(search, worker, panel, next);
            } else {
                search_int_panel(search, worker, panel, next);
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
    const size_t dot_count = (query_count + tile_queries - 1) / tile_queries * tile_queries * panel_rows;
    for (Worker& worker : search.workers) {
        if (queries.word_tiles.empty()) {
            worker.float_dots.resize(dot_count);
        } else {
            worker.int_dots.resize(dot_count);
        }
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
    const float* queries;
    size_t query_count;
    const uint32_t* candidates;
    size_t candidate_count;
    size_t k;
    float* scores;
    int64_t* indices;
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
        const int64_t bad_row = search_group(kernels, rows, queries + first * rows.dim,
                                             std::min(group_queries, query_count - first), k, thread_count,
                                             scores + first * k, indices + first * k);
        if (bad_row >= 0) {
            return bad_row;
        }
    }
    return -1;
}

int64_t search_candidates(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count,
                          const uint32_t* candidates, size_t candidate_count, size_t k, size_t thread_count,
                          float* scores, int64_t* indices) {
    CandidateSearch search{kernels, rows, queries, query_count, candidates, candidate_count, k, scores, indices};
    run_on_pool(std::min(std::max<size_t>(thread_count, 1), query_count), work_on_candidates, &search);
    if (search.out_of_memory) {
        throw std::bad_alloc();
    }
    return search.bad_row;
}

}  // namespace gte
