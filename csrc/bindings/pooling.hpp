// Pooling for graphs without it (encoder/pool.hpp).
#pragma once

#include <pybind11/pybind11.h>

void bind_pooling(pybind11::module_& module);
