// One panel of rows against all queries of a group: multiply, score, offer to the reservoirs.
//
// A segment of the panel is packed and multiplied with every query tile while it is in the first-level cache; packing
// it prefetches the same segment of the next panel, so that memory and arithmetic are busy at the same time. One query
// first looks which rows can be results at all (first_look.hpp). These wait until they are as many as a panel has.
#pragma once

#include <atomic>
#include <limits>
#include <vector>

#include "search/kernels/kernels.hpp"
#include "search/queries.hpp"
#include "search/reservoir.hpp"
#include "search/rows.hpp"

namespace gte {

// Up to panel_rows neighbours among the searched rows; one that is not full repeats its last row.
struct Panel {
    size_t row_count;
    bool adjacent;  // whether the numbers are those of panel_rows rows that follow each other
    // A copy of the selected numbers, none of them beyond the stored rows: another thread may write over the caller's.
    uint32_t numbers[panel_rows];
    const char* rows[panel_rows];
};

// A score that none of the best k is below: the highest threshold of any thread's reservoir. For one query.
class SharedThreshold {
  public:
    float get() const { return value_.load(std::memory_order_relaxed); }

    void raise(float value) {
        float lower = get();
        while (lower < value && !value_.compare_exchange_weak(lower, value, std::memory_order_relaxed)) {
        }
    }

  private:
    std::atomic<float> value_{-std::numeric_limits<float>::infinity()};
};

// What a thread keeps from panel to panel.
struct PanelWork {
    // The dot products of one panel, of the kind that the rows have: [tile][tile_queries][panel_rows].
    std::vector<float> floats;
    std::vector<int32_t> integers;
    // Whether the panel before had few that may be among the best, so that a first look is worth its time.
    bool look_first = false;
    // Rows that a first look did not rule out, in ascending order, to be scored.
    uint32_t waiting[panel_rows];
    size_t waiting_count = 0;
    SharedThreshold* threshold = nullptr;
};

// threshold: of all threads of the search.
PanelWork make_panel_work(const Queries& queries, SharedThreshold& threshold);

// Makes it the panel that begins at position `first` of the searched rows.
void set_panel(Panel& panel, const Rows& rows, size_t first);

// best: one reservoir for each query. Returns the lowest row of the panel that is not finite, or -1.
int64_t search_panel(const Kernels& kernels, const Rows& rows, const Queries& queries, const Panel& panel,
                     const Panel& next, PanelWork& work, Reservoir* best);

// Scores the rows that wait, after the last panel. Returns as search_panel does.
int64_t score_waiting(const Kernels& kernels, const Rows& rows, const Queries& queries, PanelWork& work,
                      Reservoir* best);

}  // namespace gte
