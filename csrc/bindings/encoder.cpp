#include "bindings/encoder.hpp"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/checks.hpp"
#include "encoder/bert.hpp"
#include "encoder/pool.hpp"

namespace py = pybind11;

namespace {

using Bytes = py::array_t<int8_t, py::array::c_style>;
using TokenIds = py::array_t<int32_t, py::array::c_style>;

std::vector<float> vector_of(const Floats& values, size_t count) {
    require(static_cast<size_t>(values.size()) == count, "a vector of weights has another length");
    const Floats read = aligned(values);
    return {read.data(), read.data() + count};
}

gte::Linear linear_of(const Bytes& weights, const Floats& scales, const Floats& bias, const Floats& smoothing,
                      bool shifted, size_t inputs, size_t outputs) {
    require(weights.ndim() == 2 && static_cast<size_t>(weights.shape(0)) == inputs &&
                static_cast<size_t>(weights.shape(1)) == outputs,
            "a matrix of weights has another shape");
    require(static_cast<size_t>(scales.size()) == outputs && static_cast<size_t>(bias.size()) == outputs &&
                static_cast<size_t>(smoothing.size()) == inputs,
            "scales, bias or smoothing factors do not belong to their weights");
    return gte::make_linear(weights.data(), aligned(scales).data(), aligned(bias).data(), aligned(smoothing).data(),
                            inputs, outputs, shifted);
}

using LinearArrays = std::tuple<Bytes, Floats, Floats, Floats, bool>;

gte::Linear linear_of(const LinearArrays& arrays, size_t inputs, size_t outputs) {
    const auto& [weights, scales, bias, smoothing, shifted] = arrays;
    return linear_of(weights, scales, bias, smoothing, shifted, inputs, outputs);
}

class Bert {
  public:
    Bert(Bytes token_embeddings, const Floats& token_scales, const Floats& positions, const Floats& norm_weight,
         const Floats& norm_bias, size_t heads, float epsilon, const std::string& pooling)
        : token_embeddings_(std::move(token_embeddings)) {
        require(token_embeddings_.ndim() == 2 && positions.ndim() == 2, "tables must be matrices");
        encoder_.vocabulary = static_cast<size_t>(token_embeddings_.shape(0));
        encoder_.hidden = static_cast<size_t>(token_embeddings_.shape(1));
        encoder_.position_count = static_cast<size_t>(positions.shape(0));
        encoder_.heads = heads;
        encoder_.epsilon = epsilon;
        const size_t unit = encoder_.position_count == 0 ? gte::lanes : gte::width_unit;
        require(encoder_.hidden > 0 && encoder_.hidden % unit == 0 && heads > 0 &&
                    heads <= encoder_.hidden / gte::lanes && encoder_.hidden % (heads * gte::lanes) == 0,
                "widths must be multiples of 64, those of heads and tables of 16");
        require(encoder_.hidden <= gte::most_inputs, "widths above 65536 overflow the sums");
        require(static_cast<size_t>(positions.shape(1)) == encoder_.hidden, "positions must be (positions, hidden)");
        encoder_.positions = vector_of(positions, encoder_.position_count * encoder_.hidden);
        require(pooling == "mean" || pooling == "cls" || pooling == "lasttoken", "unknown pooling");
        encoder_.pooling = pooling == "mean"  ? gte::Pooling::mean
                           : pooling == "cls" ? gte::Pooling::cls
                                              : gte::Pooling::last_token;
        encoder_.token_embeddings = token_embeddings_.data();
        encoder_.token_scales = vector_of(token_scales, encoder_.vocabulary);
        const size_t norm_width = encoder_.is_table() ? 0 : encoder_.hidden;
        encoder_.embedding_norm = {vector_of(norm_weight, norm_width), vector_of(norm_bias, norm_width)};
    }

    void add_layer(const LinearArrays& query_key_value, const LinearArrays& attention_output,
                   const LinearArrays& intermediate, const LinearArrays& output, const std::vector<Floats>& norms) {
        require(std::get<0>(output).ndim() == 2, "a matrix of weights has another shape");
        const size_t hidden = encoder_.hidden, wide = static_cast<size_t>(std::get<0>(output).shape(0));
        require(!encoding_, "layers are added before the first text is encoded");
        require(wide > 0 && wide % gte::width_unit == 0 && wide <= gte::most_inputs,
                "widths must be multiples of 64, at most 65536");
        require(encoder_.layers.empty() || encoder_.layers[0].intermediate.output_count == wide,
                "layers must be equally wide");
        require(norms.size() == 4 && !encoder_.is_table(), "a layer has two norms, a table no layers");
        gte::Layer layer;
        layer.query_key_value = linear_of(query_key_value, hidden, 3 * hidden);
        layer.attention_output = linear_of(attention_output, hidden, hidden);
        layer.intermediate = linear_of(intermediate, hidden, wide);
        layer.output = linear_of(output, wide, hidden);
        layer.attention_norm = {vector_of(norms[0], hidden), vector_of(norms[1], hidden)};
        layer.output_norm = {vector_of(norms[2], hidden), vector_of(norms[3], hidden)};
        encoder_.layers.push_back(std::move(layer));
    }

    // token_ids of all texts one after another, text i at [starts[i], starts[i + 1]); out (texts, hidden) is written,
    // or for token_states out (tokens, hidden).
    void encode(const TokenIds& token_ids, const Integers& starts, Floats& out, size_t batch_tokens, size_t threads,
                const std::string& instruction_set, bool token_states) {
        require(token_ids.ndim() == 1 && starts.ndim() == 1 && starts.size() >= 1,
                "token_ids and starts must be vectors");
        // Copies, which no other thread changes after the checks.
        const TokenIds aligned_ids = aligned(token_ids);
        const Integers aligned_starts = aligned(starts);
        const std::vector<int32_t> ids(aligned_ids.data(), aligned_ids.data() + aligned_ids.size());
        const std::vector<int64_t> bounds(aligned_starts.data(), aligned_starts.data() + aligned_starts.size());
        const size_t text_count = bounds.size() - 1;
        check_texts(ids, bounds);
        require(!(token_states && encoder_.is_table()), "a table has no states of tokens");
        const size_t row_count = token_states ? ids.size() : text_count;
        require(out.ndim() == 2 && static_cast<size_t>(out.shape(0)) == row_count &&
                    static_cast<size_t>(out.shape(1)) == encoder_.hidden,
                "out must be (texts or tokens, hidden)");
        const gte::EncoderKernels& kernels = kernels_named(instruction_set);
        float* out_data = out.mutable_data();
        require(is_aligned(out_data), "out must be aligned");
        if (text_count == 0) {
            return;
        }
        encoding_ = true;
        gte::Stop stop(signal_raised);
        {
            const py::gil_scoped_release release;
            gte::encode(encoder_, kernels, ids.data(), bounds.data(), text_count, batch_tokens,
                        checked_threads(threads), token_states ? gte::Output::token_states : gte::Output::text_vectors,
                        stop, out_data);
        }
        raise_if_stopped(stop);
    }

  private:
    void check_texts(const std::vector<int32_t>& ids, const std::vector<int64_t>& bounds) const {
        const int64_t token_count = static_cast<int64_t>(ids.size());
        const int64_t most_tokens = encoder_.is_table() ? token_count : static_cast<int64_t>(encoder_.position_count);
        require(bounds.front() == 0 && bounds.back() == token_count, "starts must cover token_ids");
        for (size_t text = 0; text + 1 < bounds.size(); ++text) {
            // In this order no difference overflows.
            require(bounds[text + 1] > bounds[text] && bounds[text + 1] <= token_count &&
                        bounds[text + 1] - bounds[text] <= most_tokens,
                    "a text has too few or many tokens");
        }
        for (const int32_t id : ids) {
            require(id >= 0 && static_cast<size_t>(id) < encoder_.vocabulary, "a token id is not in the table");
        }
    }

    static const gte::EncoderKernels& kernels_named(const std::string& name) {
        const std::vector<gte::EncoderKernels>& available = gte::available_encoders();
        if (name.empty()) {
            return available.back();
        }
        for (const gte::EncoderKernels& kernels : available) {
            if (name == kernels.name) {
                return kernels;
            }
        }
        throw py::value_error("no encoder called " + name + " on this CPU");
    }

    Bytes token_embeddings_;  // encoder_ borrows its data
    gte::Encoder encoder_;
    bool encoding_ = false;  // from the first call on the layers stay, because other threads may read them
};

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const gte::EncoderKernels& kernels : gte::available_encoders()) {
        names.emplace_back(kernels.name);
    }
    return names;
}

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

void bind_encoder(py::module_& module) {
    module.attr("GELU_SHIFT") = gte::gelu_shift;
    module.def("mean_pool", &mean_pool, py::arg("last_hidden_state"), py::arg("attention_mask"));
    module.def("normalize_rows", &normalize_rows, py::arg("vectors"));
    module.def("encoder_instruction_sets", &instruction_sets);
    py::class_<Bert>(module, "Bert")
        .def(py::init<Bytes, const Floats&, const Floats&, const Floats&, const Floats&, size_t, float,
                      const std::string&>(),
             py::arg("token_embeddings"), py::arg("token_scales"), py::arg("positions"), py::arg("norm_weight"),
             py::arg("norm_bias"), py::arg("heads"), py::arg("epsilon"), py::arg("pooling"))
        .def("add_layer", &Bert::add_layer, py::arg("query_key_value"), py::arg("attention_output"),
             py::arg("intermediate"), py::arg("output"), py::arg("norms"))
        .def("encode", &Bert::encode, py::arg("token_ids").noconvert(), py::arg("starts").noconvert(),
             py::arg("out").noconvert(), py::arg("batch_tokens"), py::arg("threads"), py::arg("instruction_set") = "",
             py::arg("token_states") = false);
}
