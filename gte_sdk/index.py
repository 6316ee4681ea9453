"""An exact index of vectors under ids: add, remove, update, search with filters.

Rows are only ever appended: a removed row is left out of the searches until `compact`, an updated one is removed and
appended. So a search needs no lock: it reads one `_State`, whose rows nobody changes any more, while others add. A
filter becomes a list of rows, and the same kernel runs over fewer of them. Ties go to the row that was added first.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import InputError, InputTypeError, ModelMismatchError
from gte_sdk.top_k import TopK, check_finite, checked_k, checked_matrix, checked_queries, thread_count, top_k_cosine

__all__ = ["Index", "SearchResult", "TopK", "top_k_cosine"]

Id: TypeAlias = int | str
Ids: TypeAlias = Sequence[int] | Sequence[str] | NDArray[Any]
Where: TypeAlias = NDArray[np.bool_] | Collection[Any] | Callable[[Any], bool]


class SearchResult(NamedTuple):
    scores: NDArray[np.float32]
    """(q, k), cosines in [-1, 1], descending in each row."""
    ids: NDArray[Any]
    """(q, k): int64, or object that holds str where the ids of the index are str."""


class _State(NamedTuple):
    vectors: NDArray[np.float32]
    """(capacity, dim); rows from row_count on are free."""
    ids: NDArray[Any]
    """(capacity,) int64, or object for str."""
    row_count: int
    live: NDArray[np.uint32] | None
    """Rows that are not removed, ascending; None while that is all of them."""


class Index:
    """Vectors under ids, searched exactly by cosine.

    dim: of every vector. dtype: "float32". fingerprint: of the model that made the vectors (`Embedder.fingerprint`);
    with it, `add` and `search` refuse vectors that name another.

    Searches may run in many threads while others add and remove: each sees the index before or after a change.
    """

    def __init__(self, dim: int, dtype: str = "float32", fingerprint: str | None = None) -> None:
        if dim < 1:
            raise InputError(f"dim={dim}; give the dimension of the vectors, at least 1")
        if dtype != "float32":
            raise InputError(f"dtype={dtype!r}; give 'float32'")
        self.dim = dim
        self.dtype = dtype
        self.fingerprint = fingerprint
        self._state = _State(np.empty((0, dim), np.float32), np.empty(0, np.int64), 0, None)
        self._row_of: dict[Id, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return _live_count(self._state)

    def __contains__(self, id: object) -> bool:
        return id in self._row_of

    def __iter__(self) -> Iterator[tuple[Id, NDArray[np.float32]]]:
        """Pairs (id, vector (dim,)) in the order in which they were added; later changes are not seen."""
        state = self._state
        for row in _live_rows(state):
            yield _plain_id(state.ids[row]), state.vectors[row].copy()

    def add(self, vectors: NDArray[np.float32], ids: Ids | None = None, *, fingerprint: str | None = None) -> list[Id]:
        """Adds vectors (n, dim) float32 of any length; an id that is here already gets the new one, as the newest row.

        ids: n different int or str, one type for the whole index; None takes the integers after the highest so far.
        Returns the ids. Raises InputError for NaN, a wrong dimension or a repeated id, ModelMismatchError for vectors
        of another model; then nothing was added.
        """
        vectors_ND = checked_matrix("vectors", vectors)
        self._check_dim("vectors", vectors_ND)
        check_finite("vectors", vectors_ND)
        self._check_fingerprint("vectors", fingerprint)
        with self._lock:
            new_ids = self._next_ids(len(vectors_ND)) if ids is None else _checked_ids(ids, len(vectors_ND))
            if new_ids and self._row_of and type(new_ids[0]) is not type(next(iter(self._row_of))):
                raise InputTypeError(
                    f"id {new_ids[0]!r} is no {type(next(iter(self._row_of))).__name__}, as the others are"
                )
            state = self._state
            row_count = state.row_count + len(new_ids)
            if row_count > _kernels.MAX_ROWS:
                raise InputError(f"{row_count} rows exceed the {_kernels.MAX_ROWS} that one index holds; use two")
            replaced = [self._row_of[id] for id in new_ids if id in self._row_of]
            id_type = np.dtype(object if new_ids and isinstance(new_ids[0], str) else np.int64)
            kept_ids = state.ids if new_ids == [] or state.ids.dtype == id_type else np.empty(0, id_type)
            stored = _with_room(state.vectors, state.row_count, row_count)
            stored_ids = _with_room(kept_ids, state.row_count if len(kept_ids) else 0, row_count)
            stored[state.row_count : row_count] = vectors_ND
            stored_ids[state.row_count : row_count] = new_ids
            self._row_of.update(zip(new_ids, range(state.row_count, row_count), strict=True))
            appended = state._replace(vectors=stored, ids=stored_ids, row_count=row_count)
            if state.live is not None:
                new_rows = np.arange(state.row_count, row_count, dtype=np.uint32)
                appended = appended._replace(live=np.concatenate([state.live, new_rows]))
            self._state = _without_rows(appended, replaced)
            if self.fingerprint is None and len(new_ids) == row_count:
                self.fingerprint = fingerprint
        return new_ids

    def remove(self, ids: Ids) -> None:
        """Removes the rows of these ids. Raises InputError for an id that is not here; then nothing was removed."""
        with self._lock:
            gone = _checked_ids(ids, len(ids))
            for id in gone:
                if id not in self._row_of:
                    raise InputError(f"id {id!r} is not in the index")
            self._state = _without_rows(self._state, [self._row_of.pop(id) for id in gone])

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        where: Where | None = None,
        fingerprint: str | None = None,
        threads: int | None = None,
    ) -> SearchResult:
        """The k rows of highest cosine for each query: scores descending, ties by the row that was added first.

        queries: (q, dim) or (dim,), which counts as one row. Where fewer than k rows pass the filter, the result has
        that many columns.
        where: a bool array (len(self),) in the order of iteration; or a collection of ids, of which unknown ones match
        nothing; or a function that is asked for each id (a Python call for each row).
        """
        queries_QD = checked_queries(queries)
        self._check_dim("queries", queries_QD)
        self._check_fingerprint("queries", fingerprint)
        k = checked_k(k)
        state, selected = self._select(where)
        k = min(k, state.row_count if selected is None else len(selected))
        if k == 0 or len(queries_QD) == 0:
            shape = (len(queries_QD), k)
            return SearchResult(np.zeros(shape, np.float32), np.zeros(shape, state.ids.dtype))
        scores, rows, _ = _kernels.search(
            queries_QD, state.vectors[: state.row_count], k, selected, thread_count(threads)
        )
        return SearchResult(scores, state.ids[rows])

    def _select(self, where: Where | None) -> tuple[_State, NDArray[np.uint32] | None]:
        """A state and the rows of it to search, ascending; None for all of them."""
        if where is None:
            return self._state, self._state.live
        if callable(where):
            state = self._state
            live = _live_rows(state)
            mask = np.fromiter((bool(where(_plain_id(id))) for id in state.ids[live]), np.bool_, len(live))
            return state, live[mask]
        if isinstance(where, np.ndarray) and where.dtype == np.bool_:
            state = self._state
            live = _live_rows(state)
            if where.shape != live.shape:
                raise InputError(f"where has shape {where.shape}; a mask of this index has shape {live.shape}")
            return state, live[where]
        with self._lock:
            wanted = where.tolist() if isinstance(where, np.ndarray) else where
            rows = {self._row_of[id] for id in wanted if id in self._row_of}
            return self._state, np.array(sorted(rows), dtype=np.uint32)

    def _next_ids(self, count: int) -> list[Id]:
        highest = -1
        for id in self._row_of:
            if isinstance(id, str):
                raise InputTypeError("the ids of this index are str; give ids for the new vectors too")
            highest = max(highest, id)
        return list(range(highest + 1, highest + 1 + count))

    def _check_dim(self, name: str, vectors_ND: NDArray[np.float32]) -> None:
        if vectors_ND.shape[1] != self.dim:
            raise InputError(f"{name} have dimension {vectors_ND.shape[1]}, the index {self.dim}")

    def _check_fingerprint(self, name: str, fingerprint: str | None) -> None:
        if fingerprint is None or fingerprint == self.fingerprint:
            return
        if self.fingerprint is None and len(self) == 0:
            return
        own = self.fingerprint or "an unnamed model"
        raise ModelMismatchError(
            f"{name} come from model {fingerprint}, the index holds vectors of {own}; embed both with one model"
        )


def _checked_ids(ids: Ids, count: int) -> list[Id]:
    """`ids` as `count` different plain int or str, all of one type."""
    plain: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if len(plain) != count:
        raise InputError(f"{len(plain)} ids for {count} vectors")
    seen: set[Id] = set()
    for position, id in enumerate(plain):
        if type(id) not in (int, str) or type(id) is not type(plain[0]):
            raise InputTypeError(f"ids[{position}] is {id!r}; give all ids as int, or all as str")
        if isinstance(id, int) and not -(2**63) <= id < 2**63:
            raise InputError(f"ids[{position}] is {id}; an int id has 64 bits")
        if id in seen:
            raise InputError(f"ids[{position}] is {id!r} for the second time")
        seen.add(id)
    return plain


def _plain_id(id: Any) -> Id:
    plain: Id = id if isinstance(id, str) else int(id)
    return plain


def _with_room(array: NDArray[Any], used: int, wanted: int) -> NDArray[Any]:
    """`array` if it has `wanted` rows, else a copy of its first `used` rows with room for at least twice as many.

    A search that still reads the old array keeps it alive.
    """
    if wanted <= len(array):
        return array
    larger = np.empty((max(wanted, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger


def _live_count(state: _State) -> int:
    return state.row_count if state.live is None else len(state.live)


def _live_rows(state: _State) -> NDArray[np.uint32]:
    return np.arange(state.row_count, dtype=np.uint32) if state.live is None else state.live


def _without_rows(state: _State, rows: Sequence[int]) -> _State:
    if not rows:
        return state
    return state._replace(live=np.setdiff1d(_live_rows(state), np.array(rows, np.uint32), assume_unique=True))
