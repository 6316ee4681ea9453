// The weights of an encoder from numpy's arrays, which have the model's own widths, with padding where the kernels need
// wider rows.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <variant>
#include <vector>

#include "bindings/checks.hpp"
#include "encoder/layers/weights.hpp"

using Bytes = pybind11::array_t<int8_t, pybind11::array::c_style>;

using Linear = std::tuple<Floats, std::optional<Floats>>;
using Int8Linear = std::tuple<Bytes, Floats, Floats, Floats, bool>;
using AnyLinear = std::variant<Linear, Int8Linear>;
using Norm = std::tuple<Floats, Floats>;
using Embeddings = std::variant<Bytes, Floats>;

template <class Array>
void require_shape(const Array& array, std::initializer_list<size_t> shape, const char* message) {
    require(static_cast<size_t>(array.ndim()) == shape.size(), message);
    pybind11::ssize_t axis = 0;
    for (const size_t size : shape) {
        require(static_cast<size_t>(array.shape(axis++)) == size, message);
    }
}

inline size_t rounded_up(size_t width, size_t unit) { return (width + unit - 1) / unit * unit; }

inline gte::Layout padded_to(size_t unit, size_t width) { return {1, width, rounded_up(width, unit)}; }

// The least width of a head in memory: a multiple of 16, so that all heads together have a multiple of 64.
inline size_t padded_head(size_t head, size_t heads) {
    size_t width = rounded_up(head, gte::lanes);
    while (width * heads % gte::width_unit != 0) {
        width += gte::lanes;
    }
    return width;
}

// Of queries, keys, values or contexts. Rotary positions turn one half of a head into the other: each has its padding.
inline gte::Layout layout_of_heads(const gte::Encoder& encoder, size_t vectors, bool halves) {
    const size_t parts = halves ? 2 : 1, heads = encoder.heads;
    return {vectors * heads * parts, encoder.dim / heads / parts, encoder.attention_width / heads / parts};
}

// (rows, layout.padded_count())
inline std::vector<float> padded_rows(const Floats& values, size_t rows, const gte::Layout& layout) {
    require(static_cast<size_t>(values.size()) == rows * layout.count(), "a vector of weights has another length");
    const Floats read = aligned(values);
    std::vector<float> all(rows * layout.padded_count());
    for (size_t row = 0; row < rows; ++row) {
        std::copy_n(read.data() + row * layout.count(), layout.count(), all.data() + row * layout.padded_count());
    }
    return all;
}

// The table itself, or a copy with padding behind its rows.
template <class Array>
Array padded_table(const Array& table, size_t width) {
    const size_t rows = static_cast<size_t>(table.shape(0)), own_width = static_cast<size_t>(table.shape(1));
    if (own_width == width) {
        return table;
    }
    Array all({rows, width});
    std::fill_n(all.mutable_data(), rows * width, typename Array::value_type{});
    for (size_t row = 0; row < rows; ++row) {
        std::copy_n(table.data() + row * own_width, own_width, all.mutable_data() + row * width);
    }
    return all;
}

inline void require_width(size_t width) {
    require(width > 0 && width <= gte::most_inputs, "widths must be 1 to 65536");
}

inline gte::Linear linear_of(const Linear& arrays, const gte::Layout& inputs, const gte::Layout& outputs) {
    const auto& [weights, bias] = arrays;
    require_shape(weights, {outputs.count(), inputs.count()}, "a matrix of weights has another shape");
    require(!bias || static_cast<size_t>(bias->size()) == outputs.count(), "a bias does not belong to its weights");
    const Floats read_weights = aligned(weights), read_bias = bias ? aligned(*bias) : Floats();
    return gte::make_linear(read_weights.data(), bias ? read_bias.data() : nullptr, inputs, outputs);
}

inline gte::Linear linear_of(const Int8Linear& arrays, const gte::Layout& inputs, const gte::Layout& outputs) {
    const auto& [codes, scales, bias, smoothing, shifted] = arrays;
    require_shape(codes, {inputs.count(), outputs.count()}, "a matrix of weights has another shape");
    require(static_cast<size_t>(scales.size()) == outputs.count() &&
                static_cast<size_t>(bias.size()) == outputs.count() &&
                static_cast<size_t>(smoothing.size()) == inputs.count(),
            "scales, bias or smoothing factors do not belong to their weights");
    return gte::make_int8_linear(codes.data(), aligned(scales).data(), aligned(bias).data(), aligned(smoothing).data(),
                                 inputs, outputs, shifted);
}

inline gte::Linear linear_of(const AnyLinear& arrays, const gte::Layout& inputs, const gte::Layout& outputs) {
    return std::visit([&](const auto& given) { return linear_of(given, inputs, outputs); }, arrays);
}

// The number of inputs of a layer that nothing else tells.
inline size_t input_count_of(const AnyLinear& arrays) {
    const auto count = [](const pybind11::array& matrix, pybind11::ssize_t axis) {
        require(matrix.ndim() == 2, "a matrix of weights has another shape");
        return static_cast<size_t>(matrix.shape(axis));
    };
    const Linear* linear = std::get_if<Linear>(&arrays);
    return linear != nullptr ? count(std::get<0>(*linear), 1) : count(std::get<0>(std::get<Int8Linear>(arrays)), 0);
}

inline gte::Norm norm_of(const std::optional<Norm>& arrays, const gte::Layout& layout) {
    if (!arrays) {
        return {};
    }
    return {padded_rows(std::get<0>(*arrays), 1, layout), padded_rows(std::get<1>(*arrays), 1, layout), layout.width};
}
