// The functions of gte_sdk._kernels over stored rows: encode, search, checksums.
#pragma once

#include <pybind11/pybind11.h>

void bind_search(pybind11::module_& module);
