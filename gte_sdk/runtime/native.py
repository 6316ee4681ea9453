"""The native engine: int8 BERT graphs and token tables of our export on the C++ encoder, csrc/encoder/bert.hpp.

Texts are packed without padding and all sums have a fixed order, so a text's vector has the same bits in any batch, on
any number of threads and on every CPU. It is also the fastest engine on a CPU (docs/experiments.md) and starts in
milliseconds. ONNX Runtime runs the graphs of other architectures (onnxruntime_graph.py).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file, read_modules_only_in_graph
from gte_sdk.model_files.published import CONFIG_JSON, ModelPath, read_json
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.onnx_file import Node, OnnxFile, read_onnx

# Changes whenever the bits of the vectors change: golden vectors of another version are compared with a tolerance.
# tests/kernels/bert_self_test.cpp pins the bits.
ARITHMETIC = "native 1"
# The tokens that a thread takes through all layers at a time: its buffers (2 MB at 384 dimensions) stay in the cache.
BATCH_TOKENS = 256
# The kernels need layers, heads and tables whose widths are multiples of these.
_WIDTH, _HEAD_WIDTH, _TABLE_WIDTH = 64, 16, 16
_MATMUL = re.compile(
    r"/layer\.(\d+)/(attention/self/query|attention/self/key|attention/self/value|attention/output/dense|"
    r"intermediate/dense|output/dense)/MatMul_output_0/int32$"
)
_SHIFTED = "gte_int8/zero_0"
# The operators of a token table's graph: it looks up rows, averages them and scales the mean to unit length.
_TABLE_OPERATORS = {"Cast", "Clip", "Div", "Expand", "Gather", "Mul", "ReduceL2", "ReduceSum", "Shape", "Unsqueeze"}

LinearArrays = tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], bool]


class NativeModel(NamedTuple):
    bert: Any
    """A _kernels.Bert; safe to use from many threads at once."""
    dim: int
    threads: int
    instruction_set: str
    """One of _kernels.encoder_instruction_sets()."""


class _NotCoveredError(Exception):
    """A graph that only onnxruntime can run. Never leaves this module."""


def open_native(description: ModelDir, graph_name: str, settings: EngineSettings) -> Engine | None:
    """The engine for an int8 graph of a model directory, or None for a graph that only onnxruntime can run."""
    if read_modules_only_in_graph(description):
        return None
    config = read_json(checked_file(description, CONFIG_JSON))

    def load() -> NativeModel:
        model = load_native(checked_file(description, graph_name), config, description.pooling, settings.threads)
        if model is None:
            raise _NotCoveredError
        return model

    try:
        loaded = Loaded(load, settings.unload_after, survives_fork=True)
    except (_NotCoveredError, ValueError):
        return None  # onnxruntime's message says what is wrong with the file
    with loaded.use() as model:
        dim, instruction_set = model.dim, model.instruction_set

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        # max_rows and the token budget bound padded buffers; this engine pads nothing and has a small budget itself.
        with loaded.use() as model:
            return run_native(model, ids)

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(ids), settings.threads):  # a text is one thread's work
            rows = ids[start : start + settings.threads]
            with loaded.use() as model:
                states_TD = run_native(model, rows, token_states=True)
            yield from np.split(states_TD, np.cumsum([len(row) for row in rows])[:-1])

    return Engine(
        name="native",
        device="cpu",
        variant="int8",
        graph_name=graph_name,
        dim=dim,
        threads=settings.threads,
        instruction_set=instruction_set,
        run=run,
        close=loaded.drop,
        token_states=token_states if description.pooling == "mean" and config.get("num_hidden_layers") != 0 else None,
    )


def load_native(
    path: ModelPath, config: Mapping[str, Any], pooling: str, threads: int, instruction_set: str = ""
) -> NativeModel | None:
    """The model of an int8 graph that our export wrote, or None for a graph that the C++ encoder does not cover.

    config: the content of config.json. instruction_set: one of those that the CPU has. Raises ValueError for
    a damaged file.
    """
    is_table = config.get("num_hidden_layers") == 0
    if config.get("model_type") != "bert" or not (is_table or config.get("hidden_act") == "gelu"):
        return None
    if config.get("position_embedding_type", "absolute") != "absolute":
        return None
    graph = read_onnx(path)
    try:
        bert, dim = _build_table(graph, pooling) if is_table else _build(graph, *_heads_and_epsilon(config), pooling)
    except (_NotCoveredError, LookupError, TypeError, ValueError, OverflowError):
        return None  # weights of other names, types or shapes
    return NativeModel(bert, dim, threads, instruction_set or _kernels.encoder_instruction_sets()[-1])


def run_native(model: NativeModel, ids: Sequence[Sequence[int]], token_states: bool = False) -> NDArray[np.float32]:
    """(n, dim) unit rows of n texts, given as token ids with their special tokens.

    token_states: the last states of all tokens instead, text after text (tokens, dim), as they are before pooling.
    """
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=starts[1:])
    token_ids = np.fromiter(chain.from_iterable(ids), np.int64, starts[-1])
    rows_ND = np.empty((starts[-1] if token_states else len(ids), model.dim), dtype=np.float32)
    try:
        if token_ids.max(initial=0) >= 2**31:  # tokenizer.json counts in 32 bits without a sign
            raise ValueError("a token id is out of range")
        model.bert.encode(
            token_ids.astype(np.int32),
            starts,
            rows_ND,
            BATCH_TOKENS,
            model.threads,
            model.instruction_set,
            token_states,
        )
    except ValueError as error:
        raise ModelFormatError(
            f"the encoder failed on {len(ids)} texts with token ids up to {token_ids.max()}: {error}; "
            "graph and tokenizer.json belong to different models"
        ) from error
    return rows_ND


def _heads_and_epsilon(config: Mapping[str, Any]) -> tuple[int, float]:
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    if type(heads) is not int or heads < 1 or not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise _NotCoveredError
    return heads, epsilon


def _build_table(graph: OnnxFile, pooling: str) -> tuple[Any, int]:
    """A graph that averages rows of a token table, as export writes a static encoder."""
    tables = [node.inputs[0] for node in graph.nodes if node.operator == "Gather" and node.inputs[1] == "input_ids"]
    if pooling != "mean" or {node.operator for node in graph.nodes} != _TABLE_OPERATORS or len(tables) != 2:
        raise _NotCoveredError
    name = tables[0].removesuffix("/int8")
    embeddings_VD: Any = graph.weights[f"{name}/int8"].copy()
    dim = embeddings_VD.shape[1]
    if embeddings_VD.dtype != np.int8 or dim % _TABLE_WIDTH:
        raise _NotCoveredError
    none = np.empty(0, dtype=np.float32)
    scales = _floats(graph.weights, f"{name}/scale").ravel()
    return _kernels.Bert(embeddings_VD, scales, none.reshape(0, dim), none, none, 1, 0.0, pooling), dim


def _build(graph: OnnxFile, heads: int, epsilon: float, pooling: str) -> tuple[Any, int]:
    weights = graph.weights
    prefix = _only_prefix(weights)
    embeddings = f"{prefix}embeddings."
    embeddings_VD: Any = weights[f"{embeddings}word_embeddings.weight/int8"].copy()
    positions_PD = _floats(weights, f"{embeddings}position_embeddings.weight")
    if f"{embeddings}token_type_embeddings.weight" in weights:
        positions_PD = positions_PD + _floats(weights, f"{embeddings}token_type_embeddings.weight")[0]
    dim = embeddings_VD.shape[1]
    if dim % _WIDTH or dim % (heads * _HEAD_WIDTH):
        raise _NotCoveredError
    bert = _kernels.Bert(
        embeddings_VD,
        _floats(weights, f"{embeddings}word_embeddings.weight/scale").ravel(),
        positions_PD,
        _floats(weights, f"{embeddings}LayerNorm.weight"),
        _floats(weights, f"{embeddings}LayerNorm.bias"),
        heads,
        epsilon,
        pooling,
    )
    products = _layer_products(graph.nodes)
    for index in range(len(products)):
        names = products[index]
        layer = f"{prefix}encoder.layer.{index}."

        def linear(part: str, names: Mapping[str, Node] = names, layer: str = layer) -> LinearArrays:
            return _linear(weights, names[part], f"{layer}{part.replace('/', '.')}.bias")

        query, key, value = (linear(f"attention/self/{part}") for part in ("query", "key", "value"))
        joined = (
            np.concatenate([query[0], key[0], value[0]], axis=1),
            np.concatenate([query[1], key[1], value[1]]),
            np.concatenate([query[2], key[2], value[2]]),
            query[3],
            query[4],
        )
        intermediate = linear("intermediate/dense")
        if intermediate[0].shape[1] % _WIDTH:
            raise _NotCoveredError
        norms = [
            _floats(weights, f"{layer}{part}.LayerNorm.{name}")
            for part in ("attention.output", "output")
            for name in ("weight", "bias")
        ]
        bert.add_layer(joined, linear("attention/output/dense"), intermediate, linear("output/dense"), norms)
    return bert, dim


def _only_prefix(weights: Mapping[str, Any]) -> str:
    """The part of the weights' names before "embeddings."."""
    ending = "embeddings.word_embeddings.weight/int8"
    prefixes = [name.removesuffix(ending) for name in weights if name.endswith(ending)]
    if len(prefixes) != 1:
        raise _NotCoveredError
    return prefixes[0]


def _layer_products(nodes: Sequence[Node]) -> dict[int, dict[str, Node]]:
    """The six matrix products of each layer, by layer and name. The graph may have no others."""
    layers: dict[int, dict[str, Node]] = {}
    for node in nodes:
        if node.operator in ("MatMulInteger", "Gemm", "Conv", "QLinearMatMul", "MatMulNBits"):
            found = _MATMUL.search(node.outputs[0])
            if found is None:
                raise _NotCoveredError
            layers.setdefault(int(found[1]), {})[found[2]] = node
    if not layers or sorted(layers) != list(range(len(layers))) or any(len(parts) != 6 for parts in layers.values()):
        raise _NotCoveredError
    return layers


def _linear(weights: Mapping[str, NDArray[np.generic]], product: Node, bias_name: str) -> LinearArrays:
    rows, matrix, zero = product.inputs
    name = matrix.removesuffix("/int8")
    bias_N = _floats(weights, bias_name)
    if f"{name}/undo_shift" in weights:
        bias_N = bias_N + _floats(weights, f"{name}/undo_shift")
    codes_KN: Any = weights[matrix]
    smoothing_K = _floats(weights, f"{rows.removesuffix('/uint8')}/level")
    return codes_KN, _floats(weights, f"{name}/scale").ravel(), bias_N, smoothing_K, zero == _SHIFTED


def _floats(weights: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    array = weights[name]
    if array.dtype != np.float32:
        raise _NotCoveredError
    return array.astype(np.float32)  # a copy, aligned
