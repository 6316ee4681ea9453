// The class gte_sdk._kernels.Bert (encoder/bert.hpp), and pooling for other graphs (encoder/pool.hpp).
#pragma once

#include <pybind11/pybind11.h>

void bind_encoder(pybind11::module_& module);
