"""The architectures of the family: what config.json and the parameters of each say about its EncoderWeights.

Names of parameters and default values are those of transformers, where each class is the reference of its description.
A key that changes the arithmetic has a known value, or the model is refused: nothing is guessed. CONTRIBUTING.md says
how to add an architecture.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.text_settings import first_position
from gte_sdk.runtime.native.configuration import (
    Config,
    activation,
    epsilon,
    number,
    refuse_other_arithmetic,
    rotary_frequencies,
    settings,
    switch,
    whole,
    widths,
)
from gte_sdk.runtime.native.description import EncoderWeights, Layer, Linear, NotCoveredError
from gte_sdk.runtime.native.parameters import (
    Parameters,
    find_prefix,
    give_back_pages,
    has,
    join,
    read_array,
    read_finite,
    read_linear,
    read_norm,
)

Tensors = Mapping[str, NDArray[np.generic]]


class LayerNames(NamedTuple):
    """What the parameters of a layer are called, behind its own name."""

    layer: str
    """With {} where its number belongs."""
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    feed_forward_in: str
    feed_forward_out: str
    feed_forward_norm: str


_BERT = LayerNames(
    "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT = LayerNames(
    "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip
_MPNET = _BERT._replace(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
_PLAIN = {"position_embedding_type": (None, "absolute"), "auto_map": (None,)}
# The buckets of relative positions in MPNet's code, which does not read them from the configuration.
_BUCKETS, _FARTHEST = 32, 128


def read_encoder(config: Config, tensors: Tensors, pooling: str) -> EncoderWeights:
    """The description of a checkpoint.

    config: the content of config.json. tensors: the parameters by transformers' names. Raises NotCoveredError.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise NotCoveredError(f"config.json has model_type={kind!r:.40}; one of {', '.join(ARCHITECTURES)} is known")
    weights = ARCHITECTURES[kind](config, tensors)
    return weights._replace(pooling=pooling, layers=_layer_by_layer(weights.layers, tensors))


def _bert(config: Config, tensors: Tensors) -> EncoderWeights:
    refuse_other_arithmetic(config, _PLAIN)
    return _bert_like(config, tensors, _BERT)


def _roberta(config: Config, tensors: Tensors) -> EncoderWeights:
    """Positions are counted from the one behind that of padding, and padding tokens are not."""
    refuse_other_arithmetic(config, _PLAIN)
    whole(config, "pad_token_id", 1, least=0)
    return _bert_like(config, tensors, _BERT)


def _distilbert(config: Config, tensors: Tensors) -> EncoderWeights:
    refuse_other_arithmetic(config, _PLAIN)
    own_keys = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
                "intermediate_size": "hidden_dim", "hidden_act": "activation"}  # fmt: skip
    renamed = {name: config[own] for name, own in own_keys.items() if own in config}
    return _bert_like({**config, **renamed, "layer_norm_eps": 1e-12, "type_vocab_size": 0}, tensors, _DISTILBERT)


def _mpnet(config: Config, tensors: Tensors) -> EncoderWeights:
    """Positions are counted as in RoBERTa, and each head has a bias for the distance of two tokens."""
    refuse_other_arithmetic(config, _PLAIN)
    weights = _bert_like({**config, "type_vocab_size": 0}, tensors, _MPNET)
    parameters = Parameters(tensors, find_prefix(tensors, "embeddings.word_embeddings.weight"))
    bias_BH = read_finite(parameters, "encoder.relative_attention_bias.weight", -1, weights.heads)
    if len(bias_BH) < _BUCKETS:
        raise NotCoveredError(f"its table of relative positions has {len(bias_BH)} rows where {_BUCKETS} belong")
    distances_D = np.arange(1 - weights.most_tokens, weights.most_tokens)
    return weights._replace(relative_bias_HD=np.ascontiguousarray(bias_BH[_mpnet_buckets(distances_D)].T))


def _mpnet_buckets(distances_D: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row for key - query in the table of relative positions: half of them forward, near ones one by one."""
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    away_D = np.abs(distances_D)
    # Rounded to float32 as in transformers, where a distance on the border of two buckets may fall into either. The
    # logarithm is taken in float64, because numpy's in float32 differs between processors.
    steps_D = np.log(np.maximum(away_D, 1) / exact).astype(np.float32)
    far_D = exact + (steps_D / np.float32(np.log(_FARTHEST / exact)) * np.float32(half - exact)).astype(np.int64)
    return np.where(distances_D > 0, half, 0) + np.where(away_D < exact, away_D, np.minimum(far_D, half - 1))


def _electra(config: Config, tensors: Tensors) -> EncoderWeights:
    """Embeddings may have a width of their own."""
    refuse_other_arithmetic(config, _PLAIN)
    return _bert_like(config, tensors, _BERT, embedding_width=whole(config, "embedding_size", 128))


def _bert_like(
    config: Config,
    tensors: Tensors,
    names: LayerNames,
    embedding_width: int | None = None,
) -> EncoderWeights:
    parameters = Parameters(tensors, find_prefix(tensors, "embeddings.word_embeddings.weight"))
    hidden, heads = widths(config)
    width = embedding_width or hidden
    positions_PE = read_array(parameters, "embeddings.position_embeddings.weight", -1, width)
    if whole(config, "type_vocab_size", 2, least=0):
        positions_PE = positions_PE + read_array(parameters, "embeddings.token_type_embeddings.weight", -1, width)[0]
    # Where positions are counted from the one behind that of padding, a padding token has that row anywhere in a text.
    first = first_position(config)
    padding = first - 1 if first else None
    return EncoderWeights(
        hidden=hidden,
        heads=heads,
        most_tokens=len(positions_PE) - first,
        epsilon=epsilon(config, "layer_norm_eps", 1e-12),
        pooling="",
        token_embeddings_VE=read_array(parameters, "embeddings.word_embeddings.weight", -1, width),
        layers=_bert_layers(config, parameters, names),
        activation=activation(config, "hidden_act"),
        positions_PE=positions_PE[first:],
        padding_token=padding,
        padding_row_E=None if padding is None else positions_PE[padding],
        embedding_norm=read_norm(parameters, "embeddings.LayerNorm", width),
        projection=None if width == hidden else read_linear(parameters, "embeddings_project", hidden, width),
    )


def _bert_layers(config: Config, parameters: Parameters, names: LayerNames) -> Iterator[Layer]:
    hidden, wide = whole(config, "hidden_size"), whole(config, "intermediate_size")
    for index in range(whole(config, "num_hidden_layers")):
        at = names.layer.format(index)
        yield Layer(
            query_key_value=join(
                [read_linear(parameters, at + name, hidden, hidden) for name in (names.query, names.key, names.value)]
            ),
            attention_output=read_linear(parameters, at + names.attention_output, hidden, hidden),
            feed_forward_in=read_linear(parameters, at + names.feed_forward_in, wide, hidden),
            feed_forward_out=read_linear(parameters, at + names.feed_forward_out, hidden, wide),
            attention_norm=read_norm(parameters, at + names.attention_norm, hidden),
            feed_forward_norm=read_norm(parameters, at + names.feed_forward_norm, hidden),
        )


def _modernbert(config: Config, tensors: Tensors) -> EncoderWeights:
    """Normalization before each block, rotary positions, a gated feed-forward; most layers see a window of tokens."""
    # position_embedding_type stands in published configurations, and transformers does not read it here. sliding_window
    # would stand for local_attention, depending on which of them comes last.
    refuse_other_arithmetic(config, {"auto_map": (None,), "sliding_window": (None,)})
    parameters = Parameters(tensors, find_prefix(tensors, "embeddings.tok_embeddings.weight"))
    hidden, heads = widths(config)
    norm_bias = switch(config, "norm_bias", False)
    return EncoderWeights(
        hidden=hidden,
        heads=heads,
        most_tokens=whole(config, "max_position_embeddings", 8192),
        epsilon=epsilon(config, "norm_eps", 1e-5),
        pooling="",
        token_embeddings_VE=read_array(parameters, "embeddings.tok_embeddings.weight", -1, hidden),
        layers=_modernbert_layers(config, parameters, hidden // heads),
        norm_first=True,
        activation=activation(config, "hidden_activation"),
        gated=True,
        embedding_norm=read_norm(parameters, "embeddings.norm", hidden, norm_bias),
        final_norm=read_norm(parameters, "final_norm", hidden, norm_bias),
    )


def _modernbert_layers(config: Config, parameters: Parameters, head: int) -> Iterator[Layer]:
    hidden, wide = whole(config, "hidden_size"), whole(config, "intermediate_size", 1152)
    norm_bias, attention_bias, mlp_bias = (
        switch(config, key, False) for key in ("norm_bias", "attention_bias", "mlp_bias")
    )
    window = whole(config, "local_attention", 128, least=2) // 2
    kinds = _modernbert_kinds(config)
    frequencies = {kind: rotary_frequencies(*_modernbert_rope(config, kind, head)) for kind in set(kinds)}
    for index, kind in enumerate(kinds):
        at = f"layers.{index}."
        yield Layer(
            query_key_value=read_linear(parameters, f"{at}attn.Wqkv", 3 * hidden, hidden, attention_bias),
            attention_output=read_linear(parameters, f"{at}attn.Wo", hidden, hidden, attention_bias),
            feed_forward_in=read_linear(parameters, f"{at}mlp.Wi", 2 * wide, hidden, mlp_bias),
            feed_forward_out=read_linear(parameters, f"{at}mlp.Wo", hidden, wide, mlp_bias),
            attention_norm=None if index == 0 else read_norm(parameters, f"{at}attn_norm", hidden, norm_bias),
            feed_forward_norm=read_norm(parameters, f"{at}mlp_norm", hidden, norm_bias),
            window=window if kind == "sliding_attention" else 0,
            rotary_H2=frequencies[kind],
        )


def _modernbert_kinds(config: Config) -> list[str]:
    """Of each layer, "full_attention" or "sliding_attention"."""
    count = whole(config, "num_hidden_layers")
    every = whole(config, "global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or ["sliding_attention" if index % every else "full_attention"
                                          for index in range(count)]  # fmt: skip
    if len(kinds) != count or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise NotCoveredError(f"config.json has layer_types={kinds!r:.80}")
    return list(kinds)


def _modernbert_rope(config: Config, kind: str, head: int) -> tuple[float, int, Config | None]:
    """The arguments of `rotary_frequencies` for layers of a kind; transformers 5 writes other keys than 4."""
    own = settings(settings(config, "rope_parameters"), kind)
    base = number(config, "global_rope_theta", 160000.0)
    if kind == "sliding_attention" and config.get("local_rope_theta", 10000.0) is not None:
        base = number(config, "local_rope_theta", 10000.0)
    return number(own, "rope_theta", base), head, own or settings(config, "rope_scaling")


_NEW = LayerNames(
    "encoder.layer.{}.", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "attn_ln",
    "mlp.up_gate_proj", "mlp.down_proj", "mlp_ln",
)  # fmt: skip
_GTE = LayerNames(
    "layers.{}.", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.up_gate_proj", "mlp.down_proj", "post_mlp_layernorm",
)  # fmt: skip


def _gte(config: Config, tensors: Tensors) -> EncoderWeights:
    """GTE's own encoder: BERT's blocks with rotary positions and a gated feed-forward.

    model_type "new" is Alibaba-NLP/new-impl on the Hub, "gte" the same in transformers, with other names.
    """
    harmless = {"layer_norm_type": (None, "layer_norm"), "position_embedding_type": (None, "rope"),
                "logn_attention_scale": (None, False)}  # fmt: skip
    refuse_other_arithmetic(config, harmless)
    parameters = Parameters(tensors, find_prefix(tensors, "embeddings.word_embeddings.weight"))
    hidden, heads = widths(config)
    row_E = None
    if whole(config, "type_vocab_size", 1, least=0):
        row_E = read_array(parameters, "embeddings.token_type_embeddings.weight", -1, hidden)[0]
    return EncoderWeights(
        hidden=hidden,
        heads=heads,
        most_tokens=whole(config, "max_position_embeddings", 8192),
        epsilon=epsilon(config, "layer_norm_eps", 1e-12),
        pooling="",
        token_embeddings_VE=read_array(parameters, "embeddings.word_embeddings.weight", -1, hidden),
        layers=_gte_layers(config, parameters, hidden // heads),
        activation=activation(config, "hidden_act"),
        gated=True,
        token_type_row_E=row_E,
        embedding_norm=read_norm(parameters, "embeddings.LayerNorm", hidden),
    )


def _gte_layers(config: Config, parameters: Parameters, head: int) -> Iterator[Layer]:
    hidden, wide = whole(config, "hidden_size"), whole(config, "intermediate_size")
    rope = settings(config, "rope_parameters")
    theta = number(rope, "rope_theta", config.get("rope_theta", 10000.0 if config["model_type"] == "new" else 160000.0))
    rotary_H2 = rotary_frequencies(theta, head, rope or settings(config, "rope_scaling"))
    names = _NEW if has(parameters, f"{_NEW.layer.format(0)}{_NEW.attention_norm}.weight") else _GTE
    for index in range(whole(config, "num_hidden_layers")):
        at = names.layer.format(index)
        yield Layer(
            query_key_value=_gte_query_key_value(parameters, at, names, hidden),
            attention_output=read_linear(parameters, at + names.attention_output, hidden, hidden),
            feed_forward_in=_gte_feed_forward_in(parameters, at, wide, hidden),
            feed_forward_out=read_linear(parameters, at + names.feed_forward_out, hidden, wide),
            attention_norm=read_norm(parameters, at + names.attention_norm, hidden),
            feed_forward_norm=read_norm(parameters, at + names.feed_forward_norm, hidden),
            rotary_H2=rotary_H2,
        )


def _gte_query_key_value(parameters: Parameters, at: str, names: LayerNames, hidden: int) -> Linear:
    packed = at + names.query.replace("q_proj", "qkv_proj")
    if has(parameters, f"{packed}.weight"):
        return read_linear(parameters, packed, 3 * hidden, hidden)
    return join([read_linear(parameters, at + name, hidden, hidden) for name in (names.query, names.key, names.value)])


def _gte_feed_forward_in(parameters: Parameters, at: str, wide: int, hidden: int) -> Linear:
    """The gate first, which the activation is applied to; "new" has it last."""
    if has(parameters, f"{at}mlp.up_gate_proj.weight"):
        up_NK, gate_NK = np.split(read_finite(parameters, f"{at}mlp.up_gate_proj.weight", 2 * wide, hidden), 2)
        return join([Linear(gate_NK, None), Linear(up_NK, None)])
    return join([read_linear(parameters, f"{at}mlp.{part}_proj", wide, hidden, bias=False) for part in ("gate", "up")])


def _layer_by_layer(layers: Iterable[Layer], tensors: Tensors) -> Iterator[Layer]:
    """The layers, each of which leaves memory when the next one is asked for."""
    for layer in layers:
        yield layer
        give_back_pages(tensors)


ARCHITECTURES: Mapping[str, Callable[[Config, Tensors], EncoderWeights]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
    "electra": _electra,
    "modernbert": _modernbert,
    "new": _gte,
    "gte": _gte,
}
