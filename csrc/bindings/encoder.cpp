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
#include "bindings/encoder_weights.hpp"
#include "encoder/encoder.hpp"

namespace py = pybind11;

namespace {

using TokenIds = py::array_t<int32_t, py::array::c_style>;

// Beyond any model's. The table of relative biases grows with it.
constexpr size_t most_positions = 1 << 24;
constexpr size_t maxima_batch_tokens = 512;

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
            const std::optional<Norm>& final_norm, std::optional<int64_t> padding_token,
            const std::optional<Floats>& padding_row) {
        // Without what comes before layers it is a table, whose sums need no wider rows.
        const bool plain = !projection && !positions && !embedding_norm && !final_norm;
        const size_t width = embedding_width_of(token_embeddings), unit = plain ? gte::lanes : gte::width_unit;
        require_width(hidden);
        require_width(width);
        require(heads > 0 && hidden % heads == 0, "heads must divide hidden");
        require(projection || width == hidden, "embeddings of another width than hidden need a projection");
        const gte::Layout embeddings = padded_to(unit, width), states = padded_to(unit, hidden);
        encoder_.dim = hidden;
        encoder_.hidden = states.padded_count();
        encoder_.embedding_width = embeddings.padded_count();
        encoder_.heads = heads;
        encoder_.attention_width = heads * padded_head(hidden / heads, heads);
        require(encoder_.attention_width <= gte::most_inputs, "heads this narrow need more than 65536 values together");
        set_token_embeddings(std::move(token_embeddings), token_scales);
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
        encoder_.embedding_norm = norm_of(embedding_norm, embeddings);
        encoder_.final_norm = norm_of(final_norm, states);
        if (positions) {
            require_shape(*positions, {most_tokens, width}, "positions must be (most_tokens, embedding width)");
            encoder_.positions = padded_rows(*positions, most_tokens, embeddings);
        }
        if (projection) {
            encoder_.projection = linear_of(*projection, embeddings, states);
        }
        if (encoder_.positions.empty()) {
            encoder_.token_row = token_type_row ? padded_rows(*token_type_row, 1, embeddings)
                                                : std::vector<float>(embeddings.padded_count());
        } else {
            require(!token_type_row, "the row of token type 0 is part of the positions");
        }
        if (padding_token || padding_row) {
            require(padding_token && *padding_token >= 0 && padding_row && !encoder_.positions.empty(),
                    "a padding token, its row and positions belong together");
            encoder_.padding_token = *padding_token;
            encoder_.padding_row = padded_rows(*padding_row, 1, embeddings);
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
        const gte::Layout states = padded_to(gte::width_unit, encoder_.dim);
        require(encoder_.hidden == states.padded_count(), "a table whose width is no multiple of 64 has no layers");
        const size_t wide = input_count_of(feed_forward_out);
        require_width(wide);
        require(encoder_.most_tokens > 0, "layers need most_tokens");
        require(attention_norm || encoder_.norm_first, "only a norm that comes first may be left out");
        gte::Layer layer;
        require(!rotary || encoder_.dim / encoder_.heads % 2 == 0, "rotary positions need heads of an even width");
        const gte::Layout between = padded_to(gte::width_unit, wide);
        layer.query_key_value = linear_of(query_key_value, states, layout_of_heads(encoder_, 3, rotary.has_value()));
        layer.attention_output = linear_of(attention_output, layout_of_heads(encoder_, 1, rotary.has_value()), states);
        layer.feed_forward_in =
            linear_of(feed_forward_in, states, {encoder_.gated ? size_t{2} : 1, wide, between.padded_count()});
        layer.feed_forward_out = linear_of(feed_forward_out, between, states);
        layer.attention_norm = norm_of(attention_norm, states);
        layer.feed_forward_norm = norm_of(feed_forward_norm, states);
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
    // or for token_states out (tokens, hidden), of the model's own width.
    void encode(const TokenIds& token_ids, const Integers& starts, Floats& out, size_t batch_tokens, size_t threads,
                const std::string& instruction_set, bool token_states) {
        const Texts texts = checked_texts(token_ids, starts);
        require(!(token_states && encoder_.is_table()), "a table has no states of tokens");
        require_shape(out, {token_states ? texts.ids.size() : texts.count(), encoder_.dim},
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
                Floats of_linear(linear->inputs.count());
                for (size_t i = 0; i < linear->inputs.count(); ++i) {
                    of_linear.mutable_data()[i] = maxima[linear->first_channel + linear->inputs.place(i)];
                }
                of_layer.push_back(std::move(of_linear));
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

    static size_t embedding_width_of(const Embeddings& embeddings) {
        const auto width = [](const py::array& table) {
            require(table.ndim() == 2, "tables must be matrices");
            return static_cast<size_t>(table.shape(1));
        };
        return std::visit([&](const auto& table) { return width(table); }, embeddings);
    }

    void set_token_embeddings(Embeddings embeddings, const std::optional<Floats>& scales) {
        if (std::holds_alternative<Bytes>(embeddings)) {
            const Bytes codes = padded_table(std::get<Bytes>(embeddings), encoder_.embedding_width);
            require(scales.has_value(), "scales belong to int8");
            encoder_.token_codes = codes.data();
            encoder_.token_scales = padded_rows(*scales, 1, static_cast<size_t>(codes.shape(0)));
            token_embeddings_ = codes;
        } else {
            const Floats floats = padded_table(aligned(std::get<Floats>(embeddings)), encoder_.embedding_width);
            require(!scales, "scales belong to int8");
            encoder_.token_floats = floats.data();
            token_embeddings_ = floats;
        }
        encoder_.vocabulary = static_cast<size_t>(token_embeddings_.shape(0));
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
        const size_t head = encoder_.attention_width / encoder_.heads;
        const std::vector<float> frequencies = padded_rows(given, 1, {1, encoder_.dim / encoder_.heads / 2, head / 2});
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
                      const std::optional<Norm>&, std::optional<int64_t>, const std::optional<Floats>&>(),
             py::arg("token_embeddings"), py::arg("token_scales"), py::arg("hidden"), py::arg("heads"),
             py::arg("most_tokens"), py::arg("epsilon"), py::arg("pooling"), py::arg("norm_first"),
             py::arg("activation"), py::arg("gated"), py::arg("positions") = py::none(),
             py::arg("token_type_row") = py::none(), py::arg("embedding_norm") = py::none(),
             py::arg("projection") = py::none(), py::arg("relative_bias") = py::none(),
             py::arg("final_norm") = py::none(), py::arg("padding_token") = py::none(),
             py::arg("padding_row") = py::none())
        .def("add_layer", &Encoder::add_layer, py::arg("query_key_value"), py::arg("attention_output"),
             py::arg("feed_forward_in"), py::arg("feed_forward_out"), py::arg("attention_norm"),
             py::arg("feed_forward_norm"), py::arg("window") = 0, py::arg("rotary") = py::none())
        .def("encode", &Encoder::encode, py::arg("token_ids").noconvert(), py::arg("starts").noconvert(),
             py::arg("out").noconvert(), py::arg("batch_tokens"), py::arg("threads"), py::arg("instruction_set") = "",
             py::arg("token_states") = false)
        .def("channel_maxima", &Encoder::channel_maxima, py::arg("token_ids").noconvert(),
             py::arg("starts").noconvert(), py::arg("threads"), py::arg("instruction_set") = "");
}
