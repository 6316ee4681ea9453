// The class gte_sdk._kernels.Encoder (encoder/encoder.hpp).
#pragma once

#include <pybind11/pybind11.h>

void bind_encoder(pybind11::module_& module);
