"""From a model's name to a function that turns token ids into unit vectors: which files, which graph, what runs it.

Two engines run graphs. "native", the C++ encoder, takes the int8 graphs of our export on a CPU: it is the faster one,
and a text's vector does not depend on its batch. "onnxruntime" takes every other graph, and every other device.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import hub, model_dir, native, session, tokens
from gte_sdk.errors import InputError, ModelFormatError

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
    run: RunIds
    """Token ids of n texts and the most rows of a batch (None: no bound) to (n, dim) float32 unit rows."""


def locate_model(model: str | PathLike[str], variant: str, revision: str | None, offline: bool | None) -> Path:
    """The local directory or bundle of a bundled name, a directory, a bundle, or a Hub name."""
    name = str(model)
    if name in model_dir.bundled_models():
        return model_dir.bundled_model_path(name)
    path = Path(model)
    if path.is_dir() or path.is_file():
        return path
    if isinstance(model, str) and hub.is_hub_name(name):
        return hub.fetch_model(name, variant, revision, offline)
    raise ModelFormatError(
        f"model={name!r} is neither a bundled model ({', '.join(model_dir.bundled_models())}), nor a directory "
        "or bundle, "
        "nor a Hub name like 'owner/model'"
    )


def open_engine(
    description: model_dir.ModelDir,
    device: str,
    variant: str,
    engine: str,
    threads: int,
    max_batch_tokens: int,
    pad_id: int,
) -> Engine:
    """Opens one graph of a model directory; the arguments are those of Embedder."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r}; one of {ENGINES} is supported")
    device, variant, graph_name = _choose_graph(description, device, variant, engine)
    path = model_dir.checked_file(description, graph_name)
    opened = None
    if engine != "onnxruntime" and device == "cpu" and variant == "int8":
        opened = _open_native(description, path, graph_name, threads)
    if opened is None and engine == "native":
        raise InputError(
            f"engine='native' cannot run {path} on device={device!r}: it takes int8 BERT graphs of our export, "
            "on a CPU; leave engine='auto'"
        )
    if opened is None:
        opened = _open_onnxruntime(description, path, graph_name, device, variant, threads, max_batch_tokens, pad_id)
    if description.files and opened.dim != description.dim:
        raise ModelFormatError(
            f"{path} gives vectors of {opened.dim} numbers where {model_dir.GTE_JSON} records "
            f"dim={description.dim}; export the model again"
        )
    return opened


def _open_native(
    description: model_dir.ModelDir, path: model_dir.ModelPath, graph_name: str, threads: int
) -> Engine | None:
    if _has_dense(description):
        return None
    config = model_dir.read_json(description.path / model_dir.CONFIG_JSON)
    try:
        model = native.open_native(path, config, description.pooling, threads)
    except ValueError:
        return None  # onnxruntime says better than we do what is wrong with a file
    if model is None:
        return None
    # max_rows and the token budget bound padded buffers; this engine pads nothing and has a small budget of its own.
    return Engine("native", "cpu", "int8", graph_name, model.dim, lambda ids, max_rows: native.run_native(model, ids))


def _open_onnxruntime(
    description: model_dir.ModelDir,
    path: model_dir.ModelPath,
    graph_name: str,
    device: str,
    variant: str,
    threads: int,
    max_batch_tokens: int,
    pad_id: int,
) -> Engine:
    # Our export's graphs end in a pooling whose sums move with the number of texts (by 4e-8 in onnxruntime 1.31); the
    # states before it do not. A foreign graph may have more than pooling behind its states, so it keeps its own.
    pool_here = bool(description.files) and device == "cpu" and not _has_dense(description)
    graph = session.open_graph(path, device, threads, pool_here)
    dim = graph.dim or description.dim

    # A forked child has none of the session's threads: a run would wait for them for ever, and so would the session's
    # end. So the child opens its own, and the parent's is kept.
    graphs = {os.getpid(): graph}

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        if os.getpid() not in graphs:
            graphs[os.getpid()] = session.open_graph(path, device, threads, pool_here)
        own_graph = graphs[os.getpid()]
        vectors_ND = np.empty((len(ids), dim), dtype=np.float32)
        for rows in tokens.batches_by_tokens([len(row) for row in ids], max_batch_tokens, max_rows):
            batch = tokens.pad_batch([ids[row] for row in rows], pad_id)
            vectors_ND[rows] = session.run_graph(own_graph, batch, description.pooling, description.normalize)
        return vectors_ND

    if (graph.device, variant) in _SLOW:
        warnings.warn(f"variant={variant!r} on {graph.device!r}: {_SLOW[graph.device, variant]}", stacklevel=4)
    return Engine("onnxruntime", graph.device, variant, graph_name, dim, run)


def _has_dense(description: model_dir.ModelDir) -> bool:
    """Whether linear layers follow the pooling; only the graph has their weights, so it has to pool too."""
    return "Dense" in model_dir.read_module_types(description.path)


_SLOW = {
    ("cuda", "int8"): "most of its nodes run on the CPU, far slower than variant='fp32' or 'fp16' would",
    ("cpu", "fp16"): "CPUs compute in float32 and convert at every node; variant='fp32' is faster and more exact",
}


def _choose_graph(description: model_dir.ModelDir, device: str, variant: str, engine: str) -> tuple[str, str, str]:
    """The device, the variant, and the graph's name in the directory."""
    graphs = model_dir.available_variants(description)
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
        device = session.choose_device(device)
    if variant == "auto":
        proven_int8 = "int8" in graphs and description.fingerprint is not None
        order = ("int8", "fp32", "fp16") if proven_int8 and device == "cpu" else ("fp32", "fp16", "int8")
        variant = next(name for name in order if name in graphs)
    return device, variant, graphs[variant]


def refuse_closed(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
    """The `run` of an engine that was closed."""
    raise InputError("this Embedder is closed; open another one")
