"""The onnxruntime engine: opens an ONNX graph on a device and runs token batches to unit vectors.

It reads the graph's sentence_embedding, or pools last_hidden_state with the C++ kernel: if the graph has no other
output, or if the caller wants sums that do not depend on the batch. Idle threads do not spin, and there are no more of
them than CPU affinity and cgroup quota allow.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import DeviceError, ModelFormatError
from gte_sdk.model_files.bundle import BundlePath
from gte_sdk.model_files.directory import ModelDir, checked_file, read_modules_only_in_graph
from gte_sdk.model_files.graph_file import external_locations
from gte_sdk.model_files.published import MODULES_JSON, ModelPath
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.onnxruntime_devices import PROVIDERS, find_cuda_libraries, import_onnxruntime, why_not_started
from gte_sdk.runtime.tokens import TokenBatch, batches_by_tokens, pad_batch

_HIDDEN_STATE_NAMES = ("last_hidden_state", "token_embeddings")


class Graph(NamedTuple):
    session: Any
    """The onnxruntime.InferenceSession; safe to run from many threads at once."""
    input_names: frozenset[str]
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
    only_in_graph = read_modules_only_in_graph(description)
    # Our export's graphs end in a pooling whose sums depend on the number of texts (by 4e-8 in onnxruntime 1.31); the
    # states before it do not. A foreign graph may do more than pooling after its states, so it keeps its own output.
    pool_here = bool(description.files) and device == "cpu" and not only_in_graph

    def load() -> Graph:
        check_external_data(description, graph_name)
        return open_graph(checked_file(description, graph_name), device, settings.threads, pool_here)

    # A forked child has none of the session's threads: running or freeing the session would wait for them for ever.
    loaded = Loaded(load, settings.unload_after, survives_fork=False)
    with loaded.use() as graph:
        if graph.output_name != "sentence_embedding" and only_in_graph:
            raise ModelFormatError(
                f"{description.path / graph_name} ends before {MODULES_JSON}'s {only_in_graph[0]}, which follows "
                "the pooling; take a graph with sentence_embedding, such as python export/to_onnx.py makes"
            )
        dim, opened_device = graph.dim or description.dim, graph.device
        has_states = graph.states_name is not None

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        vectors_ND = np.empty((len(ids), dim), dtype=np.float32)
        with loaded.use() as graph:
            for rows in batches_by_tokens([len(row) for row in ids], settings.max_batch_tokens, max_rows):
                batch = pad_batch([ids[row] for row in rows], pad_id)
                vectors_ND[rows] = run_graph(graph, batch, description.pooling, description.normalize)
        return vectors_ND

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for row in ids:
            with loaded.use() as graph:
                yield run_states(graph, pad_batch([row], pad_id))[0]

    averages = has_states and description.pooling == "mean" and not only_in_graph
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


def check_external_data(description: ModelDir, graph_name: str) -> None:
    """Checks the files that hold weights of the graph outside of it: inside the directory, and with their hashes.

    Raises ModelFormatError for any other file, and for such a graph in a bundle.
    """
    path = description.path / graph_name
    try:
        locations = external_locations(path) if path.is_file() else []
    except (ValueError, IndexError) as error:
        raise ModelFormatError(f"{path} names weights outside of it that are no file: {error}") from error
    for location in sorted(set(locations)):
        if isinstance(path, BundlePath):
            raise ModelFormatError(
                f"{path} has weights outside of it, in {location!r}, which a bundle cannot hold; export it as one file"
            )
        inside = PurePosixPath(graph_name).parent / location
        if inside.is_absolute() or ".." in inside.parts or "\\" in location:
            raise ModelFormatError(f"{path} has weights in {location!r}, which is not inside the model directory")
        checked_file(description, inside.as_posix())


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
    if "input_ids" not in input_names or not input_names <= set(TokenBatch._fields):
        raise ModelFormatError(f"{path} has the inputs {sorted(input_names)} where {TokenBatch._fields} belong")
    output = _output(path, session, pool_here)
    states = [node.name for node in session.get_outputs() if node.name in _HIDDEN_STATE_NAMES and len(node.shape) == 3]
    dim = output.shape[-1] if isinstance(output.shape[-1], int) else None
    return Graph(session, input_names, output.name, states[0] if states else None, dim, device)


def run_graph(graph: Graph, batch: TokenBatch, pooling: str, normalized: bool) -> NDArray[np.float32]:
    """The (n, dim) float32 unit rows of a token batch.

    `pooling` is used where the graph gives token vectors only; `normalized` says that the graph's own sentence
    vectors have unit length already.
    """
    output = _run(graph, graph.output_name, batch)
    if output.ndim == 2 and normalized:
        return output
    vectors = output if output.ndim == 2 else _pool(output, batch.attention_mask, pooling)
    return _kernels.normalize_rows(vectors)


def run_states(graph: Graph, batch: TokenBatch) -> NDArray[np.float32]:
    """The states (n, t, hidden) of a batch's tokens, from a graph that has states_name."""
    assert graph.states_name is not None
    return _run(graph, graph.states_name, batch)


def _run(graph: Graph, output_name: str, batch: TokenBatch) -> NDArray[np.float32]:
    inputs = {name: array for name, array in batch._asdict().items() if name in graph.input_names}
    try:
        (output,) = graph.session.run([output_name], inputs)
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise ModelFormatError(
            f"the graph failed on token ids up to {batch.input_ids.max()} in shape {batch.input_ids.shape}: {error}; "
            "graph and tokenizer.json belong to different models, or memory ran out (lower max_batch_tokens)"
        ) from error
    floats: NDArray[np.float32] = output.astype(np.float32, copy=False)
    return floats


def _pool(hidden_NTD: NDArray[np.float32], mask_NT: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    """(n, dim): one of POOLING_MODES over the tokens that are not padding; the caller gives the rows unit length."""
    if pooling in ("mean", "mean_sqrt_len_tokens"):  # the same direction
        return _kernels.mean_pool(hidden_NTD, mask_NT)
    if pooling == "cls":
        return np.ascontiguousarray(hidden_NTD[:, 0])
    counts_N = mask_NT.sum(axis=1)
    pooled_ND: NDArray[np.float32]
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


def _output(path: ModelPath, session: Any, pool_here: bool) -> Any:
    outputs = {node.name: node for node in session.get_outputs()}
    choices = [("sentence_embedding", 2), *((name, 3) for name in _HIDDEN_STATE_NAMES)]
    for name, rank in choices[1:] + choices[:1] if pool_here else choices:
        if name in outputs and len(outputs[name].shape) == rank:
            return outputs[name]
    raise ModelFormatError(
        f"{path} has the outputs {sorted(outputs)}; "
        "it needs sentence_embedding (n, dim) or last_hidden_state (n, t, dim)"
    )
