"""From a model's name to a function that turns token ids into unit vectors: which files, which graph, what runs it.

Two engines run graphs. "native", the C++ encoder, takes the int8 graphs of our export on a CPU: it is the faster one,
and a text's vector does not depend on its batch. "onnxruntime" takes every other graph, and every other device.
What is opened is compared with the golden vectors of its export before it is used (golden.py).
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gte_sdk.embedding.chunks import TokenStates
from gte_sdk.errors import DeviceError, InputError, ModelFormatError
from gte_sdk.model_files.directory import GTE_JSON, ModelDir, available_variants, checked_file
from gte_sdk.model_files.published import CONFIG_JSON, MODULES_JSON, read_json, read_module_types
from gte_sdk.runtime import golden, native, tokens
from gte_sdk.runtime import onnxruntime_devices as providers
from gte_sdk.runtime import onnxruntime_graph as session
from gte_sdk.runtime.idle_unload import Loaded

ENGINES = ("auto", "native", "onnxruntime")

RunIds = Callable[[Sequence[Sequence[int]], int | None], NDArray[np.float32]]


class Engine(NamedTuple):
    name: str
    """One of ENGINES but "auto"."""
    device: str
    """Where the graph really runs: "cpu" or "cuda"."""
    variant: str
    """Which graph of the model runs: "fp32", "fp16" or "int8"."""
    graph_name: str
    """The graph's place in the model directory."""
    dim: int
    threads: int
    """The most that one call uses."""
    kernels: str
    """What computes: the instruction set of the native engine, or onnxruntime's provider."""
    run: RunIds
    """Token ids of n texts and the most rows of a batch (None: no bound) to (n, dim) float32 unit rows."""
    close: Callable[[], None]
    """Gives the memory back when the calls that run have ended."""
    token_states: TokenStates | None
    """Token ids to the states that a mean over the tokens pools; None for a model that pools otherwise."""


class Settings(NamedTuple):
    """How a graph is run, whichever is chosen; see Embedder."""

    threads: int
    max_batch_tokens: int
    unload_after: float | None


def cut_rows(vectors_ND: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """(n, dim) float32: the first `dim` numbers of each row, scaled to unit length again (a row of zeros stays)."""
    cut_ND: NDArray[np.float32] = np.ascontiguousarray(vectors_ND[:, :dim])
    lengths_N1 = np.sqrt(np.einsum("nd,nd->n", cut_ND, cut_ND))[:, None]
    unit_ND: NDArray[np.float32] = cut_ND / np.maximum(lengths_N1, np.float32(1e-12))
    return unit_ND


def cut_engine(engine: Engine, dims: Sequence[int], dim: int) -> Engine:
    """The engine with vectors of `dim` numbers. Raises InputError for a width that the model was not trained for."""
    if dim == engine.dim:
        return engine
    if dim not in dims:
        known = f"it was trained for {', '.join(map(str, dims))}" if dims else "it was not trained to be cut"
        raise InputError(f"dim={dim}; this model's vectors have {engine.dim} numbers and {known}")
    return engine._replace(dim=dim, run=lambda ids, max_rows: cut_rows(engine.run(ids, max_rows), dim))


def open_engine(
    description: ModelDir,
    device: str,
    variant: str,
    engine: str,
    settings: Settings,
    tokenizer: Tokenizer,
) -> Engine:
    """Opens one graph of a model directory; the arguments are those of Embedder."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r}; one of {ENGINES} is supported")
    chosen, order = _choose_graphs(description, device, variant, engine)
    try:
        return _open_faithful(description, chosen, order, engine, settings, tokenizer)
    except DeviceError as error:
        if device != "auto" or chosen == "cpu":
            raise
        warnings.warn(f"the CPU is used: {error}", stacklevel=3)
        _, order = _choose_graphs(description, "cpu", variant, engine)
        return _open_faithful(description, "cpu", order, engine, settings, tokenizer)


def _open_faithful(
    description: ModelDir,
    device: str,
    order: Sequence[str],
    engine: str,
    settings: Settings,
    tokenizer: Tokenizer,
) -> Engine:
    """The first of the variants in `order` that gives its golden vectors here, on the engine asked for."""
    expected = golden.read_golden(description)
    ids = tokens.tokenize(tokenizer, expected.texts, description.max_tokens).ids if expected else []
    deviations: list[str] = []
    for variant, opened in _openings(description, device, order, engine, settings, tokens.pad_token_id(tokenizer)):
        if expected is not None and variant in expected.vectors:
            exact = opened.name == "native"
            if deviation := golden.deviation(expected.vectors[variant], opened.run(ids, None), variant, exact):
                opened.close()
                deviations.append(f"{opened.graph_name} on {opened.name} ({opened.kernels}) {deviation}")
                continue
        elif deviations:
            opened.close()  # nothing says that this one is better
            continue
        if deviations:
            warnings.warn(
                f"{'; '.join(deviations)}: this machine computes other vectors than the model was proved with, so "
                f"variant={variant!r} runs on {opened.name!r} instead",
                stacklevel=4,
            )
        if (opened.device, variant) in _SLOW:
            warnings.warn(f"variant={variant!r} on {opened.device!r}: {_SLOW[opened.device, variant]}", stacklevel=4)
        return opened
    if deviations:
        raise DeviceError(
            f"{description.path}: {'; '.join(deviations)}: this machine computes other vectors than the model was "
            "proved with, and nothing else that was allowed is right; leave engine='auto', or export variant='fp32' too"
        )
    refused = description.path / available_variants(description)[order[0]]
    raise InputError(
        f"engine='native' cannot run {refused} on device={device!r}: it takes int8 BERT graphs of our export, "
        "on a CPU; leave engine='auto'"
    )


def _openings(
    description: ModelDir, device: str, order: Sequence[str], engine: str, settings: Settings, pad_id: int
) -> Iterator[tuple[str, Engine]]:
    """Opens one graph after the other, for as long as the caller asks for the next."""
    graphs = available_variants(description)
    for variant in order:
        opened = None
        if engine != "onnxruntime" and device == "cpu" and variant == "int8":
            opened = _open_native(description, graphs[variant], settings)
            if opened is not None:
                yield variant, _checked_width(description, opened)
        if engine != "native":
            yield (
                variant,
                _checked_width(
                    description, _open_onnxruntime(description, graphs[variant], device, variant, settings, pad_id)
                ),
            )


def _checked_width(description: ModelDir, opened: Engine) -> Engine:
    if description.files and opened.dim != description.dim:
        raise ModelFormatError(
            f"{description.path / opened.graph_name} gives vectors of {opened.dim} numbers where {GTE_JSON} "
            f"records dim={description.dim}; export the model again"
        )
    return opened


def _open_native(description: ModelDir, graph_name: str, settings: Settings) -> Engine | None:
    if _behind_pooling(description):
        return None
    config = read_json(description.path / CONFIG_JSON)

    def load() -> native.NativeModel:
        path = checked_file(description, graph_name)
        model = native.open_native(path, config, description.pooling, settings.threads)
        if model is None:
            raise _NotCoveredError
        return model

    try:
        loaded = Loaded(load, settings.unload_after, survives_fork=True)
    except (_NotCoveredError, ValueError):
        return None  # onnxruntime says better than we do what is wrong with a file
    with loaded.use() as model:
        dim, kernels = model.dim, model.variant

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        # max_rows and the token budget bound padded buffers; this engine pads nothing and has a small budget itself.
        with loaded.use() as model:
            return native.run_native(model, ids)

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(ids), settings.threads):  # a text is one thread's work
            rows = ids[start : start + settings.threads]
            with loaded.use() as model:
                states_TD = native.run_native(model, rows, token_states=True)
            yield from np.split(states_TD, np.cumsum([len(row) for row in rows])[:-1])

    states = token_states if description.pooling == "mean" and config.get("num_hidden_layers") != 0 else None
    return Engine("native", "cpu", "int8", graph_name, dim, settings.threads, kernels, run, loaded.drop, states)


def _open_onnxruntime(
    description: ModelDir, graph_name: str, device: str, variant: str, settings: Settings, pad_id: int
) -> Engine:
    # Our export's graphs end in a pooling whose sums move with the number of texts (by 4e-8 in onnxruntime 1.31); the
    # states before it do not. A foreign graph may have more than pooling behind its states, so it keeps its own.
    pool_here = bool(description.files) and device == "cpu" and not _behind_pooling(description)

    def load() -> session.Graph:
        path = checked_file(description, graph_name)
        return session.open_graph(path, device, settings.threads, pool_here)

    # A forked child has none of the session's threads: a run would wait for them for ever, and so would its end.
    loaded = Loaded(load, settings.unload_after, survives_fork=False)
    with loaded.use() as graph:
        if graph.output_name != "sentence_embedding" and (behind := _behind_pooling(description)):
            raise ModelFormatError(
                f"{description.path / graph_name} ends before {MODULES_JSON}'s {behind[0]}, which follows "
                "the pooling; take a graph with sentence_embedding, such as python export/to_onnx.py makes"
            )
        dim, opened_device, kernels = graph.dim or description.dim, graph.device, providers.PROVIDERS[graph.device]
        has_states = graph.states_name is not None

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        vectors_ND = np.empty((len(ids), dim), dtype=np.float32)
        with loaded.use() as graph:
            for rows in tokens.batches_by_tokens([len(row) for row in ids], settings.max_batch_tokens, max_rows):
                batch = tokens.pad_batch([ids[row] for row in rows], pad_id)
                vectors_ND[rows] = session.run_graph(graph, batch, description.pooling, description.normalize)
        return vectors_ND

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for row in ids:
            with loaded.use() as graph:
                yield session.run_states(graph, tokens.pad_batch([row], pad_id))[0]

    threads, averages = settings.threads, description.pooling == "mean" and not _behind_pooling(description)
    states = token_states if has_states and averages else None
    return Engine("onnxruntime", opened_device, variant, graph_name, dim, threads, kernels, run, loaded.drop, states)


def _behind_pooling(description: ModelDir) -> list[str]:
    """Modules that are not done here, such as Dense: only the graph has them, so it has to pool too."""
    done_here = {"Transformer", "StaticEmbedding", "Pooling", "Normalize"}
    return [kind for kind in read_module_types(description.path) if kind not in done_here]


class _NotCoveredError(Exception):
    """A graph that the native engine leaves to onnxruntime; never leaves this module."""


_SLOW = {
    ("cuda", "int8"): "most of its nodes run on the CPU, far slower than variant='fp32' or 'fp16' would",
    ("cpu", "fp16"): "CPUs compute in float32 and convert at every node; variant='fp32' is faster and more exact",
}


def _choose_graphs(description: ModelDir, device: str, variant: str, engine: str) -> tuple[str, list[str]]:
    """The device, and the variants that the directory holds: the one to run, then those that may stand in for it."""
    graphs = available_variants(description)
    if not graphs:
        raise ModelFormatError(
            f"{description.path} holds no ONNX graph under the names that are known; "
            "export the checkpoint with: python export/to_onnx.py"
        )
    if variant != "auto" and variant not in graphs:
        raise InputError(f"variant={variant!r}; {description.path} holds {sorted(graphs)}")
    if device == "auto" and (set(graphs) == {"int8"} or variant == "int8" or engine == "native"):
        device = "cpu"  # onnxruntime's CUDA provider sends most int8 nodes back to the CPU
    if device != "cpu":
        device = providers.choose_device(device)
    proven_int8 = "int8" in graphs and description.fingerprint is not None
    order = ("int8", "fp32", "fp16") if proven_int8 and device == "cpu" else ("fp32", "fp16", "int8")
    present = [name for name in order if name in graphs]
    if variant != "auto":
        present.sort(key=lambda name: name != variant)
    return device, present


def refuse_closed(ids: Sequence[Sequence[int]], max_rows: int | None = None) -> NoReturn:
    """The `run` and the `token_states` of an engine that was closed."""
    raise InputError("this Embedder is closed; open another one")
