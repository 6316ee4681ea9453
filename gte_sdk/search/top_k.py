"""Exact cosine ranking of plain arrays, and the checks of vectors that everything which takes vectors shares.

The kernel computes the documents' lengths in the same pass as the scores, so rows need not be of unit length and
nothing is copied. It never holds a (q, n) matrix.
"""

import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import InputError, InputTypeError
from gte_sdk.threads import available_threads


class TopK(NamedTuple):
    scores: NDArray[np.float32]
    """(q, k), in [-1, 1], descending in each row."""
    indices: NDArray[np.int64]
    """(q, k), rows of `documents`."""


def top_k_cosine(
    queries: NDArray[np.float32], documents: NDArray[np.float32], k: int, *, threads: int | None = None
) -> TopK:
    """The k documents of highest cosine for each query, exact, in one pass over the documents.

    queries: (q, d) or (d,), which counts as one row. documents: (n, d). Both float32, of any length: the score is
    q.d / (|q||d|) in [-1, 1], and 0 where a row is all zeros. Rows that are equal have equal scores.
    k: 0 to n. k=0 gives arrays of shape (q, 0).
    threads: at most so many; None takes what `available_threads` says. The result does not depend on it.

    Returns scores (q, k) and indices (q, k), score descending, ties by lower index.
    Raises InputTypeError for an array of another dtype (nothing is converted behind your back), InputError for k > n,
    another dimension, NaN or infinity; the message has the row. Documents whose values are not adjacent in memory
    (a transposed matrix) are copied once.
    """
    queries_QD = checked_queries(queries)
    documents_ND = checked_matrix("documents", documents)
    query_dim, dim = queries_QD.shape[1], documents_ND.shape[1]
    if dim > _kernels.MAX_DIM:
        raise InputError(f"vectors of dimension {dim} exceed {_kernels.MAX_DIM}")
    if query_dim != dim:
        raise InputError(f"queries have dimension {query_dim}, documents {dim}; embed both with one model")
    k = checked_k(k)
    if k > len(documents_ND):
        raise InputError(f"k={k} exceeds {len(documents_ND)} documents")
    if k == 0 or len(queries_QD) == 0:
        return TopK(np.zeros((len(queries_QD), k), np.float32), np.zeros((len(queries_QD), k), np.int64))
    scores, indices, bad_row = _kernels.search(
        queries_QD, documents_ND.view(np.uint8), k, threads=thread_count(threads)
    )
    if bad_row >= 0:
        raise not_finite("documents", bad_row)
    return TopK(scores, indices)


def checked_queries(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries (q, d), contiguous and finite, from (q, d) or (d,)."""
    if isinstance(queries, np.ndarray) and queries.ndim == 1:
        queries = queries[np.newaxis, :]
    queries_QD = np.ascontiguousarray(checked_matrix("queries", queries))
    check_finite("queries", queries_QD)
    return queries_QD


def checked_matrix(name: str, value: Any) -> NDArray[np.float32]:
    """`value` if it is a float32 matrix with at least one column; copied only where the values of a row lie apart."""
    if not isinstance(value, np.ndarray):
        raise InputTypeError(f"{name} is a {type(value).__name__}; give a numpy array of float32")
    if value.dtype != np.float32:
        raise InputTypeError(f"{name} has dtype {value.dtype}; convert it with {name}.astype(np.float32)")
    if value.ndim != 2 or value.shape[1] == 0:
        raise InputError(f"{name} has shape {value.shape}; give a matrix with one vector in each row")
    if not value.flags.aligned or (value.shape[1] > 1 and value.strides[1] != value.itemsize):
        return np.ascontiguousarray(value)
    return value


def check_finite(name: str, vectors_ND: NDArray[np.float32]) -> None:
    """Raises InputError with the first row that holds NaN or an infinity."""
    finite_N = np.isfinite(vectors_ND).all(axis=1)
    if not finite_N.all():
        raise not_finite(name, int(np.argmin(finite_N)))


def not_finite(name: str, row: int) -> InputError:
    return InputError(f"{name} row {row} holds NaN or an infinity; remove or replace that row")


def checked_k(k: int) -> int:
    """k as an int of at least 0."""
    try:
        k = operator.index(k)
    except TypeError:
        raise InputTypeError(f"k is a {type(k).__name__}; give an int") from None
    if k < 0:
        raise InputError(f"k={k} is negative; give 0 or more")
    return k


def thread_count(threads: int | None) -> int:
    """The threads to use: what was asked for, or all that this process may have."""
    if threads is None:
        return available_threads()
    if threads < 1:
        raise InputError(f"threads={threads}; give at least 1, or None for all that this process may use")
    return threads
