"""The rows of an index at one moment. Rows are appended, never changed: a search may read one state while others add.

A removed row stays in place and is left out of `live`; the next growth of the arrays, which copies them anyway, or
`compacted` leaves it behind. Growth is by doubling, so an addition costs O(1) for each row in the long run.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.search.index_file import stored_row_bytes

# Vectors that are encoded at a time: bounds the copies that an addition makes on its way.
_CHUNK_ROWS = 16_384


class IndexRows(NamedTuple):
    rows: NDArray[np.uint8]
    """(capacity, stored bytes) as `_kernels.encode` makes them; those from row_count on are free."""
    scales: NDArray[np.float32]
    """(capacity,) for int8 and binary, else (0,)."""
    floats: NDArray[np.uint8] | None
    """(capacity, 4 * dim), the float32 vectors for rescoring."""
    ids: NDArray[Any]
    """(capacity,) int64, or object that holds str."""
    row_count: int
    live: NDArray[np.uint32] | None
    """Rows that are not removed, ascending; None while that is all of them."""


def empty_rows(dim: int, dtype: str, keep_floats: bool) -> IndexRows:
    return IndexRows(
        rows=np.empty((0, stored_row_bytes(dim, dtype)), np.uint8),
        scales=np.empty(0, np.float32),
        floats=np.empty((0, 4 * dim), np.uint8) if keep_floats else None,
        ids=np.empty(0, np.int64),
        row_count=0,
        live=None,
    )


def live_count(state: IndexRows) -> int:
    return state.row_count if state.live is None else len(state.live)


def live_rows(state: IndexRows) -> NDArray[np.uint32]:
    return np.arange(state.row_count, dtype=np.uint32) if state.live is None else state.live


def rows_of_mask(state: IndexRows, mask_N: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """The rows of a mask over the live rows, ascending."""
    chosen = np.flatnonzero(mask_N)
    return chosen.astype(np.uint32) if state.live is None else state.live[chosen]


def without_rows(state: IndexRows, gone: Sequence[int]) -> IndexRows:
    if not gone:
        return state
    keep_N = np.ones(state.row_count, np.bool_)
    keep_N[list(gone)] = False
    live = live_rows(state)
    return state._replace(live=live[keep_N[live]])


def compacted(state: IndexRows, capacity: int) -> IndexRows:
    """The live rows alone, in new arrays of at least `capacity` rows."""
    count = live_count(state)
    kept = slice(0, state.row_count) if state.live is None else state.live

    def copy(array: NDArray[Any]) -> NDArray[Any]:
        larger = np.empty((max(capacity, count), *array.shape[1:]), array.dtype)
        larger[:count] = array[kept]
        return larger

    return IndexRows(
        rows=copy(state.rows),
        scales=copy(state.scales) if len(state.scales) else state.scales,
        floats=None if state.floats is None else copy(state.floats),
        ids=copy(state.ids),
        row_count=count,
        live=None,
    )


def appended(state: IndexRows, vectors_ND: NDArray[np.float32], ids: Sequence[int | str], dtype: str) -> IndexRows:
    """`state`, which must have the room (see `compacted`), with new rows at its end."""
    first, last = state.row_count, state.row_count + len(vectors_ND)
    scales = state.scales
    if dtype in ("int8", "binary") and len(scales) == 0:
        scales = np.empty(len(state.rows), np.float32)
    for start in range(0, len(vectors_ND), _CHUNK_ROWS):
        chunk = np.ascontiguousarray(vectors_ND[start : start + _CHUNK_ROWS])
        place = slice(first + start, first + start + len(chunk))
        encoded, chunk_scales = _kernels.encode(chunk, dtype)
        state.rows[place] = encoded
        if len(scales):
            scales[place] = chunk_scales
        if state.floats is not None:
            state.floats[place] = chunk.view(np.uint8)
    state.ids[first:last] = ids
    live = state.live
    if live is not None:
        live = np.concatenate([live, np.arange(first, last, dtype=np.uint32)])
    return state._replace(scales=scales, row_count=last, live=live)


def decoded_row(state: IndexRows, row: int, dim: int, dtype: str) -> NDArray[np.float32]:
    """The vector (dim,) that is stored: as it was added for float32, else its direction, of about unit length."""
    stored = state.rows[row] if state.floats is None else state.floats[row]
    vector: NDArray[np.float32]
    if dtype == "float32" or state.floats is not None:
        vector = stored.view(np.float32).copy()
    elif dtype == "float16":
        vector = stored.view(np.float16)[:dim].astype(np.float32)
    elif dtype == "int8":
        vector = stored.view(np.int8)[:dim] * state.scales[row]
    else:
        vector = (1 - 2 * np.unpackbits(stored, count=dim, bitorder="little").astype(np.float32)) * state.scales[row]
    return vector
