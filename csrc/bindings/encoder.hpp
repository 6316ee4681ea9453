// The class gte_sdk._kernels.Bert, see bert.hpp.
#pragma once

#include <pybind11/pybind11.h>

void bind_bert(pybind11::module_& module);
