#include "bindings/search.hpp"

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/checks.hpp"
#include "search/checksum.hpp"
#include "search/kernels/kernels.hpp"
#include "search/row_types.hpp"
#include "search/topk.hpp"

namespace py = pybind11;

namespace {

using RowNumbers = py::array_t<uint32_t, py::array::c_style>;
using StoredBytes = py::array_t<uint8_t>;

const gte::Kernels& kernels_named(const std::string& instruction_set) {
    const gte::Kernels* kernels = gte::find_kernels(instruction_set.c_str());
    if (kernels == nullptr) {
        throw py::value_error("no kernels called " + instruction_set + " on this CPU");
    }
    return *kernels;
}

// Only what makes the answer right: the search itself reads no row beyond the stored ones, whatever the numbers become.
bool ascending(const uint32_t* rows, size_t count, size_t row_count) {
    bool good = count == 0 || rows[count - 1] < row_count;
    for (size_t i = 1; i < count; ++i) {
        good &= rows[i] > rows[i - 1];
    }
    return good;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const gte::Kernels& kernels : gte::available_kernels()) {
        names.emplace_back(kernels.name);
    }
    return names;
}

gte::RowType row_type(const std::string& dtype) {
    if (dtype == "float32") return gte::RowType::float32;
    if (dtype == "float16") return gte::RowType::float16;
    if (dtype == "int8") return gte::RowType::int8;
    if (dtype == "binary") return gte::RowType::binary;
    throw py::value_error("no rows of dtype " + dtype);
}

// Stored rows as the kernels read them: documents is (n, stored bytes), its scales (n,) where the type has them.
gte::Rows stored_rows(const StoredBytes& documents, const std::optional<Floats>& scales, size_t dim,
                      gte::RowType type) {
    require(documents.ndim() == 2 && documents.shape(0) <= static_cast<py::ssize_t>(gte::max_rows),
            "too many documents");
    require(static_cast<size_t>(documents.shape(1)) == gte::row_words(type, dim) * 4, "documents of another row size");
    require(documents.shape(1) == 1 || documents.strides(1) == 1, "the bytes of a document must be adjacent");
    require(!scales || is_aligned(scales->data()), "scales must be aligned");
    const bool scaled = type == gte::RowType::int8 || type == gte::RowType::binary;
    require(!scaled || (scales && scales->ndim() == 1 && scales->shape(0) >= documents.shape(0)), "scales are missing");
    gte::Rows rows;
    rows.type = type;
    rows.data = reinterpret_cast<const char*>(documents.data());
    rows.row_stride = documents.strides(0);
    rows.dim = dim;
    rows.scales = scaled ? scales->data() : nullptr;
    rows.count = rows.stored_count = static_cast<size_t>(documents.shape(0));
    return rows;
}

size_t query_dim(const Floats& queries) {
    require(queries.ndim() == 2 && queries.shape(1) >= 1, "queries must be a matrix");
    require(static_cast<size_t>(queries.shape(1)) <= gte::max_dim, "the dimension is too large");
    return static_cast<size_t>(queries.shape(1));
}

// selected: ascending row numbers, or None for all rows. Returns scores, indices and the lowest bad row or -1.
py::tuple search(const Floats& queries, const StoredBytes& documents, size_t k, const std::string& dtype,
                 const std::optional<Floats>& scales, const std::optional<RowNumbers>& selected, size_t threads,
                 const std::string& instruction_set) {
    gte::Rows rows = stored_rows(documents, scales, query_dim(queries), row_type(dtype));
    const size_t query_count = static_cast<size_t>(queries.shape(0));
    if (selected) {
        require(selected->ndim() == 1 && ascending(selected->data(), static_cast<size_t>(selected->size()), rows.count),
                "selected must be ascending and in range");
        require(is_aligned(selected->data()), "selected must be aligned");
        rows.selected = selected->data();
        rows.count = static_cast<size_t>(selected->size());
    }
    require(k >= 1 && k <= rows.count, "k must be in 1 .. number of documents");
    const gte::Kernels& kernels = kernels_named(instruction_set);
    require_countable({query_count, k});
    Floats scores({query_count, k});
    Integers indices({query_count, k});
    const void* query_data = queries.data();
    float* score_data = scores.mutable_data();
    int64_t* index_data = indices.mutable_data();
    int64_t bad_row;
    gte::Stop stop(signal_raised);
    {
        const py::gil_scoped_release release;
        bad_row = gte::search(kernels, rows, query_data, query_count, k, checked_threads(threads), stop, score_data,
                              index_data);
    }
    raise_if_stopped(stop);
    return py::make_tuple(scores, indices, bad_row);
}

py::tuple search_candidates(const Floats& queries, const StoredBytes& documents, size_t k, const std::string& dtype,
                            const RowNumbers& candidates, size_t threads, const std::string& instruction_set) {
    const gte::Rows rows = stored_rows(documents, std::nullopt, query_dim(queries), row_type(dtype));
    const size_t query_count = static_cast<size_t>(queries.shape(0));
    require(candidates.ndim() == 2 && candidates.shape(0) == queries.shape(0) && is_aligned(candidates.data()),
            "candidates must be (q, c), aligned");
    const size_t candidate_count = static_cast<size_t>(candidates.shape(1));
    require(k >= 1 && k <= candidate_count, "k must be in 1 .. number of candidates");
    for (size_t query = 0; query < query_count; ++query) {
        require(ascending(candidates.data() + query * candidate_count, candidate_count, rows.count),
                "candidates must be ascending and in range");
    }
    const gte::Kernels& kernels = kernels_named(instruction_set);
    require_countable({query_count, k});
    Floats scores({query_count, k});
    Integers indices({query_count, k});
    const void* query_data = queries.data();
    const uint32_t* candidate_data = candidates.data();
    float* score_data = scores.mutable_data();
    int64_t* index_data = indices.mutable_data();
    int64_t bad_row;
    gte::Stop stop(signal_raised);
    {
        const py::gil_scoped_release release;
        bad_row = gte::search_candidates(kernels, rows, query_data, query_count, candidate_data, candidate_count, k,
                                         checked_threads(threads), stop, score_data, index_data);
    }
    raise_if_stopped(stop);
    return py::make_tuple(scores, indices, bad_row);
}

// Returns rows (n, stored bytes) uint8 and scales (n,).
py::tuple encode(const Floats& given, const std::string& dtype) {
    const Floats vectors = aligned(given);
    const size_t dim = query_dim(vectors), row_count = static_cast<size_t>(vectors.shape(0));
    const gte::RowType type = row_type(dtype);
    StoredBytes rows({row_count, gte::row_words(type, dim) * 4});
    Floats scales(static_cast<py::ssize_t>(row_count));
    const float* values = vectors.data();
    char* row_data = reinterpret_cast<char*>(rows.mutable_data());
    float* scale_data = scales.mutable_data();
    {
        const py::gil_scoped_release release;
        gte::encode_rows(type, values, row_count, dim, row_data, scale_data);
    }
    return py::make_tuple(rows, scales);
}

py::array_t<uint32_t> block_checksums(const py::buffer& data, size_t block_bytes, size_t threads) {
    const py::buffer_info info = data.request();
    require(info.ndim == 1 && info.itemsize == 1 && (info.size == 0 || info.strides[0] == 1),
            "data must be plain bytes");
    require(block_bytes >= 1, "block_bytes must be at least 1");
    const size_t byte_count = static_cast<size_t>(info.size);
    const size_t block_count = gte::block_count(byte_count, block_bytes);
    require_countable({block_count});
    py::array_t<uint32_t> checksums(static_cast<py::ssize_t>(block_count));
    uint32_t* checksum_data = checksums.mutable_data();
    gte::Stop stop(signal_raised);
    {
        const py::gil_scoped_release release;
        gte::block_checksums(static_cast<const char*>(info.ptr), byte_count, block_bytes, checked_threads(threads),
                             stop, checksum_data);
    }
    raise_if_stopped(stop);
    return checksums;
}

}  // namespace

void bind_search(py::module_& module) {
    module.attr("MAX_ROWS") = gte::max_rows;
    module.attr("MAX_DIM") = gte::max_dim;
    module.def("search_instruction_sets", &instruction_sets);
    module.def("search", &search, py::arg("queries").noconvert(), py::arg("documents").noconvert(), py::arg("k"),
               py::arg("dtype") = "float32", py::arg("scales").noconvert() = py::none(),
               py::arg("selected").noconvert() = py::none(), py::arg("threads") = 1, py::arg("instruction_set") = "");
    module.def("search_candidates", &search_candidates, py::arg("queries").noconvert(),
               py::arg("documents").noconvert(), py::arg("k"), py::arg("dtype"), py::arg("candidates").noconvert(),
               py::arg("threads") = 1, py::arg("instruction_set") = "");
    module.def("encode", &encode, py::arg("vectors").noconvert(), py::arg("dtype"));
    module.def("block_checksums", &block_checksums, py::arg("data"), py::arg("block_bytes"), py::arg("threads") = 1);
}
