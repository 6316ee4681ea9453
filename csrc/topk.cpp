#include "topk.hpp"

#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "reservoir.hpp"
#include "thread_pool.hpp"

namespace gte {
namespace {

// Words of a row that are packed and used at a time: 32 rows of them stay in the first-level cache.
constexpr size_t segment_words = 64;
// Queries that share one pass over the rows: their vectors stay in the second-level cache at usual dimensions.
constexpr size_t group_queries = 22 * tile_queries;
// A thread that has less than this many multiply-adds to do costs more to wake than it saves.
constexpr size_t least_work_for_thread = 1 << 18;

// Sums of squares outside of these bounds may have lost digits, or their root, to overflow or underflow.
constexpr float least_regular_square = 1e-30f;
constexpr float largest_regular_square = 1e30f;

size_t round_up(size_t value, size_t step) {
    return (value + step - 1) / step * step;
}

double norm_in_double(const float* values, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; ++i) {
        sum += static_cast<double>(values[i]) * values[i];
    }
    return std::sqrt(sum);
}

// A row whose squares leave the range of float; it is scored in double.
struct IrregularRow {
    size_t place;  // in the panel
    const float* values;
    double scale;  // 1 / |row|
};

// What one thread keeps through a search.
struct Worker {
    std::vector<float> scores;  // [tile][tile_queries][panel_rows]
    std::vector<uint64_t> keys;
    std::vector<Reservoir> best;  // one for each query
};

struct Search {
    const Kernels& kernels;
    const Rows& rows;
    const float* unit_queries;  // [query_count][dim]
    const float* query_tiles;   // [tile][dim][tile_queries]
    size_t query_count;
    size_t panels_in_chunk;
    std::atomic<size_t> next_chunk{0};
    std::atomic<int64_t> bad_row{INT64_MAX};
    std::vector<Worker> workers{};
};

// Up to panel_rows neighbours among the searched rows.
struct Panel {
    size_t first;
    size_t row_count;
    const char* rows[panel_rows];
};

size_t row_at(const Rows& rows, size_t position) {
    return rows.selected == nullptr ? position : rows.selected[position];
}

const float* row_values(const Rows& rows, size_t row) {
    return reinterpret_cast<const float*>(rows.data + static_cast<ptrdiff_t>(row) * rows.row_stride);
}

void note_bad_row(Search& search, size_t row) {
    const int64_t candidate = static_cast<int64_t>(row);
    int64_t lowest = search.bad_row.load();
    while (candidate < lowest && !search.bad_row.compare_exchange_weak(lowest, candidate)) {
    }
}

// A panel that is not full repeats its last row; select() leaves the repetitions out.
void point_to_rows(const Rows& rows, size_t first, Panel& panel) {
    panel.first = first;
    panel.row_count = std::min(panel_rows, rows.count - first);
    for (size_t i = 0; i < panel_rows; ++i) {
        const size_t row = row_at(rows, first + std::min(i, panel.row_count - 1));
        panel.rows[i] = reinterpret_cast<const char*>(row_values(rows, row));
    }
}

// Raw dot products of a panel with all queries into worker.scores, and its rows' sums of squares.
void score_panel(const Search& search, Worker& worker, const Panel& panel, const Panel& next, float* squares) {
    const size_t dim = search.rows.dim;
    alignas(64) uint32_t packed[segment_words * panel_rows];
    std::fill(worker.scores.begin(), worker.scores.end(), 0.0f);
    std::fill(squares, squares + panel_rows, 0.0f);
    for (size_t first = 0; first < dim; first += segment_words) {
        const size_t count = std::min(segment_words, dim - first);
        search.kernels.pack_panel(panel.rows, next.rows, first, count, packed);
        const float* values = reinterpret_cast<const float*>(packed);
        search.kernels.sum_of_squares(values, count, squares);
        for (size_t query = 0; query < search.query_count; query += tile_queries) {
            search.kernels.dot_float(values, search.query_tiles + query * dim + first * tile_queries, count,
                                     std::min(tile_queries, search.query_count - query),
                                     worker.scores.data() + query * panel_rows);
        }
    }
}

// 1 / |row| for each row of a panel from its sum of squares. Returns how many rows float is not enough for.
size_t scales_of(Search& search, const Panel& panel, const float* squares, float* scales, IrregularRow* irregular) {
    size_t irregular_count = 0;
    for (size_t i = 0; i < panel.row_count; ++i) {
        if (squares[i] >= least_regular_square && squares[i] <= largest_regular_square) {
            scales[i] = 1.0f / std::sqrt(squares[i]);
            continue;
        }
        scales[i] = 0.0f;
        const size_t row = row_at(search.rows, panel.first + i);
        const float* values = row_values(search.rows, row);
        const double norm = norm_in_double(values, search.rows.dim);
        if (!std::isfinite(norm)) {
            note_bad_row(search, row);
        } else if (norm > 0) {
            irregular[irregular_count++] = {i, values, 1.0 / norm};
        }
    }
    std::fill(scales + panel.row_count, scales + panel_rows, 0.0f);
    return irregular_count;
}

float score_in_double(const IrregularRow& row, const float* unit_query, size_t dim) {
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) {
        dot += static_cast<double>(unit_query[i]) * row.values[i];
    }
    return static_cast<float>(dot * row.scale);
}

// scores: [panel_rows] of one query.
void select(const float* scores, const Rows& rows, const Panel& panel, Reservoir& best) {
    const float threshold = best.threshold();
    int above = 0;
    for (size_t i = 0; i < panel_rows; ++i) {
        above |= scores[i] > threshold;
    }
    if (above) {
        for (size_t i = 0; i < panel.row_count; ++i) {
            best.push(scores[i], static_cast<uint32_t>(row_at(rows, panel.first + i)));
        }
    }
}

void search_panel(Search& search, Worker& worker, const Panel& panel, const Panel& next) {
    float squares[panel_rows], scales[panel_rows];
    IrregularRow irregular[panel_rows];
    score_panel(search, worker, panel, next, squares);
    const size_t irregular_count = scales_of(search, panel, squares, scales, irregular);
    for (size_t query = 0; query < search.query_count; ++query) {
        float* scores = worker.scores.data() + query * panel_rows;
        for (size_t i = 0; i < panel_rows; ++i) {
            scores[i] *= scales[i];
        }
        for (size_t i = 0; i < irregular_count; ++i) {
            const float* unit_query = search.unit_queries + query * search.rows.dim;
            scores[irregular[i].place] = score_in_double(irregular[i], unit_query, search.rows.dim);
        }
        select(scores, search.rows, panel, worker.best[query]);
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
        point_to_rows(search.rows, start, panels[0]);
        size_t current = 0;
        for (size_t first = start; first < end; first += panel_rows, current ^= 1) {
            // The last panel of a chunk has no successor to call into the cache; it names itself.
            point_to_rows(search.rows, first + panel_rows < end ? first + panel_rows : first, panels[current ^ 1]);
            search_panel(search, worker, panels[current], panels[current ^ 1]);
        }
    }
}

// Unit length in double, so that a query of any finite size has a direction. A query of zeros stays one.
std::vector<float> unit_rows(const float* queries, size_t query_count, size_t dim) {
    std::vector<float> unit(query_count * dim);
    for (size_t query = 0; query < query_count; ++query) {
        const double norm = norm_in_double(queries + query * dim, dim);
        const double scale = norm > 0 ? 1.0 / norm : 0.0;
        for (size_t i = 0; i < dim; ++i) {
            unit[query * dim + i] = static_cast<float>(queries[query * dim + i] * scale);
        }
    }
    return unit;
}

std::vector<float> tile_up(const std::vector<float>& queries, size_t query_count, size_t dim) {
    std::vector<float> tiles(round_up(query_count, tile_queries) * dim);
    for (size_t query = 0; query < query_count; ++query) {
        float* tile = tiles.data() + query / tile_queries * tile_queries * dim;
        for (size_t i = 0; i < dim; ++i) {
            tile[i * tile_queries + query % tile_queries] = queries[query * dim + i];
        }
    }
    return tiles;
}

void write_results(const Search& search, size_t k, float* scores, int64_t* indices) {
    std::vector<uint64_t> keys;
    for (size_t query = 0; query < search.query_count; ++query) {
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

int64_t search_group(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count, size_t k,
                     size_t thread_count, float* scores, int64_t* indices) {
    const std::vector<float> unit_queries = unit_rows(queries, query_count, rows.dim);
    const std::vector<float> query_tiles = tile_up(unit_queries, query_count, rows.dim);
    const double work = static_cast<double>(rows.count) * static_cast<double>(rows.dim * query_count);
    const size_t useful_threads = static_cast<size_t>(std::min(work / least_work_for_thread, 1e4)) + 1;
    const size_t slots = std::min(std::max<size_t>(thread_count, 1), useful_threads);
    // Long runs of memory for each thread, and enough of them that a slow thread holds up the others by little.
    const size_t panels_in_chunk = std::max<size_t>(1, rows.count / panel_rows / (slots * 16));

    Search search{kernels, rows, unit_queries.data(), query_tiles.data(), query_count, panels_in_chunk};
    search.workers.resize(slots);
    for (Worker& worker : search.workers) {
        worker.scores.resize(round_up(query_count, tile_queries) * panel_rows);
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

}  // namespace gte
