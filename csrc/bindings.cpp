// The Python module gte_sdk._kernels: checks arguments, allocates results, releases the GIL. Messages for users are made in
// gte_sdk/index.py; what is raised here means a mistake in our own Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "dot.hpp"
#include "pool.hpp"
#include "topk.hpp"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using RowNumbers = py::array_t<uint32_t, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;

void require(bool condition, const char* message) {
    if (!condition) {
        throw py::value_error(message);
    }
}

const gte::Kernels& kernels_named(const std::string& variant) {
    const gte::Kernels* kernels = gte::find_kernels(variant.c_str());
    if (kernels == nullptr) {
        throw py::value_error("no kernels called " + variant + " on this CPU");
    }
    return *kernels;
}

size_t check_selected(const RowNumbers& selected, size_t row_count) {
    require(selected.ndim() == 1, "selected must be a vector of row numbers");
    const size_t count = static_cast<size_t>(selected.size());
    for (size_t i = 0; i < count; ++i) {
        const uint32_t row = selected.data()[i];
        require(row < row_count && (i == 0 || row > selected.data()[i - 1]), "selected must be ascending and in range");
    }
    return count;
}

std::vector<std::string> variants() {
    std::vector<std::string> names;
    for (size_t i = 0; gte::kernel_name(i) != nullptr; ++i) {
        names.emplace_back(gte::kernel_name(i));
    }
    return names;
}

// selected: ascending row numbers, or None for all rows. Returns scores, indices and the lowest bad row or -1.
py::tuple search(const Floats& queries, const py::array_t<float>& documents, size_t k,
                 const std::optional<RowNumbers>& selected, size_t threads, const std::string& variant) {
    require(queries.ndim() == 2 && documents.ndim() == 2, "queries and documents must be matrices");
    const size_t query_count = static_cast<size_t>(queries.shape(0)), dim = static_cast<size_t>(queries.shape(1));
    const size_t row_count = static_cast<size_t>(documents.shape(0));
    require(dim > 0 && static_cast<size_t>(documents.shape(1)) == dim, "queries and documents must be of one dimension");
    require(dim == 1 || documents.strides(1) == sizeof(float), "the values of a document must be adjacent");
    require(row_count <= gte::max_rows, "too many documents");
    const size_t searched_count = selected ? check_selected(*selected, row_count) : row_count;
    require(k >= 1 && k <= searched_count, "k must be in 1 .. number of documents");
    const gte::Kernels& kernels = kernels_named(variant);
    Floats scores({query_count, k});
    Integers indices({query_count, k});
    const gte::Rows rows{reinterpret_cast<const char*>(documents.data()), documents.strides(0), dim,
                         selected ? selected->data() : nullptr, searched_count};
    const float* query_data = queries.data();
    float* score_data = scores.mutable_data();
    int64_t* index_data = indices.mutable_data();
    int64_t bad_row;
    {
        const py::gil_scoped_release release;
        bad_row = gte::search(kernels, rows, query_data, query_count, k, threads, score_data, index_data);
    }
    return py::make_tuple(scores, indices, bad_row);
}

Floats mean_pool(const Floats& token_vectors, const Integers& mask) {
    require(token_vectors.ndim() == 3 && mask.ndim() == 2, "last_hidden_state must be (n, t, d), attention_mask (n, t)");
    require(token_vectors.shape(0) == mask.shape(0) && token_vectors.shape(1) == mask.shape(1),
            "last_hidden_state and attention_mask must agree in n and t");
    const size_t text_count = static_cast<size_t>(mask.shape(0)), token_count = static_cast<size_t>(mask.shape(1));
    const size_t dim = static_cast<size_t>(token_vectors.shape(2));
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

Floats normalize_rows(const Floats& vectors) {
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

PYBIND11_MODULE(_kernels, module) {
    module.doc() = "Exact search, pooling and unit length in C++.";
    module.attr("MAX_ROWS") = gte::max_rows;
    module.def("variants", &variants);
    module.def("search", &search, py::arg("queries").noconvert(), py::arg("documents").noconvert(), py::arg("k"),
               py::arg("selected").noconvert() = py::none(), py::arg("threads") = 1, py::arg("variant") = "");
    module.def("mean_pool", &mean_pool, py::arg("last_hidden_state"), py::arg("attention_mask"));
    module.def("normalize_rows", &normalize_rows, py::arg("vectors"));
}
