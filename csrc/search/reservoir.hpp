// The best k of a stream of (score, row), rows in ascending order, in memory of about 2k.
//
// Candidates that beat the k-th best so far are appended; when the room is used up, the best k are kept. That costs
// O(1) for each candidate at any k, where a heap costs O(log k). A candidate is one 64-bit key: the score's bits in an
// order that unsigned integers have, then the complement of the row, so that one comparison settles score and tie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

namespace gte {

// The bits of negative floats are inverted and positive ones move above them. +0.0f makes -0.0 equal to 0.0, as scores
// are.
inline uint64_t candidate_key(float score, uint32_t row) {
    const float value = score + 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
    return (static_cast<uint64_t>(bits) << 32) | ~row;
}

inline float key_score(uint64_t key) {
    uint32_t bits = static_cast<uint32_t>(key >> 32);
    bits = (bits & 0x80000000u) ? bits & 0x7fffffffu : ~bits;
    float score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}

inline uint32_t key_row(uint64_t key) { return ~static_cast<uint32_t>(key); }

inline void keep_best(uint64_t* keys, size_t key_count, size_t k) {
    if (key_count > k) {
        std::nth_element(keys, keys + k - 1, keys + key_count, std::greater<uint64_t>());
    }
}

class Reservoir {
  public:
    // A k-th of the room for spare candidates keeps the cost of making room constant for each of them.
    static size_t capacity(size_t k) { return k + std::max<size_t>(k, 8); }

    Reservoir(uint64_t* keys, size_t k) : keys_(keys), k_(k) {}

    // A score above this may enter: any but NaN until there are k candidates, however far a damaged row takes it below
    // -1.
    float threshold() const { return threshold_; }

    // Equal scores lose: the row that is already here has the lower number.
    void push(float score, uint32_t row) {
        const float clamped = std::min(std::max(score, -1.0f), 1.0f);
        if (!(clamped > threshold_)) {
            return;
        }
        keys_[size_++] = candidate_key(clamped, row);
        if (size_ == capacity(k_)) {
            keep_best(keys_, size_, k_);
            size_ = k_;
            threshold_ = key_score(keys_[k_ - 1]);
        }
    }

    const uint64_t* keys() const { return keys_; }
    size_t size() const { return size_; }

  private:
    uint64_t* keys_;
    size_t k_;
    size_t size_ = 0;
    float threshold_ = -std::numeric_limits<float>::infinity();
};

}  // namespace gte
