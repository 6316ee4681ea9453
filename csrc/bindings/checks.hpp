// What the bindings check of every argument. A failed check is a ValueError: our own Python passed something wrong,
// since the messages for users are made in gte_sdk.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>

using Floats = pybind11::array_t<float, pybind11::array::c_style>;
using Integers = pybind11::array_t<int64_t, pybind11::array::c_style>;

inline void require(bool condition, const char* message) {
    if (!condition) {
        throw pybind11::value_error(message);
    }
}
