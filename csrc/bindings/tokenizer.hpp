// The class gte_sdk._kernels.WordPieces, see word_pieces.hpp.
#pragma once

#include <pybind11/pybind11.h>

void bind_tokenizer(pybind11::module_& module);
