#include "topk.hpp"

#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "reservoir.hpp"
#include "thread_pool.hpp"

namespace gte {
namespace {

// Packed rows of one block: what half of a small second-level cache holds, with the raw rows and queries in the rest.
constexpr size_t block_bytes = 256 * 1024;
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

// A run of the searched rows, by position among them.
struct Block {
    size_t first;
    size_t row_count;
};

// A row whose squares leave the range of float; it is scored in double.
struct IrregularRow {
    size_t position;  // in the block
    double scale;     // 1 / |row|
};

// What one thread keeps through a search.
struct Worker {
    std::vector<float> panels;
    std::vector<float> scales;  // 1 / |row| for each row of the block
    std::vector<IrregularRow> irregular_rows;
    std::vector<uint64_t> keys;
    std::vector<Reservoir> best;  // one for each query
};

struct Search {
    const Kernels& kernels;
    const Rows& rows;
    const float* unit_queries;   // [query_count][dim]
    const float* query_tiles;    // [tile][dim][tile_queries]
    size_t query_count;
    size_t rows_in_block;
    size_t blocks_in_chunk = 1;
    std::atomic<size_t> next_chunk{0};
    std::atomic<int64_t> bad_row{INT64_MAX};
    std::vector<Worker> workers{};
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

// 1 / |row| for a row whose sum of squares float cannot be trusted with: huge, tiny, zero, or not finite.
float irregular_scale(Search& search, Worker& worker, const Block& block, size_t position) {
    const size_t row = row_at(search.rows, block.first + position);
    const double norm = norm_in_double(row_values(search.rows, row), search.rows.dim);
    if (!std::isfinite(norm)) {
        note_bad_row(search, row);
    } else if (norm > 0) {
        worker.irregular_rows.push_back({position, 1.0 / norm});
    }
    return 0.0f;
}

void pack_block(Search& search, Worker& worker, const Block& block) {
    const size_t dim = search.rows.dim;
    worker.irregular_rows.clear();
    for (size_t first = 0; first < block.row_count; first += panel_rows) {
        const char* pointers[panel_rows];
        for (size_t i = 0; i < panel_rows; ++i) {
            // A last panel that is not full repeats its last row; select() leaves the repetitions out.
            const size_t row = row_at(search.rows, block.first + std::min(first + i, block.row_count - 1));
            pointers[i] = reinterpret_cast<const char*>(row_values(search.rows, row));
        }
        float* panel = worker.panels.data() + first * dim;
        search.kernels.pack_panel(pointers, dim, reinterpret_cast<uint32_t*>(panel));
        float squares[panel_rows];
        search.kernels.sum_of_squares(panel, dim, squares);
        for (size_t i = 0; i < std::min(panel_rows, block.row_count - first); ++i) {
            const bool regular = squares[i] >= least_regular_square && squares[i] <= largest_regular_square;
            worker.scales[first + i] =
                regular ? 1.0f / std::sqrt(squares[i]) : irregular_scale(search, worker, block, first + i);
        }
    }
}

void score_in_double(const Search& search, const Block& block, const IrregularRow& irregular, size_t first_query,
                     size_t query_count, float* scores) {
    const size_t dim = search.rows.dim;
    const float* values = row_values(search.rows, row_at(search.rows, block.first + irregular.position));
    for (size_t query = 0; query < query_count; ++query) {
        const float* unit_query = search.unit_queries + (first_query + query) * dim;
        double dot = 0;
        for (size_t i = 0; i < dim; ++i) {
            dot += static_cast<double>(unit_query[i]) * values[i];
        }
        scores[query * panel_rows] = static_cast<float>(dot * irregular.scale);
    }
}

// scores: [panel_rows] of one query.
void select(const float* scores, const Rows& rows, size_t first, size_t row_count, Reservoir& best) {
    const float threshold = best.threshold();
    int above = 0;
    for (size_t i = 0; i < panel_rows; ++i) {
        above |= scores[i] > threshold;
    }
    if (above) {
        for (size_t i = 0; i < row_count; ++i) {
            best.push(scores[i], static_cast<uint32_t>(row_at(rows, first + i)));
        }
    }
}

void score_block(Search& search, Worker& worker, const Block& block) {
    const size_t dim = search.rows.dim;
    pack_block(search, worker, block);
    float scores[tile_queries * panel_rows];
    for (size_t first_query = 0; first_query < search.query_count; first_query += tile_queries) {
        const size_t query_count = std::min(tile_queries, search.query_count - first_query);
        const float* tile = search.query_tiles + first_query * dim;
        auto irregular = worker.irregular_rows.begin();
        for (size_t first = 0; first < block.row_count; first += panel_rows) {
            search.kernels.dot_float(worker.panels.data() + first * dim, tile, dim, query_count, scores);
            for (size_t query = 0; query < query_count; ++query) {
                for (size_t i = 0; i < panel_rows; ++i) {
                    scores[query * panel_rows + i] *= worker.scales[first + i];
                }
            }
            for (; irregular != worker.irregular_rows.end() && irregular->position < first + panel_rows; ++irregular) {
                score_in_double(search, block, *irregular, first_query, query_count,
                                scores + irregular->position - first);
            }
            for (size_t query = 0; query < query_count; ++query) {
                select(scores + query * panel_rows, search.rows, block.first + first,
                       std::min(panel_rows, block.row_count - first), worker.best[first_query + query]);
            }
        }
    }
}

void work_on_search(void* context, size_t slot) {
    Search& search = *static_cast<Search*>(context);
    Worker& worker = search.workers[slot];
    const size_t rows_in_chunk = search.rows_in_block * search.blocks_in_chunk;
    for (;;) {
        const size_t chunk_start = search.next_chunk.fetch_add(1) * rows_in_chunk;
        if (chunk_start >= search.rows.count) {
            return;
        }
        const size_t chunk_end = std::min(chunk_start + rows_in_chunk, search.rows.count);
        for (size_t first = chunk_start; first < chunk_end; first += search.rows_in_block) {
            score_block(search, worker, {first, std::min(search.rows_in_block, chunk_end - first)});
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

}  // namespace

int64_t search(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count, size_t k,
               size_t thread_count, float* scores, int64_t* indices) {
    if (query_count == 0) {
        return -1;
    }
    const std::vector<float> unit_queries = unit_rows(queries, query_count, rows.dim);
    const std::vector<float> query_tiles = tile_up(unit_queries, query_count, rows.dim);
    const size_t panel_bytes = panel_rows * rows.dim * sizeof(float);
    const size_t panels_in_block = query_count <= tile_queries ? 1 : std::max<size_t>(1, block_bytes / panel_bytes);

    const double work = static_cast<double>(rows.count) * static_cast<double>(rows.dim * query_count);
    const size_t useful_threads = static_cast<size_t>(std::min(work / least_work_for_thread, 1e4)) + 1;
    const size_t slots = std::min(std::max<size_t>(thread_count, 1), useful_threads);

    Search search{kernels, rows, unit_queries.data(), query_tiles.data(), query_count, panels_in_block * panel_rows};
    const size_t block_count = (rows.count + search.rows_in_block - 1) / search.rows_in_block;
    // Long runs of memory for each thread, and enough of them that a slow thread holds up the others by little.
    search.blocks_in_chunk = std::max<size_t>(1, block_count / (slots * 16));
    search.workers.resize(slots);
    for (Worker& worker : search.workers) {
        worker.panels.resize(search.rows_in_block * rows.dim);
        worker.scales.resize(search.rows_in_block);
        worker.irregular_rows.reserve(search.rows_in_block);
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

}  // namespace gte
