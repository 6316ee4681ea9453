"""The int8 graphs that our export writes, of BERT models and of token tables, as descriptions for the C++ encoder."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.published import ModelPath
from gte_sdk.runtime.native.description import EncoderWeights, Layer, Norm, NotCoveredError, QuantizedLinear
from gte_sdk.runtime.native.onnx_file import Node, OnnxFile, read_onnx

_MATMUL = re.compile(
    r"/layer\.(\d+)/(attention/self/query|attention/self/key|attention/self/value|attention/output/dense|"
    r"intermediate/dense|output/dense)/MatMul_output_0/int32$"
)
_SHIFTED = "gte_int8/zero_0"
# The operators of a token table's graph: it looks up rows, averages them and scales the mean to unit length.
_TABLE_OPERATORS = {"Cast", "Clip", "Div", "Expand", "Gather", "Mul", "ReduceL2", "ReduceSum", "Shape", "Unsqueeze"}


def read_int8_graph(path: ModelPath, config: Mapping[str, Any], pooling: str) -> EncoderWeights:
    """The weights of an int8 graph that our export wrote.

    config: the content of config.json. Raises NotCoveredError for other architectures; for weights of other names,
    types or shapes what numpy and dictionaries raise, while they are read.
    """
    is_table = config.get("num_hidden_layers") == 0
    if config.get("model_type") != "bert":
        raise NotCoveredError(f"model_type={config.get('model_type')!r} is not 'bert'")
    if not is_table and config.get("hidden_act") != "gelu":
        raise NotCoveredError(f"hidden_act={config.get('hidden_act')!r} is not 'gelu'")
    if (kind := config.get("position_embedding_type", "absolute")) != "absolute":
        raise NotCoveredError(f"position_embedding_type={kind!r} is not 'absolute'")
    graph = read_onnx(path)
    return _read_table(graph, pooling) if is_table else _read_bert(graph, config, pooling)


def _read_table(graph: OnnxFile, pooling: str) -> EncoderWeights:
    """A graph that averages rows of a token table, as export writes a static encoder."""
    tables = [node.inputs[0] for node in graph.nodes if node.operator == "Gather" and node.inputs[1] == "input_ids"]
    if pooling != "mean" or {node.operator for node in graph.nodes} != _TABLE_OPERATORS or len(tables) != 2:
        raise NotCoveredError("it is no token table of our export")
    name = tables[0].removesuffix("/int8")
    embeddings_VD = _codes(graph.weights, f"{name}/int8")
    return EncoderWeights(
        hidden=embeddings_VD.shape[1],
        heads=1,
        most_tokens=0,
        epsilon=0.0,
        pooling=pooling,
        token_embeddings_VE=embeddings_VD,
        token_scales_V=_floats(graph.weights, f"{name}/scale").ravel(),
        layers=(),
    )


def _read_bert(graph: OnnxFile, config: Mapping[str, Any], pooling: str) -> EncoderWeights:
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    if type(heads) is not int or heads < 1 or not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise NotCoveredError(f"num_attention_heads={heads!r:.40} or layer_norm_eps={epsilon!r:.40} is out of range")
    weights = graph.weights
    prefix = _only_prefix(weights)
    embeddings = f"{prefix}embeddings."
    embeddings_VD = _codes(weights, f"{embeddings}word_embeddings.weight/int8")
    positions_PD = _floats(weights, f"{embeddings}position_embeddings.weight")
    if f"{embeddings}token_type_embeddings.weight" in weights:
        positions_PD = positions_PD + _floats(weights, f"{embeddings}token_type_embeddings.weight")[0]
    return EncoderWeights(
        hidden=embeddings_VD.shape[1],
        heads=heads,
        most_tokens=len(positions_PD),
        epsilon=epsilon,
        pooling=pooling,
        token_embeddings_VE=embeddings_VD,
        token_scales_V=_floats(weights, f"{embeddings}word_embeddings.weight/scale").ravel(),
        positions_PE=positions_PD,
        embedding_norm=_norm(weights, f"{embeddings}LayerNorm"),
        layers=_read_layers(weights, _layer_products(graph.nodes), f"{prefix}encoder.layer."),
    )


def _read_layers(
    weights: Mapping[str, NDArray[np.generic]], products: Mapping[int, Mapping[str, Node]], prefix: str
) -> Iterator[Layer]:
    for index in range(len(products)):

        def linear(part: str, index: int = index) -> QuantizedLinear:
            return _linear(weights, products[index][part], f"{prefix}{index}.{part.replace('/', '.')}.bias")

        query, key, value = (linear(f"attention/self/{part}") for part in ("query", "key", "value"))
        yield Layer(
            query_key_value=QuantizedLinear(
                np.concatenate([query.codes_KN, key.codes_KN, value.codes_KN], axis=1),
                np.concatenate([query.scales_N, key.scales_N, value.scales_N]),
                np.concatenate([query.bias_N, key.bias_N, value.bias_N]),
                query.smoothing_K,
                query.shifted,
            ),
            attention_output=linear("attention/output/dense"),
            feed_forward_in=linear("intermediate/dense"),
            feed_forward_out=linear("output/dense"),
            attention_norm=_norm(weights, f"{prefix}{index}.attention.output.LayerNorm"),
            feed_forward_norm=_norm(weights, f"{prefix}{index}.output.LayerNorm"),
        )


def _only_prefix(weights: Mapping[str, Any]) -> str:
    """The part of the weights' names before "embeddings."."""
    ending = "embeddings.word_embeddings.weight/int8"
    prefixes = [name.removesuffix(ending) for name in weights if name.endswith(ending)]
    if len(prefixes) != 1:
        raise NotCoveredError("it has no int8 token embeddings of our export")
    return prefixes[0]


def _layer_products(nodes: Sequence[Node]) -> dict[int, dict[str, Node]]:
    """The six matrix products of each layer, by layer and name. The graph may have no others."""
    layers: dict[int, dict[str, Node]] = {}
    for node in nodes:
        if node.operator in ("MatMulInteger", "Gemm", "Conv", "QLinearMatMul", "MatMulNBits"):
            found = _MATMUL.search(node.outputs[0])
            if found is None:
                raise NotCoveredError(f"its product {node.name!r} is none of a BERT layer")
            layers.setdefault(int(found[1]), {})[found[2]] = node
    if not layers or sorted(layers) != list(range(len(layers))) or any(len(parts) != 6 for parts in layers.values()):
        raise NotCoveredError("its layers do not have six int8 products each")
    return layers


def _linear(weights: Mapping[str, NDArray[np.generic]], product: Node, bias_name: str) -> QuantizedLinear:
    rows, matrix, zero = product.inputs
    name = matrix.removesuffix("/int8")
    bias_N = _floats(weights, bias_name)
    if f"{name}/undo_shift" in weights:
        bias_N = bias_N + _floats(weights, f"{name}/undo_shift")
    codes_KN: Any = weights[matrix]
    smoothing_K = _floats(weights, f"{rows.removesuffix('/uint8')}/level")
    return QuantizedLinear(codes_KN, _floats(weights, f"{name}/scale").ravel(), bias_N, smoothing_K, zero == _SHIFTED)


def _norm(weights: Mapping[str, NDArray[np.generic]], name: str) -> Norm:
    return Norm(_floats(weights, f"{name}.weight"), _floats(weights, f"{name}.bias"))


def _codes(weights: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.int8]:
    array = weights[name]
    if array.dtype != np.int8 or array.ndim != 2:
        raise NotCoveredError(f"{name} is no matrix of int8")
    return array.astype(np.int8)  # a copy, which outlives the file's bytes


def _floats(weights: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    array = weights[name]
    if array.dtype != np.float32:
        raise NotCoveredError(f"{name} is no float32")
    return array.astype(np.float32)  # a copy, aligned
