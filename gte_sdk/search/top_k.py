"""Exact cosine ranking of plain arrays.

The kernel computes the documents' norms in the same pass as the scores, so rows need not have unit length and nothing
is copied. It never stores a (q, n) matrix.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.checks import check_count, check_threads, checked_matrix, checked_queries, not_finite
from gte_sdk.errors import InputError
from gte_sdk.threads import available_threads


class TopK(NamedTuple):
    """What `top_k_cosine` returns."""

    scores: NDArray[np.float32]
    """(q, k), in [-1, 1], descending in each row."""
    indices: NDArray[np.int64]
    """(q, k), rows of `documents`."""


def top_k_cosine(
    queries: NDArray[np.float32], documents: NDArray[np.float32], k: int, *, threads: int | None = None
) -> TopK:
    """Finds the k documents with the highest cosine for each query: exact, in one pass over the documents.

    The score is q.d / (|q||d|) in [-1, 1], or 0 if a row is all zeros. Equal rows have equal scores. Documents whose
    values are not adjacent in memory, as in a transposed matrix, are copied once.

    Args:
        queries: (q, d) float32 of any length, or (d,) for a single query.
        documents: (n, d) float32 of any length.
        k: 0 to n. k=0 returns arrays of shape (q, 0).
        threads: The most threads to use. None means all that this process may use. The result does not depend on it.

    Returns:
        Scores (q, k) and indices (q, k), in descending order of score, ties in ascending order of index.

    Raises:
        InputTypeError: Another dtype: nothing is converted silently.
        InputError: k > n, different numbers of dimensions, or NaN or infinity, with the row.

    Examples:
        >>> import numpy as np
        >>> import gte_sdk
        >>> documents = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
        >>> gte_sdk.top_k_cosine(np.array([0, 1], np.float32), documents, k=2).indices
        array([[1, 2]])
    """
    queries_QD = checked_queries(queries)
    documents_ND = checked_matrix("documents", documents)
    query_dim, dim = queries_QD.shape[1], documents_ND.shape[1]
    if dim > _kernels.MAX_DIM:
        raise InputError(f"vectors of dimension {dim} exceed {_kernels.MAX_DIM}")
    if query_dim != dim:
        raise InputError(f"queries have dimension {query_dim}, documents {dim}; embed both with one model")
    k = check_count("k", k, least=0)
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


def thread_count(threads: int | None) -> int:
    """Returns the number of threads to use: the given number, or all that this process may use."""
    return available_threads() if threads is None else check_threads(threads)
