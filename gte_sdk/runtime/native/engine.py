"""The native engine: the family's models and token tables of our export on the C++ encoder, csrc/encoder/encoder.hpp.

Texts are packed without padding and all sums have a fixed order, so a text's vector has the same bits in any batch, on
any number of threads and on every CPU. It is also the fastest engine on a CPU (docs/experiments.md) and starts in
milliseconds. ONNX Runtime runs the graphs of other architectures (gte_sdk/runtime/onnxruntime/).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import ModelDir, read_modules_only_in_graph
from gte_sdk.model_files.published import ADAPTER_CONFIG_JSON, MODULES_JSON, ModelPath
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.native.build import build_encoder
from gte_sdk.runtime.native.description import EncoderWeights, NotCoveredError
from gte_sdk.runtime.native.int8_graph import read_int8_graph
from gte_sdk.runtime.native.weights import read_weights

# Changes whenever the bits of the vectors change: golden vectors of another version are compared with a tolerance.
# tests/kernels/bert_self_test.cpp pins the bits.
ARITHMETIC = "native 1"
# The tokens that a thread takes through all layers at a time: its buffers (2 MB at 384 dimensions) stay in the cache.
BATCH_TOKENS = 256


class NativeModel(NamedTuple):
    encoder: Any
    """A _kernels.Encoder; safe to use from many threads at once."""
    dim: int
    threads: int
    instruction_set: str
    """One of _kernels.encoder_instruction_sets()."""
    is_table: bool
    """Whether it is a table of tokens, without layers."""


def open_native(description: ModelDir, name: str, variant: str, settings: EngineSettings) -> Engine:
    """The engine for a file of a model directory: its graph in fp32 or our int8, or its weights in safetensors.

    Raises NotCoveredError with the reason for what only onnxruntime can run.
    """
    refuse_other_modules(description)

    def load() -> NativeModel:
        try:
            weights = read_weights(description, name, variant)
            return load_encoder(weights.reading(description.max_tokens), settings.threads)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise NotCoveredError(f"it is no encoder of the family: {error}") from error

    return native_engine(load, description, name, variant, settings)


def refuse_other_modules(description: ModelDir) -> None:
    """Raises NotCoveredError for a model of more than an encoder and its pooling."""
    if only_in_graph := read_modules_only_in_graph(description):
        raise NotCoveredError(f"{MODULES_JSON} names {only_in_graph[0]}, which only a graph computes")
    if description.dense:
        raise NotCoveredError("dense layers follow its pooling")
    if (description.path / ADAPTER_CONFIG_JSON).is_file():
        raise NotCoveredError(f"{ADAPTER_CONFIG_JSON} adds an adapter to its weights, and transformers applies it")


def native_engine(
    load: Callable[[], NativeModel], description: ModelDir, graph_name: str, variant: str, settings: EngineSettings
) -> Engine:
    """The engine around a model that `load` opens, now and after each time that it was unloaded.

    Raises what `load` raises.
    """
    loaded = Loaded(load, settings.unload_after, survives_fork=True)
    with loaded.use() as model:
        dim, instruction_set, is_table = model.dim, model.instruction_set, model.is_table

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        # max_rows and the token budget bound padded buffers; this engine pads nothing and has a small budget itself.
        with loaded.use() as model:
            return run_native(model, ids)

    def token_states(ids: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(ids), settings.threads):  # which is work for all of them
            rows = ids[start : start + settings.threads]
            with loaded.use() as model:
                states_TD = run_native(model, rows, token_states=True)
            yield from np.split(states_TD, np.cumsum([len(row) for row in rows])[:-1])

    return Engine(
        name="native",
        device="cpu",
        variant=variant,
        graph_name=graph_name,
        dim=dim,
        threads=settings.threads,
        instruction_set=instruction_set,
        run=run,
        close=loaded.drop,
        token_states=token_states if description.pooling == "mean" and not is_table else None,
    )


def load_native(
    path: ModelPath, config: Mapping[str, Any], pooling: str, threads: int, instruction_set: str = ""
) -> NativeModel | None:
    """The model of an int8 graph that our export wrote, or None for a graph that the C++ encoder does not cover.

    config: the content of config.json. instruction_set: one of those that the CPU has.
    """
    try:
        return load_encoder(read_int8_graph(path, config, pooling), threads, instruction_set)
    except (NotCoveredError, LookupError, TypeError, ValueError, OverflowError):
        return None  # another graph or a damaged file: onnxruntime's message says what is wrong with it


def load_encoder(weights: EncoderWeights, threads: int, instruction_set: str = "") -> NativeModel:
    """The model of a description, whose layers are read. Raises NotCoveredError, or ValueError for wrong shapes."""
    encoder = build_encoder(weights)
    chosen = instruction_set or _kernels.encoder_instruction_sets()[-1]
    return NativeModel(encoder, weights.hidden, threads, chosen, is_table=weights.is_table)


def run_native(model: NativeModel, ids: Sequence[Sequence[int]], token_states: bool = False) -> NDArray[np.float32]:
    """(n, dim) unit rows of n texts, given as token ids with their special tokens.

    token_states: the last states of all tokens instead, text after text (tokens, dim), as they are before pooling.
    """
    token_ids, starts = pack_texts(ids)
    rows_ND = np.empty((starts[-1] if token_states else len(ids), model.dim), dtype=np.float32)
    try:
        model.encoder.encode(
            token_ids,
            starts,
            rows_ND,
            BATCH_TOKENS,
            model.threads,
            model.instruction_set,
            token_states,
        )
    except ValueError as error:
        raise ModelFormatError(
            f"the encoder failed on {len(ids)} texts with token ids up to {token_ids.max(initial=0)}: {error}; "
            "graph and tokenizer.json belong to different models"
        ) from error
    return rows_ND


def pack_texts(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The token ids of all texts, one text after the other, and where each begins; last, where all end.

    An id that is out of range for the encoder stays so: tokenizer.json counts in 32 bits without a sign.
    """
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=starts[1:])
    token_ids = np.fromiter(chain.from_iterable(ids), np.int64, starts[-1])
    return np.minimum(token_ids, np.iinfo(np.int32).max).astype(np.int32), starts
