// The Python module gte_sdk._kernels. Its parts check their arguments, allocate the results and release the GIL.
#include <pybind11/pybind11.h>

#include "bindings/encoder.hpp"
#include "bindings/pooling.hpp"
#include "bindings/search.hpp"
#include "bindings/tokenizer.hpp"

PYBIND11_MODULE(_kernels, module) {
    module.doc() = "Exact search, an encoder and its tokenizer in C++.";
    bind_search(module);
    bind_encoder(module);
    bind_pooling(module);
    bind_tokenizer(module);
}
