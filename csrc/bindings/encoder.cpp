#include "bindings/encoder.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/checks.hpp"
#include "encoder/encoder.hpp"

namespace py = pybind11;

namespace {

using Bytes = py::array_t<int8_t, py::array::c_style>;
using TokenIds = py::array_t<int32_t, py::array::c_style>;

using Linear = std::tuple<Floats, std::optional<Floats>>;
using Int8Linear = std::tuple<Bytes, Floats, Floats, Floats, bool>;
using AnyLinear = std::variant<Linear, Int8Linear>;
using Norm = std::tuple<Floats, Floats>;
using Embeddings = std::variant<Bytes, Floats>;

// Beyond any model's. The tables of rotary angles and relative biases grow with it.
constexpr size_t most_positions = 1 << 24;
constexpr size_t maxima_batch_tokens = 512;

template <class Array>
void require_shape(const Array& array, std::initializer_list<size_t> shape, const char* message) {
    require(static_cast<size_t>(array.ndim()) == shape.size(), message);
    py::ssize_t axis = 0;
    for (const size_t size : shape) {
        require(static_cast<size_t>(array.shape(axis++)) == size, message);
    }
}

std::vector<float> vector_of(const Floats& values, size_t count) {
    require(static_cast<size_t>(values.size()) == count, "a vector of weights has another length");
    const Floats read = aligned(values);
    return {read.data(), read.data() + count};
}

void require_width(size_t width) {
    require(width > 0 && width % gte::width_unit == 0 && width <= gte::most_inputs,
            "widths must be multiples of 64, at most 65536");
}

gte::Linear linear_of(const Linear& arrays, size_t inputs, size_t outputs) {
    const auto& [weights, bias] = arrays;
    require_shape(weights, {outputs, inputs}, "a matrix of weights has another shape");
    require(!bias || static_cast<size_t>(bias->size()) == outputs, "a bias does not belong to its weights");
    const Floats read_weights = aligned(weights), read_bias = bias ? aligned(*bias) : Floats();
    return gte::make_linear(read_weights.data(), bias ? read_bias.data() : nullptr, inputs, outputs);
}

gte::Linear linear_of(const Int8Linear& arrays, size_t inputs, size_t outputs) {
    const auto& [codes, scales, bias, smoothing, shifted] = arrays;
    require_shape(codes, {inputs, outputs}, "a matrix of weights has another shape");
    require(static_cast<size_t>(scales.size()) == outputs && static_cast<size_t>(bias.size()) == outputs &&
                static_cast<size_t>(smoothing.size()) == inputs,
            "scales, bias or smoothing factors do not belong to their weights");
    return gte::make_int8_linear(codes.data(), aligned(scales).data(), aligned(bias).data(), aligned(smoothing).data(),
                                 inputs, outputs, shifted);
}

gte::Linear linear_of(const AnyLinear& arrays, size_t inputs, size_t outputs) {
    return std::visit([=](const auto& given) { return linear_of(given, inputs, outputs); }, arrays);
}

// The number of inputs of a layer that nothing else tells.
size_t input_count_of(const AnyLinear& arrays) {
    const auto count = [](const py::array& matrix, py::ssize_t axis) {
        require(matrix.ndim() == 2, "a matrix of weights has another shape");
        return static_cast<size_t>(matrix.shape(axis));
    };
    const Linear* linear = std::get_if<Linear>(&arrays);
    return linear != nullptr ? count(std::get<0>(*linear), 1) : count(std::get<0>(std::get<Int8Linear>(arrays)), 0);
}

gte::Norm norm_of(const std::optional<Norm>& arrays, size_t width) {
    if (!arrays) {
        return {};
    }
    return {vector_of(std::get<0>(*arrays), width), vector_of(std::get<1>(*arrays), width)};
}

template <class Value>
Value named(const std::string& name, const char* message, std::initializer_list<std::pair<const char*, Value>> values) {
    for (const auto& [known, value] : values) {
        if (name == known) {
            return value;
        }
    }
    throw py::value_error(message);
}

class Encoder {
  public:
    Encoder(Embeddings token_embeddings, const std::optional<Floats>& token_scales, size_t hidden, size_t heads,
            size_t most_tokens, float epsilon, const std::string& pooling, bool norm_first,
            const std::string& activation, bool gated, const std::optional<Floats>& positions,
            const std::optional<Floats>& token_type_row, const std::optional<Norm>& embedding_norm,
            const std::optional<Linear>& projection, const std::optional<Floats>& relative_bias,
            const std::optional<Norm>& final_norm) {
        set_token_embeddings(std::move(token_embeddings), token_scales);
        const size_t width = encoder_.embedding_width;
        encoder_.hidden = hidden;
        encoder_.heads = heads;
        encoder_.most_tokens = most_tokens;
        encoder_.epsilon = epsilon;
        encoder_.norm_first = norm_first;
        encoder_.gated = gated;
        encoder_.pooling = named<gte::Pooling>(
            pooling, "unknown pooling",
            {{"mean", gte::Pooling::mean}, {"cls", gte::Pooling::cls}, {"lasttoken", gte::Pooling::last_token}});
        encoder_.activation = named<gte::Activation>(activation, "unknown activation",
                                                     {{"gelu", gte::Activation::gelu},
                                                      {"gelu_tanh", gte::Activation::gelu_tanh},
                                                      {"relu", gte::Activation::relu},
                                                      {"silu", gte::Activation::silu}});
        require(most_tokens <= most_positions, "most_tokens is beyond what any model has");
        encoder_.embedding_norm = norm_of(embedding_norm, width);
        encoder_.final_norm = norm_of(final_norm, hidden);
        if (positions) {
            require_shape(*positions, {most_tokens, width}, "positions must be (most_tokens, embedding width)");
            encoder_.positions = vector_of(*positions, most_tokens * width);
        }
        const size_t unit = encoder_.is_table() && !projection ? gte::lanes : gte::width_unit;
        require(hidden > 0 && hidden % unit == 0 && width > 0 && width % unit == 0 && heads > 0 &&
                    heads <= hidden / gte::lanes && hidden % (heads * gte::lanes) == 0,
                "widths must be multiples of 64, those of heads and tables of 16");
        require(hidden <= gte::most_inputs && width <= gte::most_inputs, "widths above 65536 overflow the sums");
        require(projection || width == hidden, "embeddings of another width than hidden need a projection");
        if (projection) {
            encoder_.projection = linear_of(*projection, width, hidden);
        }
        if (encoder_.positions.empty()) {
            encoder_.token_row = token_type_row ? vector_of(*token_type_row, width) : std::vector<float>(width);
        } else {
            require(!token_type_row, "the row of token type 0 is part of the positions");
        }
        if (relative_bias) {
            require(most_tokens > 0, "relative biases need most_tokens");
            set_relative_bias(*relative_bias);
        }
    }

    void add_layer(const AnyLinear& query_key_value, const AnyLinear& attention_output,
                   const AnyLinear& feed_forward_in, const AnyLinear& feed_forward_out,
                   const std::optional<Norm>& attention_norm, const Norm& feed_forward_norm, size_t window,
                   const std::optional<Floats>& rotary) {
        require(!encoding_, "layers are added before the first text is encoded");
        const size_t hidden = encoder_.hidden, wide = input_count_of(feed_forward_out);
        require_width(hidden);
        require_width(encoder_.embedding_width);
        require_width(wide);
        require(encoder_.most_tokens > 0, "layers need most_tokens");
        require(attention_norm || encoder_.norm_first, "only a norm that comes first may be left out");
        gte::Layer layer;
        layer.query_key_value = linear_of(query_key_value, hidden, 3 * hidden);
        layer.attention_output = linear_of(attention_output, hidden, hidden);
        layer.feed_forward_in = linear_of(feed_forward_in, hidden, encoder_.gated ? 2 * wide : wide);
        layer.feed_forward_out = linear_of(feed_forward_out, wide, hidden);
        layer.attention_norm = norm_of(attention_norm, hidden);
        layer.feed_forward_norm = norm_of(feed_forward_norm, hidden);
        layer.window = std::min(window, encoder_.most_tokens);
        layer.rotary = rotary ? rotary_of(*rotary) : nullptr;
        for (gte::Linear* linear :
             {&layer.query_key_value, &layer.attention_output, &layer.feed_forward_in, &layer.feed_forward_out}) {
            linear->first_channel = encoder_.channel_count;
            encoder_.channel_count += linear->input_count;
        }
        encoder_.layers.push_back(std::move(layer));
    }

    // token_ids of all texts one after another, text i at [starts[i], starts[i + 1]); out (texts, hidden) is written,
    // or for token_states out (tokens, hidden).
    void encode(const TokenIds& token_ids, const Integers& starts, Floats& out, size_t batch_tokens, size_t threads,
                const std::string& instruction_set, bool token_states) {
        const Texts texts = checked_texts(token_ids, starts);
        require(!(token_states && encoder_.is_table()), "a table has no states of tokens");
        require_shape(out, {token_states ? texts.ids.size() : texts.count(), encoder_.hidden},
                      "out must be (texts or tokens, hidden)");
        float* out_data = out.mutable_data();
        require(is_aligned(out_data), "out must be aligned");
        run(texts, batch_tokens, threads, instruction_set,
            token_states ? gte::Output::token_states : gte::Output::text_vectors, out_data);
    }

    // For each layer the maxima of the inputs of its four linear layers.
    std::vector<std::vector<Floats>> channel_maxima(const TokenIds& token_ids, const Integers& starts, size_t threads,
                                                    const std::string& instruction_set) {
        const Texts texts = checked_texts(token_ids, starts);
        for (const gte::Layer& layer : encoder_.layers) {
            for (const gte::Linear* linear : linears_of(layer)) {
                require(!linear->is_int8(), "only layers in fp32 have channel maxima");
            }
        }
        std::vector<float> maxima(encoder_.channel_count);
        run(texts, maxima_batch_tokens, threads, instruction_set, gte::Output::channel_maxima, maxima.data());
        std::vector<std::vector<Floats>> found;
        for (const gte::Layer& layer : encoder_.layers) {
            std::vector<Floats> of_layer;
            for (const gte::Linear* linear : linears_of(layer)) {
                of_layer.emplace_back(linear->input_count, maxima.data() + linear->first_channel);
            }
            found.push_back(std::move(of_layer));
        }
        return found;
    }

  private:
    // Copies, which no other thread changes after the checks.
    struct Texts {
        std::vector<int32_t> ids;
        std::vector<int64_t> starts;

        size_t count() const { return starts.size() - 1; }
    };

    static std::array<const gte::Linear*, 4> linears_of(const gte::Layer& layer) {
        return {&layer.query_key_value, &layer.attention_output, &layer.feed_forward_in, &layer.feed_forward_out};
    }

    void set_token_embeddings(Embeddings embeddings, const std::optional<Floats>& scales) {
        if (std::holds_alternative<Bytes>(embeddings)) {
            const Bytes codes = std::get<Bytes>(embeddings);
            require(codes.ndim() == 2 && scales, "tables must be matrices, and scales belong to int8");
            encoder_.token_codes = codes.data();
            encoder_.token_scales = vector_of(*scales, static_cast<size_t>(codes.shape(0)));
            token_embeddings_ = codes;
        } else {
            const Floats floats = aligned(std::get<Floats>(embeddings));
            require(floats.ndim() == 2 && !scales, "tables must be matrices, and scales belong to int8");
            encoder_.token_floats = floats.data();
            token_embeddings_ = floats;
        }
        encoder_.vocabulary = static_cast<size_t>(token_embeddings_.shape(0));
        encoder_.embedding_width = static_cast<size_t>(token_embeddings_.shape(1));
    }

    void set_relative_bias(const Floats& biases) {
        const size_t distances = 2 * encoder_.most_tokens - 1;
        require_shape(biases, {encoder_.heads, distances}, "relative_bias must be (heads, 2 most_tokens - 1)");
        const Floats read = aligned(biases);
        encoder_.relative_bias.resize(encoder_.heads * encoder_.bias_stride());
        for (size_t head = 0; head < encoder_.heads; ++head) {
            std::copy_n(read.data() + head * distances, distances,
                        encoder_.relative_bias.data() + head * encoder_.bias_stride());
        }
    }

    // Layers with equal frequencies share their angles.
    std::shared_ptr<const gte::Rotary> rotary_of(const Floats& given) const {
        const size_t head = encoder_.hidden / encoder_.heads;
        const std::vector<float> frequencies = vector_of(given, head / 2);
        for (const gte::Layer& layer : encoder_.layers) {
            if (layer.rotary != nullptr && layer.rotary->frequencies == frequencies) {
                return layer.rotary;
            }
        }
        for (const float frequency : frequencies) {
            const float largest_angle = std::fabs(frequency) * static_cast<float>(encoder_.most_tokens);
            require(largest_angle <= 1e9f, "rotary angles must be finite, at most 1e9");
        }
        return std::make_shared<const gte::Rotary>(gte::make_rotary(frequencies.data(), head, encoder_.most_tokens));
    }

    Texts checked_texts(const TokenIds& token_ids, const Integers& starts) const {
        require(token_ids.ndim() == 1 && starts.ndim() == 1 && starts.size() >= 1,
                "token_ids and starts must be vectors");
        const TokenIds aligned_ids = aligned(token_ids);
        const Integers aligned_starts = aligned(starts);
        Texts texts{{aligned_ids.data(), aligned_ids.data() + aligned_ids.size()},
                    {aligned_starts.data(), aligned_starts.data() + aligned_starts.size()}};
        const std::vector<int64_t>& bounds = texts.starts;
        const int64_t token_count = static_cast<int64_t>(texts.ids.size());
        const int64_t most_tokens = encoder_.is_table() ? token_count : static_cast<int64_t>(encoder_.most_tokens);
        require(bounds.front() == 0 && bounds.back() == token_count, "starts must cover token_ids");
        for (size_t text = 0; text < texts.count(); ++text) {
            // In this order no difference overflows.
            require(bounds[text + 1] > bounds[text] && bounds[text + 1] <= token_count &&
                        bounds[text + 1] - bounds[text] <= most_tokens,
                    "a text has too few or many tokens");
        }
        for (const int32_t id : texts.ids) {
            require(id >= 0 && static_cast<size_t>(id) < encoder_.vocabulary, "a token id is not in the table");
        }
        return texts;
    }

    void run(const Texts& texts, size_t batch_tokens, size_t threads, const std::string& instruction_set,
             gte::Output output, float* out) {
        const gte::EncoderKernels& kernels = kernels_named(instruction_set);
        if (texts.count() == 0) {
            return;
        }
        encoding_ = true;
        gte::Stop stop(signal_raised);
        {
            const py::gil_scoped_release release;
            gte::encode(encoder_, kernels, texts.ids.data(), texts.starts.data(), texts.count(), batch_tokens,
                        checked_threads(threads), output, stop, out);
        }
        raise_if_stopped(stop);
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

    py::array token_embeddings_;  // encoder_ borrows its data
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

}  // namespace

void bind_encoder(py::module_& module) {
    module.attr("GELU_SHIFT") = gte::gelu_shift;
    module.def("encoder_instruction_sets", &instruction_sets);
    py::class_<Encoder>(module, "Encoder")
        .def(py::init<Embeddings, const std::optional<Floats>&, size_t, size_t, size_t, float, const std::string&, bool,
                      const std::string&, bool, const std::optional<Floats>&, const std::optional<Floats>&,
                      const std::optional<Norm>&, const std::optional<Linear>&, const std::optional<Floats>&,
                      const std::optional<Norm>&>(),
             py::arg("token_embeddings"), py::arg("token_scales"), py::arg("hidden"), py::arg("heads"),
             py::arg("most_tokens"), py::arg("epsilon"), py::arg("pooling"), py::arg("norm_first"),
             py::arg("activation"), py::arg("gated"), py::arg("positions") = py::none(),
             py::arg("token_type_row") = py::none(), py::arg("embedding_norm") = py::none(),
             py::arg("projection") = py::none(), py::arg("relative_bias") = py::none(),
             py::arg("final_norm") = py::none())
        .def("add_layer", &Encoder::add_layer, py::arg("query_key_value"), py::arg("attention_output"),
             py::arg("feed_forward_in"), py::arg("feed_forward_out"), py::arg("attention_norm"),
             py::arg("feed_forward_norm"), py::arg("window") = 0, py::arg("rotary") = py::none())
        .def("encode", &Encoder::encode, py::arg("token_ids").noconvert(), py::arg("starts").noconvert(),
             py::arg("out").noconvert(), py::arg("batch_tokens"), py::arg("threads"), py::arg("instruction_set") = "",
             py::arg("token_states") = false)
        .def("channel_maxima", &Encoder::channel_maxima, py::arg("token_ids").noconvert(),
             py::arg("starts").noconvert(), py::arg("threads"), py::arg("instruction_set") = "");
}
