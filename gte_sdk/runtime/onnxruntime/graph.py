"""The onnxruntime engine: opens an ONNX graph on a device and runs token batches to unit vectors.

It reads the graph's sentence_embedding, or pools last_hidden_state and applies the dense layers behind the pooling: if
the graph has no other output, or if the caller wants sums that do not depend on the batch. Idle threads do not spin,
and there are no more of them than CPU affinity and cgroup quota allow.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import DeviceError, InputError, ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file, read_modules_only_in_graph
from gte_sdk.model_files.graph_file import (
    CACHE_INPUTS,
    POSITIONS,
    SENTENCE_EMBEDDING,
    STATES,
    TOKEN_INPUTS,
    external_data_names,
    unknown_inputs,
)
from gte_sdk.model_files.modules import SAFETENSORS, read_dense
from gte_sdk.model_files.published import IN_GRAPH, MODULES_JSON, ModelPath
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.native.safetensors_file import read_safetensors
from gte_sdk.runtime.onnxruntime.devices import PROVIDERS, find_cuda_libraries, import_onnxruntime, why_not_started
from gte_sdk.runtime.tokens import TokenBatch, batches_by_tokens, pad_batch

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class DenseLayer(NamedTuple):
    """A dense layer behind the pooling, such as those of LaBSE and EmbeddingGemma."""

    weights_KN: NDArray[np.float32]
    bias_N: NDArray[np.float32]
    """Zeros where the layer has none."""
    tanh: bool


class Graph(NamedTuple):
    session: Any
    """The onnxruntime.InferenceSession; safe to run from many threads at once."""
    input_names: frozenset[str]
    cache: dict[str, tuple[int, int, Any]]
    """A decoder's inputs for the keys and values of earlier tokens: heads, width and dtype by name."""
    output_name: str
    states_name: str | None
    """The output with the states of the tokens, or None."""
    dim: int | None
    """The dimensions of the output, or None if the graph does not say."""
    device: str
    """The device that the graph runs on: "cpu" or "cuda"."""


def open_onnxruntime(
    description: ModelDir, graph_name: str, device: str, variant: str, settings: EngineSettings, pad_id: int
) -> Engine:
    """The engine for a graph of a model directory on "cpu" or "cuda". Raises what `open_graph` raises."""
    only_in_graph = read_modules_only_in_graph(description) if description.files else []
    # Our export's graphs end in a pooling whose sums depend on the number of texts (by 4e-8 in onnxruntime 1.31); the
    # states before it do not. A foreign graph may do more than pooling after its states, so it keeps its own output.
    pool_here = description.pool_states or (bool(description.files) and device == "cpu" and not only_in_graph)

    def load() -> tuple[Graph, list[DenseLayer]]:
        for name in external_data_names(description.path, graph_name):
            checked_file(description, name)
        path = checked_file(description, graph_name)
        return open_graph(path, device, settings.threads, pool_here), load_dense_layers(description)

    def run_batch(graph: Graph, dense: Sequence[DenseLayer], ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return run_graph(graph, pad_batch(ids, pad_id), description.pooling, description.normalize, dense)

    # A forked child has none of the session's threads: running or freeing the session would wait for them for ever.
    loaded = Loaded(load, settings.unload_after, survives_fork=False)
    with loaded.use() as (graph, dense):
        _check_output(description, graph_name, graph, only_in_graph)
        dim = graph.dim
        if dim is None or (dense and graph.output_name != SENTENCE_EMBEDDING):
            dim = _tried_width(description.path / graph_name, partial(run_batch, graph, dense), pad_id)
        opened_device, has_states = graph.device, graph.states_name is not None

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        vectors_ND = np.empty((len(ids), dim), dtype=np.float32)
        with loaded.use() as (graph, dense):
            for rows in batches_by_tokens([len(row) for row in ids], settings.max_batch_tokens, max_rows):
                vectors_ND[rows] = run_batch(graph, dense, [ids[row] for row in rows])
        return vectors_ND

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for row in ids:
            with loaded.use() as (graph, _):
                yield run_states(graph, pad_batch([row], pad_id))[0]

    averages = has_states and description.pooling == "mean" and not only_in_graph and not description.dense
    return Engine(
        name="onnxruntime",
        device=opened_device,
        variant=variant,
        graph_name=graph_name,
        dim=dim,
        threads=settings.threads,
        instruction_set=None,
        run=run,
        close=loaded.drop,
        token_states=token_states if averages else None,
    )


def _check_output(description: ModelDir, graph_name: str, graph: Graph, only_in_graph: Sequence[str]) -> None:
    """Refuses a graph that ends where the model does not, or before or after what the caller asks for."""
    path = description.path / graph_name
    pools_itself = graph.output_name == SENTENCE_EMBEDDING
    if only_in_graph and not pools_itself:
        raise ModelFormatError(
            f"{path} ends before {MODULES_JSON}'s {only_in_graph[0]}, which follows the pooling; take a graph with "
            "sentence_embedding, such as python export/to_onnx.py makes"
        )
    if description.pooling == IN_GRAPH and not pools_itself:
        raise ModelFormatError(f"{path} has no output sentence_embedding, and {description.why_in_graph}")
    if description.pool_states and pools_itself:
        raise InputError(f"pooling={description.pooling!r}; {path} gives no token states to pool: leave pooling out")


def _tried_width(path: ModelPath, run_batch: Any, token_id: int) -> int:
    """The width of the vectors of a graph that does not say it, from a run with one token."""
    try:
        width: int = run_batch([[token_id]]).shape[1]
    except ValueError as error:
        raise ModelFormatError(f"{path} gives states of another width than its dense layers take: {error}") from error
    return width


def open_graph(path: ModelPath, device: str, threads: int, pool_here: bool = False) -> Graph:
    """Opens the ONNX file on "cpu" or "cuda" with that many threads.

    pool_here: prefer last_hidden_state and our pooling to the graph's own.

    Raises ModelFormatError for a file that is no graph of token inputs, DeviceError where the device does not start.
    """
    onnxruntime = import_onnxruntime()
    if device == "cuda":
        find_cuda_libraries()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps the largest buffer of every shape that it ever saw, and each batch here has another shape.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    provider = PROVIDERS[device]
    source = str(path) if isinstance(path, Path) else path.read_bytes()
    if isinstance(source, bytes):
        # Or weights outside of the graph are read from the current folder: check_external_data refuses what it finds.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path))
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise ModelFormatError(
            f"{path} is not a graph that onnxruntime {onnxruntime.__version__} can open: {error}"
        ) from error
    if session.get_providers()[0] != provider:
        raise DeviceError(why_not_started(device, session.get_providers()))
    input_names = frozenset(node.name for node in session.get_inputs())
    if unknown_inputs(input_names):
        raise ModelFormatError(f"{path} has the inputs {sorted(input_names)} where {TOKEN_INPUTS} belong")
    output = _output(path, session, pool_here)
    states = [node.name for node in session.get_outputs() if node.name in STATES and len(node.shape) == 3]
    dim = output.shape[-1] if isinstance(output.shape[-1], int) else None
    return Graph(
        session, input_names, _cache_inputs(path, session), output.name, states[0] if states else None, dim, device
    )


def run_graph(
    graph: Graph, batch: TokenBatch, pooling: str, normalized: bool, dense: Sequence[DenseLayer] = ()
) -> NDArray[np.float32]:
    """The (n, dim) float32 unit rows of a token batch.

    `pooling` and `dense` are used where the graph gives token vectors only; `normalized` says that the graph's own
    sentence vectors have unit length already.
    """
    output = _run(graph, graph.output_name, batch)
    if output.ndim == 3:
        output = apply_dense_layers(dense, _pool(output, batch.attention_mask, pooling))
    elif normalized:
        return output
    return _kernels.normalize_rows(output)


def load_dense_layers(description: ModelDir) -> list[DenseLayer]:
    """The weights of a model's dense layers, in their order. Raises ModelFormatError if they are not what is described.

    `N_Dense/model.safetensors` has linear.weight (out, in) and linear.bias (out), as sentence-transformers saves them.
    """
    layers = []
    for folder in description.dense:
        described = read_dense(description.path, folder)
        file = checked_file(description, f"{folder}/{SAFETENSORS}")
        tensors = read_safetensors(file)
        weights_NK = tensors.get("linear.weight", np.empty(0))
        bias_N = tensors.get("linear.bias", np.zeros(described.out_features if not described.has_bias else 0))
        shapes = (weights_NK.shape, bias_N.shape)
        if shapes != ((described.out_features, described.in_features), (described.out_features,)):
            raise ModelFormatError(
                f"{file} has a layer of shape {shapes}, but its config.json describes {described}; download it again"
            )
        layers.append(DenseLayer(weights_NK.astype(np.float32).T, bias_N.astype(np.float32), described.tanh))
    return layers


def apply_dense_layers(layers: Sequence[DenseLayer], rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, in) pooled rows to (n, out), float32, through one layer after the other."""
    for weights_KN, bias_N, tanh in layers:
        rows_ND = rows_ND @ weights_KN + bias_N
        if tanh:
            rows_ND = np.tanh(rows_ND)
    return rows_ND


def run_states(graph: Graph, batch: TokenBatch) -> NDArray[np.float32]:
    """The states (n, t, hidden) of a batch's tokens, from a graph that has states_name."""
    assert graph.states_name is not None
    return _run(graph, graph.states_name, batch)


def _run(graph: Graph, output_name: str, batch: TokenBatch) -> NDArray[np.float32]:
    inputs = {name: array for name, array in batch._asdict().items() if name in graph.input_names}
    count, length = batch.input_ids.shape
    if POSITIONS in graph.input_names:
        inputs[POSITIONS] = np.broadcast_to(np.arange(length), (count, length)).copy()
    for name, (heads, width, dtype) in graph.cache.items():
        inputs[name] = np.empty((count, heads, 0, width), dtype)  # no token came before these
    try:
        output = (
            graph.session.run([output_name], inputs)[0]
            if graph.device == "cpu"
            else run_bound(graph.session, output_name, inputs, graph.device)
        )
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise ModelFormatError(
            f"the graph failed on token ids up to {batch.input_ids.max()} in shape {batch.input_ids.shape}: {error}; "
            "graph and tokenizer.json belong to different models, or memory ran out (lower max_batch_tokens)"
        ) from error
    floats: NDArray[np.float32] = output.astype(np.float32, copy=False)
    return floats


def run_bound(session: Any, output_name: str, inputs: Mapping[str, NDArray[Any]], device: str) -> NDArray[Any]:
    """What `session.run` gives for one output, which is made on `device` and copied from there once."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output(output_name, device)
    session.run_with_iobinding(binding)
    output: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return output


def _pool(hidden_NTD: NDArray[np.float32], mask_NT: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    """(n, dim): one of POOLING_MODES over the tokens that are not padding."""
    if pooling == "mean":
        return _kernels.mean_pool(hidden_NTD, mask_NT)
    if pooling == "cls":
        return np.ascontiguousarray(hidden_NTD[:, 0])
    counts_N = mask_NT.sum(axis=1)
    pooled_ND: NDArray[np.float32]
    if pooling == "mean_sqrt_len_tokens":
        pooled_ND = _kernels.mean_pool(hidden_NTD, mask_NT) * np.sqrt(counts_N, dtype=np.float32)[:, None]
        return pooled_ND
    if pooling == "lasttoken":
        pooled_ND = hidden_NTD[np.arange(len(hidden_NTD)), np.maximum(counts_N - 1, 0)]
        return pooled_ND
    assert pooling in ("max", "weightedmean"), pooling
    pooled_ND = np.zeros((len(hidden_NTD), hidden_NTD.shape[2]), dtype=np.float32)
    for row, count in enumerate(counts_N.tolist()):  # row by row, so that a sum does not depend on the padding
        tokens_TD = hidden_NTD[row, :count]
        if pooling == "weightedmean":
            weights_T = np.arange(1, count + 1, dtype=np.float32)
            pooled_ND[row] = np.einsum("t,td->d", weights_T, tokens_TD) / max(1, weights_T.sum())
        elif count:
            pooled_ND[row] = tokens_TD.max(axis=0)
    return pooled_ND


def _cache_inputs(path: ModelPath, session: Any) -> dict[str, tuple[int, int, Any]]:
    """Heads, width and dtype of a decoder's inputs for earlier keys and values, (n, heads, earlier tokens, width)."""
    found = {}
    for node in session.get_inputs():
        if node.name.startswith(CACHE_INPUTS):
            if (
                node.type not in _FLOATS
                or len(node.shape) != 4
                or not all(type(node.shape[at]) is int for at in (1, 3))
            ):
                raise ModelFormatError(
                    f"{path} has an input {node.name} of {node.type} {node.shape}, which has no size"
                )
            found[node.name] = (node.shape[1], node.shape[3], _FLOATS[node.type])
    return found


def _output(path: ModelPath, session: Any, pool_here: bool) -> Any:
    outputs = {node.name: node for node in session.get_outputs()}
    choices = [(SENTENCE_EMBEDDING, 2), *((name, 3) for name in STATES)]
    for name, rank in choices[1:] + choices[:1] if pool_here else choices:
        if name in outputs and len(outputs[name].shape) == rank:
            return outputs[name]
    raise ModelFormatError(
        f"{path} has the outputs {sorted(outputs)}; "
        "it needs sentence_embedding (n, dim) or last_hidden_state (n, t, dim)"
    )
