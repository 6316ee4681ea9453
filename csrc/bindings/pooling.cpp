#include "bindings/pooling.hpp"

#include <pybind11/numpy.h>

#include "bindings/checks.hpp"
#include "encoder/pool.hpp"

namespace py = pybind11;

namespace {

Floats mean_pool(const Floats& given_vectors, const Integers& given_mask) {
    const Floats token_vectors = aligned(given_vectors);
    const Integers mask = aligned(given_mask);
    require(token_vectors.ndim() == 3 && mask.ndim() == 2,
            "last_hidden_state must be (n, t, d), attention_mask (n, t)");
    require(token_vectors.shape(0) == mask.shape(0) && token_vectors.shape(1) == mask.shape(1),
            "last_hidden_state and attention_mask must agree in n and t");
    const size_t text_count = static_cast<size_t>(mask.shape(0)), token_count = static_cast<size_t>(mask.shape(1));
    const size_t dim = static_cast<size_t>(token_vectors.shape(2));
    require_countable({text_count, dim});
    Floats means({text_count, dim});
    const float* vector_data = token_vectors.data();
    const int64_t* mask_data = mask.data();
    float* mean_data = means.mutable_data();
    {
        const py::gil_scoped_release release;
        gte::mean_pool(vector_data, mask_data, text_count, token_count, dim, mean_data);
    }
    return means;
}

Floats normalize_rows(const Floats& given) {
    const Floats vectors = aligned(given);
    require(vectors.ndim() == 2, "vectors must be a matrix");
    const size_t row_count = static_cast<size_t>(vectors.shape(0)), dim = static_cast<size_t>(vectors.shape(1));
    Floats unit({row_count, dim});
    const float* in = vectors.data();
    float* out = unit.mutable_data();
    {
        const py::gil_scoped_release release;
        gte::normalize_rows(in, row_count, dim, out);
    }
    return unit;
}

}  // namespace

void bind_pooling(py::module_& module) {
    module.def("mean_pool", &mean_pool, py::arg("last_hidden_state"), py::arg("attention_mask"));
    module.def("normalize_rows", &normalize_rows, py::arg("vectors"));
}
