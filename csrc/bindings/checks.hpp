// What the bindings check of every argument, so that no call reads or writes outside of its arrays, whatever it is
// given. A failed check is a ValueError: our own Python passed something wrong, since the messages for users are made
// in gte_sdk.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "machine/stop.hpp"

using Floats = pybind11::array_t<float, pybind11::array::c_style>;
using Integers = pybind11::array_t<int64_t, pybind11::array::c_style>;

inline void require(bool condition, const char* message) {
    if (!condition) {
        throw pybind11::value_error(message);
    }
}

// That an array of these sizes, of at most 8 bytes an element, has a size that can be computed.
inline void require_countable(std::initializer_list<size_t> sizes) {
    size_t room = PTRDIFF_MAX / 8;
    for (const size_t size : sizes) {
        require(size <= room, "a result of this size cannot be held");
        room /= std::max<size_t>(size, 1);
    }
}

// More threads than any machine has change nothing, but each would cost memory.
inline size_t checked_threads(size_t threads) { return std::min<size_t>(std::max<size_t>(threads, 1), 4096); }

template <class Value>
bool is_aligned(const Value* data) {
    return reinterpret_cast<uintptr_t>(data) % alignof(Value) == 0;
}

// The array, or a copy of one that lies across its elements' alignment, as numpy.frombuffer makes them.
template <class Value>
pybind11::array_t<Value, pybind11::array::c_style> aligned(pybind11::array_t<Value, pybind11::array::c_style> array) {
    return is_aligned(array.data()) ? array : array.attr("copy")();
}

// Asked between the blocks of a long run, so that Ctrl-C and the program's own signal handlers end it. Python runs
// handlers on its main thread only; on others this answers false.
inline bool signal_raised() {
    const pybind11::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
}

// After a run: the exception of the handler that ended it.
inline void raise_if_stopped(const gte::Stop& stop) {
    if (stop.stopped()) {
        throw pybind11::error_already_set();
    }
}
