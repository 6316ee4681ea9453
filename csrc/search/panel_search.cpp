#include "search/panel_search.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gte {
namespace {

// Values of a float row (words of another) that are packed and used at a time: 32 rows of them take 8 KB.
constexpr size_t segment_length = 64;

// A row whose squares leave the range of float; it is scored in double.
struct IrregularRow {
    size_t place;  // in the panel
    const char* values;
    double scale;  // 1 / |row|
};

struct PanelScales {
    float scales[panel_rows];  // 1 / |row|
    IrregularRow irregular[panel_rows];
    size_t irregular_count = 0;
    int64_t bad_row = -1;
};

// Dot products of a panel of float32 or float16 rows with all queries, and the rows' sums of squares.
void multiply_floats(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                     const Panel& next, float* dots, float* squares) {
    const bool halves = rows.type == RowType::float16;
    const size_t values_in_word = halves ? 2 : 1;
    const size_t words = row_words(rows.type, rows.dim);
    const size_t segment_words = segment_length / values_in_word;
    alignas(64) uint32_t packed[segment_length * panel_rows];
    alignas(64) float widened[segment_length * panel_rows];
    std::fill(dots, dots + queries.count * panel_rows, 0.0f);
    std::fill(squares, squares + panel_rows, 0.0f);
    const OneQueryFloat one_query = halves ? kernels.one_query_half : kernels.one_query_float;
    if (queries.count == 1 && one_query != nullptr) {
        one_query(panel.rows, next.rows, queries.unit.data(), words, dots, squares);
        return;
    }
    for (size_t first = 0; first < words; first += segment_words) {
        const size_t word_count = std::min(segment_words, words - first);
        kernels.pack_panel(panel.rows, next.rows, first, word_count, packed);
        const float* values = reinterpret_cast<const float*>(packed);
        if (halves) {
            kernels.widen_halves(packed, word_count, widened);
            values = widened;
        }
        const size_t value_count = word_count * values_in_word;
        kernels.sum_of_squares(values, value_count, squares);
        for (size_t query = 0; query < queries.count; query += tile_queries) {
            const float* tile = queries.float_tiles.data() + query * words * values_in_word;
            kernels.dot_float(values, tile + first * values_in_word * tile_queries, value_count,
                              std::min(tile_queries, queries.count - query), dots + query * panel_rows);
        }
    }
}

// A stored row need not be aligned to its floats.
float float_at(const char* values, size_t position) {
    float value;
    std::memcpy(&value, values + position * sizeof value, sizeof value);
    return value;
}

double norm_of_row(const char* values, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; ++i) {
        sum += static_cast<double>(float_at(values, i)) * float_at(values, i);
    }
    return std::sqrt(sum);
}

PanelScales measure_rows(const Rows& rows, const Panel& panel, const float* squares) {
    PanelScales measured;
    for (size_t i = 0; i < panel_rows; ++i) {
        measured.scales[i] = 0.0f;
        if (squares[i] >= least_regular_square && squares[i] <= largest_regular_square) {
            measured.scales[i] = 1.0f / std::sqrt(squares[i]);
            continue;
        }
        // A stored float16 row has unit length or is zero: only a float32 row can be finite and irregular.
        const char* values = panel.rows[i];
        const double norm = rows.type == RowType::float32 ? norm_of_row(values, rows.dim) : std::sqrt(squares[i]);
        if (!std::isfinite(norm)) {
            measured.bad_row = measured.bad_row < 0 ? panel.numbers[i] : measured.bad_row;
        } else if (norm > 0 && rows.type == RowType::float32) {
            measured.scales[i] = 1.0f;
            measured.irregular[measured.irregular_count++] = {i, values, 1.0 / norm};
        }
    }
    return measured;
}

float score_in_double(const IrregularRow& row, const float* unit_query, size_t dim) {
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) {
        dot += static_cast<double>(unit_query[i]) * float_at(row.values, i);
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

// More than this many of a panel, and a first look at the next one is not worth its time.
constexpr size_t most_after_a_look = 4;

size_t count_bits(uint32_t mask) {
    size_t count = 0;
    for (; mask != 0; mask &= mask - 1) {
        ++count;
    }
    return count;
}

int64_t score_float_panel(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                          const Panel& next, PanelWork& work, Reservoir* best) {
    float squares[panel_rows];
    float* dots = work.floats.data();
    multiply_floats(kernels, rows, queries, panel, next, dots, squares);
    const PanelScales measured = measure_rows(rows, panel, squares);
    for (size_t query = 0; query < queries.count; ++query) {
        float* scores = dots + query * panel_rows;
        for (size_t i = 0; i < measured.irregular_count; ++i) {
            const IrregularRow& row = measured.irregular[i];
            scores[row.place] = score_in_double(row, queries.unit.data() + query * rows.dim, rows.dim);
        }
        const uint32_t mask = kernels.score_float(scores, measured.scales, best[query].threshold(), scores);
        offer(mask, scores, panel, best[query]);
        work.look_first = count_bits(mask) <= most_after_a_look;
    }
    if (queries.count == 1) {
        work.threshold->raise(best[0].threshold());
    }
    return measured.bad_row;
}

int64_t search_float_panel(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                           const Panel& next, PanelWork& work, Reservoir* best) {
    const bool halves = rows.type == RowType::float16;
    const RowsAbove rows_above = halves ? kernels.rows_above_half : kernels.rows_above_float;
    const size_t value_count = row_words(rows.type, rows.dim) * (halves ? 2 : 1);
    const float bound = std::max(best[0].threshold(), work.threshold->get()) - look_margin(value_count);
    if (queries.count != 1 || rows_above == nullptr || !work.look_first || !(bound > 0)) {
        // Rows are offered in ascending order.
        const int64_t bad_before = score_waiting(kernels, rows, queries, work, best);
        const int64_t bad_row = score_float_panel(kernels, rows, queries, panel, next, work, best);
        return bad_before >= 0 ? bad_before : bad_row;
    }
    const uint32_t mask = rows_above(panel.rows, next.rows, queries.unit.data(), value_count, bound);
    int64_t bad_row = -1;
    for (size_t i = 0; i < panel.row_count && mask >> i != 0; ++i) {
        if (mask >> i & 1) {
            work.waiting[work.waiting_count++] = panel.numbers[i];
            if (work.waiting_count == panel_rows) {
                const int64_t bad_waiting = score_waiting(kernels, rows, queries, work, best);
                bad_row = bad_row < 0 ? bad_waiting : bad_row;
            }
        }
    }
    work.look_first = count_bits(mask) <= most_after_a_look;
    return bad_row;
}

// A scale is the reciprocal length of a vector of integers, or 0.
int64_t lowest_bad_row(const float* scales, const Panel& panel) {
    int bad = 0;
    for (size_t i = 0; i < panel_rows; ++i) {
        bad |= !(scales[i] >= 0.0f && scales[i] <= 1.0f);
    }
    for (size_t i = 0; bad && i < panel_rows; ++i) {
        if (!(scales[i] >= 0.0f && scales[i] <= 1.0f)) {
            return panel.numbers[i];
        }
    }
    return -1;
}

int64_t search_int_panel(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                         const Panel& next, int32_t* dots, Reservoir* best) {
    const size_t words = row_words(rows.type, rows.dim);
    const bool bytes = rows.type == RowType::int8;
    const DotWords dot = bytes ? kernels.dot_int8 : kernels.dot_binary;
    const OneQueryWords one_query = bytes ? kernels.one_query_int8 : kernels.one_query_binary;
    alignas(64) uint32_t packed[segment_length * panel_rows];
    for (size_t query = 0; query < queries.count; ++query) {
        std::fill(dots + query * panel_rows, dots + (query + 1) * panel_rows, queries.starts[query]);
    }
    const bool alone = queries.count == 1 && one_query != nullptr;
    if (alone) {
        one_query(panel.rows, next.rows, queries.words.data(), words, dots);
    }
    for (size_t first = 0; !alone && first < words; first += segment_length) {
        const size_t count = std::min(segment_length, words - first);
        kernels.pack_panel(panel.rows, next.rows, first, count, packed);
        for (size_t query = 0; query < queries.count; query += tile_queries) {
            dot(packed, queries.word_tiles.data() + query * words + first * tile_queries, count,
                std::min(tile_queries, queries.count - query), dots + query * panel_rows);
        }
    }
    float scores[panel_rows], gathered[panel_rows];
    const float* scales = rows.scales + panel.numbers[0];
    if (!panel.adjacent) {
        for (size_t i = 0; i < panel_rows; ++i) {
            gathered[i] = rows.scales[panel.numbers[i]];
        }
        scales = gathered;
    }
    const int64_t bad_row = lowest_bad_row(scales, panel);
    for (size_t query = 0; query < queries.count; ++query) {
        const uint32_t mask = kernels.score_int(dots + query * panel_rows, scales, queries.scales[query],
                                                best[query].threshold(), scores);
        offer(mask, scores, panel, best[query]);
    }
    return bad_row;
}

}  // namespace

PanelWork make_panel_work(const Queries& queries, SharedThreshold& threshold) {
    PanelWork work;
    work.threshold = &threshold;
    if (queries.word_tiles.empty()) {
        work.floats.resize(queries.count * panel_rows);
    } else {
        work.integers.resize(queries.count * panel_rows);
    }
    return work;
}

void set_panel(Panel& panel, const Rows& rows, size_t first) {
    panel.row_count = std::min(panel_rows, rows.count - first);
    panel.adjacent = rows.selected == nullptr && panel.row_count == panel_rows;
    for (size_t i = 0; i < panel_rows; ++i) {
        const size_t position = first + std::min(i, panel.row_count - 1);
        const size_t number = rows.selected != nullptr ? rows.selected[position] : position;
        panel.numbers[i] = static_cast<uint32_t>(std::min(number, rows.stored_count - 1));
        panel.rows[i] = rows.data + static_cast<ptrdiff_t>(panel.numbers[i]) * rows.row_stride;
    }
}

int64_t score_waiting(const Kernels& kernels, const Rows& rows, const Queries& queries, PanelWork& work,
                      Reservoir* best) {
    if (work.waiting_count == 0) {
        return -1;
    }
    Rows waiting = rows;
    waiting.selected = work.waiting;
    waiting.count = work.waiting_count;
    Panel panel;
    set_panel(panel, waiting, 0);
    work.waiting_count = 0;
    return score_float_panel(kernels, rows, queries, panel, panel, work, best);
}

int64_t search_panel(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                     const Panel& next, PanelWork& work, Reservoir* best) {
    return queries.word_tiles.empty()
               ? search_float_panel(kernels, rows, queries, panel, next, work, best)
               : search_int_panel(kernels, rows, queries, panel, next, work.integers.data(), best);
}

}  // namespace gte
