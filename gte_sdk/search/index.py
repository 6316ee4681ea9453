"""An exact vector index: add, remove, update, search with filters and rescoring, save and open.

A search takes one `IndexRows`, which never changes, so it needs no lock while others add. A filter becomes a list of
rows, and the same kernel runs over these rows only. Ties go to the row that was added first.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.checks import check_count, check_finite, check_path, checked_matrix, checked_queries, not_finite
from gte_sdk.errors import InputError, InputTypeError, ModelMismatchError
from gte_sdk.search.index_file import ROW_TYPES, IndexContent, read_index, write_index
from gte_sdk.search.index_ids import MAX_ID, Id, Ids, checked_ids, checked_ids_of_rows, ids_in_order, plain_id
from gte_sdk.search.index_rows import (
    IndexRows,
    appended,
    compacted,
    decoded_row,
    empty_rows,
    live_count,
    live_rows,
    rows_of_mask,
    without_rows,
)
from gte_sdk.search.top_k import thread_count
from gte_sdk.search.where import Where, check_id_type, check_mask, mask_or_ids


class SearchResult(NamedTuple):
    """What `Index.search` returns."""

    scores: NDArray[np.float32]
    """(q, k), cosines in [-1, 1], descending in each row."""
    ids: NDArray[Any]
    """(q, k): int64, or object arrays of str if the ids of the index are str."""


class Index:
    """A vector index: vectors stored by id, searched exactly by cosine.

    Many threads can search while others add and remove. Each search sees the index before or after a change. A pickle
    or copy holds the rows, without the removed ones.
    """

    def __init__(
        self, dim: int, dtype: str = "float32", fingerprint: str | None = None, *, keep_floats: bool = False
    ) -> None:
        """Makes an empty index.

        Args:
            dim: The number of dimensions of every vector, 1 to 65536.
            dtype: How vectors are stored and compared. "float32" takes 4 bytes for each value and is exact. "float16"
                takes 2 bytes, with cosines accurate to about 0.0005. "int8" takes 1 byte, with cosines accurate to
                about 0.005; each row has its own range, so its codes depend on no other row. "binary" takes 1 bit,
                the sign, and gives a coarse cosine, for `rescore`.
            fingerprint: That of the model that made the vectors (`Embedder.fingerprint`). Vectors from another model
                are refused. An empty index without a fingerprint takes that of the first vectors.
            keep_floats: Keeps the float32 vectors in addition to int8 or binary rows, for `search(rescore=...)`. In
                an index opened with mmap=True they stay on disk, except for the rows that are rescored.

        Raises:
            InputError: An argument out of its range.

        Examples:
            >>> import gte_sdk
            >>> index = gte_sdk.Index(384)
            >>> index.add(gte_sdk.embed(["a cat", "the stock exchange"]), ids=["pet", "money"])
            ['pet', 'money']
            >>> index.search(gte_sdk.embed("kittens"), k=1).ids.tolist()
            [['pet']]
        """
        if dtype not in ROW_TYPES:
            raise InputError(f"dtype={dtype!r}; give one of {', '.join(ROW_TYPES)}")
        if keep_floats and dtype not in ("int8", "binary"):
            raise InputError(f"keep_floats=True with dtype={dtype!r}; it is for int8 and binary")
        self.dim = check_count("dim", dim, most=_kernels.MAX_DIM)
        self.dtype = dtype
        self.fingerprint = _checked_fingerprint(fingerprint)
        self._rows = empty_rows(self.dim, dtype, keep_floats)
        self._row_of: dict[Id, int] | None = {}
        """Of every live id. None after an open, until something asks for it."""
        self._next_id = 0
        self._lock = Lock()

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, mmap: bool = True, fingerprint: str | None = None, verify: bool = True
    ) -> "Index":
        """Opens a saved index.

        Args:
            path: A file that `save` wrote.
            mmap: Reads rows from disk as searches need them, shared by all processes. Adding to such an index copies
                it into memory. Replace the file only with `save`: changing it in place changes the rows of this index.
            fingerprint: That of the model in use. If the file has another one, ModelMismatchError is raised.
            verify: Checks every block against its checksum first, which reads the whole file once.

        Raises:
            ModelFormatError: A file that is truncated, damaged, newer, or not an index; names the block.
            ModelMismatchError: A file of another model.
        """
        content = read_index(check_path("path", path), mmap=mmap, verify=verify)
        index = cls(content.dim, content.dtype, content.fingerprint, keep_floats=content.floats is not None)
        index._check_fingerprint("queries", fingerprint)
        count = len(content.rows)
        index._rows = IndexRows(content.rows, content.scales, content.floats, content.ids, count, None)
        index._next_id = content.next_id
        index._row_of = None
        return index

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the index to one file (docs/index-format.md), atomically and without the removed rows.

        After a kill or a full disk, `path` is either the old file or the new one. Other threads can search and add
        meanwhile. The file holds the index as it was when `save` was called.

        Args:
            path: The file to write or replace.
        """
        with self._lock:
            state, next_id = self._rows, self._next_id
        count = state.row_count
        content = IndexContent(
            dim=self.dim,
            dtype=self.dtype,
            fingerprint=self.fingerprint,
            next_id=next_id,
            rows=state.rows[:count],
            scales=state.scales[:count],
            floats=None if state.floats is None else state.floats[:count],
            ids=state.ids[:count],
        )
        write_index(check_path("path", path), content, state.live)

    def __len__(self) -> int:
        return live_count(self._rows)

    def __repr__(self) -> str:
        return f"Index({self.dim}, {self.dtype!r}, {self.fingerprint!r}, rows={len(self)})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            # In arrays of their own: two indexes that share the free rows of one array would overwrite each other's.
            return {**self.__dict__, "_rows": compacted(self._rows, 0), "_row_of": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_lock": Lock()})

    def __contains__(self, id: object) -> bool:
        try:
            plain = plain_id(id)
        except InputTypeError:
            return False
        with self._lock:
            return plain in self._lookup()

    def __iter__(self) -> Iterator[tuple[Id, NDArray[np.float32]]]:
        """Yields pairs (id, vector (dim,)) in the order in which they were added, without later changes.

        With float32 or keep_floats, the vector is the one that was added. Otherwise it is the stored direction, with
        about unit length.
        """
        state = self._rows
        for row in live_rows(state).tolist():
            yield plain_id(state.ids[row]), decoded_row(state, row, self.dim, self.dtype)

    def add(self, vectors: NDArray[np.float32], ids: Ids | None = None, *, fingerprint: str | None = None) -> list[Id]:
        """Adds vectors and returns their ids.

        Args:
            vectors: (n, dim) float32, of any length.
            ids: n distinct int or str, of one type for the whole index. An id that exists gets the new vector, as the
                newest row. None takes the integers after the highest id so far.
            fingerprint: That of the model that made the vectors.

        Raises:
            InputError: NaN, a wrong number of dimensions or a repeated id. Nothing is added.
            ModelMismatchError: Vectors from another model. Nothing is added.
        """
        vectors_ND = checked_matrix("vectors", vectors)
        self._check_dim("vectors", vectors_ND)
        check_finite("vectors", vectors_ND)
        given_ids = None if ids is None else checked_ids_of_rows(ids, len(vectors_ND))
        with self._lock:
            self._check_fingerprint("vectors", fingerprint)
            new_ids = self._next_ids(len(vectors_ND)) if given_ids is None else given_ids
            if not new_ids:
                return new_ids
            state = self._of_id_type(new_ids[0])
            row_of = {} if given_ids is None else self._lookup()
            kept = without_rows(state, [row_of[id] for id in new_ids if id in row_of])
            state = self._with_room(kept, len(new_ids))
            are_renumbered = kept.live is not None and state.live is None
            first_row = state.row_count
            state = appended(state, vectors_ND, new_ids, self.dtype)
            next_id = max([self._next_id, *(id + 1 for id in new_ids if isinstance(id, int))])
            # Nothing has changed so far. If memory runs out below, the lookup is rebuilt from the rows.
            lookup, self._row_of = self._row_of, None
            if self.fingerprint is None and live_count(state) == len(new_ids):
                self.fingerprint = fingerprint
            self._rows, self._next_id = state, next_id
            if lookup is not None and not are_renumbered:
                lookup.update(zip(new_ids, range(first_row, state.row_count), strict=True))
                self._row_of = lookup
        return new_ids

    def get(self, ids: Id | Ids) -> NDArray[np.float32]:
        """The stored vectors of some ids, as `__iter__` yields them.

        Args:
            ids: A list of n ids, or one int or str.

        Returns:
            (n, dim) float32 in the order of the ids, or (dim,) for one id.

        Raises:
            InputError: An id that is not in the index.
        """
        if isinstance(ids, int | str | np.integer):
            vector_D: NDArray[np.float32] = self.get([plain_id(ids)])[0]
            return vector_D
        wanted = ids_in_order(ids)
        with self._lock:
            state, rows = self._rows, self._rows_of(wanted)
        vectors = [decoded_row(state, row, self.dim, self.dtype) for row in rows]
        return np.array(vectors, np.float32).reshape(-1, self.dim)

    def remove(self, ids: Ids) -> None:
        """Removes rows.

        Args:
            ids: The ids of the rows, of the index's type.

        Raises:
            InputError: An unknown id. Nothing is removed.
        """
        gone = checked_ids(ids)
        with self._lock:
            state = without_rows(self._rows, self._rows_of(gone))
            row_of = self._lookup()
            self._row_of = None
            self._rows = state
            for id in gone:
                del row_of[id]
            self._row_of = row_of

    def compact(self) -> None:
        """Frees the memory of removed and replaced rows now. Otherwise it is freed gradually, as the index grows."""
        with self._lock:
            self._rows = compacted(self._rows, 0)
            self._row_of = None

    def search(
        self,
        queries: NDArray[np.float32],
        k: int = 10,
        *,
        where: Where | None = None,
        rescore: int | None = None,
        fingerprint: str | None = None,
        threads: int | None = None,
    ) -> SearchResult:
        """Finds the k rows with the highest cosine for each query.

        Scores are in descending order. Ties go to the row that was added first. If fewer than k rows pass the filter,
        the result has that many columns.

        Args:
            queries: (q, dim) float32, or (dim,) for a single query.
            k: How many rows to find for each query.
            where: Which rows to search. A mask of len(self) bools in the order of iteration (an array or a list); a
                collection of ids, where unknown ids match nothing; or a function that is called with each id (one
                Python call for each row).
            rescore: Takes this many candidates from the int8 or binary rows, at least k, then ranks them by their
                float32 rows and returns those scores. It needs an index with keep_floats. For 384 binary dimensions,
                50 * k is a good start.
            fingerprint: That of the model that made the queries.
            threads: The most threads to use. None means all that this process may use. The result does not depend on
                it.

        Raises:
            InputError: NaN, a wrong number of dimensions, or `rescore` without the float rows.
            ModelMismatchError: Queries from another model.
        """
        queries_QD = checked_queries(queries)
        self._check_dim("queries", queries_QD)
        self._check_fingerprint("queries", fingerprint)
        k = check_count("k", k, least=0)
        state, selected = self._select(where)
        row_count = state.row_count if selected is None else len(selected)
        k = min(k, row_count)
        threads = thread_count(threads)
        if rescore is not None and check_count("rescore", rescore) and state.floats is None:
            raise InputError(f"rescore={rescore} needs the float rows: make the index with keep_floats=True")
        if k == 0 or len(queries_QD) == 0:
            shape = (len(queries_QD), k)
            return SearchResult(np.zeros(shape, np.float32), np.zeros(shape, state.ids.dtype))
        first_k = k if rescore is None else min(max(k, rescore), row_count)
        stored, scales = state.rows[: state.row_count], state.scales if len(state.scales) else None
        scores, rows, bad_row = _kernels.search(queries_QD, stored, first_k, self.dtype, scales, selected, threads)
        if bad_row < 0 and rescore is not None and state.floats is not None:
            candidates = np.sort(rows, axis=1).astype(np.uint32)
            floats = state.floats[: state.row_count]
            scores, rows, bad_row = _kernels.search_candidates(queries_QD, floats, k, "float32", candidates, threads)
        if bad_row >= 0:
            # `add` refuses such rows, so it comes from a file opened with verify=False or written by another program.
            raise not_finite("index", bad_row)
        return SearchResult(scores, state.ids[rows])

    def _select(self, where: Where | None) -> tuple[IndexRows, NDArray[np.uint32] | None]:
        """Returns a state and its rows to search, ascending; None for all rows."""
        if where is None:
            return self._rows, self._rows.live
        if callable(where):
            state = self._rows
            live = live_rows(state)
            mask = np.fromiter((bool(where(plain_id(id))) for id in state.ids[live]), np.bool_, len(live))
            return state, rows_of_mask(state, mask)
        wanted = mask_or_ids(where)
        if isinstance(wanted, np.ndarray):
            state = self._rows
            check_mask(wanted, live_count(state))
            return state, rows_of_mask(state, wanted)
        with self._lock:
            if self._rows.row_count:
                check_id_type(wanted, self._rows.ids.dtype)
            row_of = self._lookup()
            rows = {row_of[id] for id in wanted if id in row_of}
            return self._rows, np.array(sorted(rows), dtype=np.uint32)

    def _lookup(self) -> dict[Id, int]:
        """The row of every live id. Call it under the lock."""
        if self._row_of is None:
            live = live_rows(self._rows)
            self._row_of = dict(zip(self._rows.ids[live].tolist(), live.tolist(), strict=True))
        return self._row_of

    def _rows_of(self, ids: Sequence[Id]) -> list[int]:
        """The rows of these ids. Call it under the lock. Raises InputError for an unknown id."""
        row_of = self._lookup()
        unknown = [id for id in ids if id not in row_of]
        if unknown:
            raise InputError(f"id {unknown[0]!r} is not in the index")
        return [row_of[id] for id in ids]

    def _with_room(self, state: IndexRows, count: int) -> IndexRows:
        needed = state.row_count + count
        if needed > _kernels.MAX_ROWS:
            raise InputError(f"{needed} rows exceed the {_kernels.MAX_ROWS} that one index holds; use two")
        if needed <= len(state.rows):
            return state
        grown = live_count(state) + count
        return compacted(state, max(grown, min(2 * live_count(state), _kernels.MAX_ROWS)))

    def _of_id_type(self, id: Id) -> IndexRows:
        """Returns the rows, with ids of the type of `id` if there are no rows yet."""
        state = self._rows
        id_type = np.dtype(object if isinstance(id, str) else np.int64)
        if state.row_count == 0:
            return state._replace(ids=np.empty(len(state.rows), id_type))
        if id_type != state.ids.dtype:
            own = "str" if state.ids.dtype == object else "int"
            raise InputTypeError(f"id {id!r} is of another type than the {own} ids of this index")
        return state

    def _next_ids(self, count: int) -> list[Id]:
        if self._rows.ids.dtype == object and self._rows.row_count:
            raise InputTypeError("the ids of this index are str; give ids for the new vectors too")
        if self._next_id + count - 1 > MAX_ID:
            raise InputError(f"the next id of this index is {self._next_id}, the highest is {MAX_ID}; give ids")
        return list(range(self._next_id, self._next_id + count))

    def _check_dim(self, name: str, vectors_ND: NDArray[np.float32]) -> None:
        if vectors_ND.shape[1] != self.dim:
            raise InputError(f"{name} have dimension {vectors_ND.shape[1]}, the index {self.dim}")

    def _check_fingerprint(self, name: str, fingerprint: str | None) -> None:
        if _checked_fingerprint(fingerprint) is None or fingerprint == self.fingerprint:
            return
        if self.fingerprint is None and len(self) == 0:
            return
        own = self.fingerprint or "an unnamed model"
        raise ModelMismatchError(
            f"{name} come from model {fingerprint}, the index holds vectors of {own}; embed both with one model"
        )


def _checked_fingerprint(fingerprint: Any) -> str | None:
    """`fingerprint` if it is a text that a file can hold, or None."""
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise InputTypeError(f"fingerprint is {fingerprint!r:.80}; give a str, or None")
    if fingerprint == "" or (fingerprint and not fingerprint.isprintable()):
        raise InputError(f"fingerprint is {fingerprint!r:.80}; give the fingerprint of an Embedder, or None")
    return fingerprint
