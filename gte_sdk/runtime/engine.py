"""What an engine is: a NamedTuple with functions from token ids to unit vectors, the same for both engines."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.published import ModelPath

RunIds = Callable[[Sequence[Sequence[int]], int | None], NDArray[np.float32]]
"""Token ids of n texts and the most rows of a batch (None: no bound) to (n, dim) float32 unit rows."""
TokenStates = Callable[[Sequence[Sequence[int]]], Iterator[NDArray[np.float32]]]
"""The ids of texts, special tokens in place, to the states (t, hidden) of each one's tokens."""


class GoldenResult(NamedTuple):
    """Golden vectors that an engine gave when it was opened (golden.py)."""

    text_count: int
    made_by: str
    """The arithmetic of the native engine or the version of onnxruntime that made them."""


class Engine(NamedTuple):
    name: str
    """"native" or "onnxruntime"."""
    device: str
    """The device that the graph runs on: "cpu" or "cuda"."""
    variant: str
    """The variant of the model: "fp32", "fp16" or "int8"."""
    graph_name: str
    """The path of the graph inside the model directory."""
    dim: int
    threads: int
    """The most threads that one call uses."""
    instruction_set: str | None
    """Of the native engine, such as "avx2"; None for onnxruntime, which chooses itself."""
    run: RunIds
    close: Callable[[], None]
    """Frees the memory when the running calls have ended."""
    token_states: TokenStates | None
    """None for a model that pools otherwise than by a mean over its tokens' states."""
    golden: GoldenResult | None = None
    """None for a graph without golden vectors."""
    why_not_native: str | None = None
    """Of onnxruntime where the native engine was asked first: why it does not run the model."""


class EngineSettings(NamedTuple):
    """How any graph is run. The fields are parameters of Embedder."""

    threads: int
    max_batch_tokens: int
    unload_after: float | None


def cut_rows(vectors_ND: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """(n, dim) float32: the first `dim` numbers of each row, scaled to unit length again. A row of zeros stays zero.

    The one home of this cut: the server, export and training use it too.
    """
    cut_ND: NDArray[np.float32] = np.ascontiguousarray(vectors_ND[:, :dim])
    lengths_N1 = np.sqrt(np.einsum("nd,nd->n", cut_ND, cut_ND))[:, None]
    unit_ND: NDArray[np.float32] = cut_ND / np.maximum(lengths_N1, np.float32(1e-12))
    return unit_ND


def cut_engine(engine: Engine, dims: Sequence[int], dim: int) -> Engine:
    """The engine with vectors of `dim` dimensions. Raises InputError if the model was not trained for that."""
    if dim == engine.dim:
        return engine
    if dim not in dims:
        known = f"it was trained for {', '.join(map(str, dims))}" if dims else "it was not trained to be cut"
        raise InputError(f"dim={dim}; this model's vectors have {engine.dim} dimensions and {known}")
    return engine._replace(dim=dim, run=lambda ids, max_rows: cut_rows(engine.run(ids, max_rows), dim))


def refuse_not_finite(engine: Engine, graph: ModelPath) -> Engine:
    """The engine, with a ModelFormatError instead of a vector that has NaN or infinity."""

    def check(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(rows).all():
            raise ModelFormatError(
                f"{graph} gives vectors with NaN or infinity: the weights are damaged; export or download it again"
            )
        return rows

    states = engine.token_states
    return engine._replace(
        run=lambda ids, max_rows: check(engine.run(ids, max_rows)),
        token_states=None if states is None else lambda ids: map(check, states(ids)),
    )


def refuse_closed(ids: Sequence[Sequence[int]], max_rows: int | None = None) -> NoReturn:
    """The `run` and the `token_states` of a closed engine."""
    raise InputError("this Embedder is closed; open another one")
