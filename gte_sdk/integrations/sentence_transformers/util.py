"""The functions of sentence_transformers.util that search and compare vectors, on numpy arrays and tensors.

>>> from gte_sdk.integrations.sentence_transformers.util import cos_sim, semantic_search

Tensors give tensors where the other library returns one, else numpy arrays; PyTorch is not needed for arrays.
"""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from gte_sdk import top_k_cosine
from gte_sdk.checks import check_count
from gte_sdk.embedding.other_names.tensors import as_rows, cosines, like_given, paired_cosines
from gte_sdk.errors import InputError


class Hit(TypedDict):
    """One document that a query found."""

    corpus_id: int
    """Its row in the corpus."""
    score: float


def cos_sim(a: Any, b: Any) -> Any:
    """The cosine of each row of a with each row of b: (n, m).

    Args:
        a: (n, dim) or (dim,): an array, a tensor, or a list of these.
        b: (m, dim) or (dim,).
    """
    return cosines(a, b)


pytorch_cos_sim = cos_sim


def pairwise_cos_sim(a: Any, b: Any) -> Any:
    """The cosine of each row of a with the row of b in the same place: (n,).

    Args:
        a: (n, dim) or (dim,): an array, a tensor, or a list of these.
        b: The same shape.
    """
    return paired_cosines(a, b)


def dot_score(a: Any, b: Any) -> Any:
    """The dot product of each row of a with each row of b: (n, m).

    Args:
        a: (n, dim) or (dim,): an array, a tensor, or a list of these.
        b: (m, dim) or (dim,).
    """
    return like_given(as_rows("a", a) @ as_rows("b", b).T, a, b)


def normalize_embeddings(embeddings: Any) -> Any:
    """The rows scaled to unit length: (n, dim).

    Args:
        embeddings: (n, dim): an array, a tensor, or a list of these.
    """
    rows_ND = as_rows("embeddings", embeddings)
    lengths_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return like_given(rows_ND / np.maximum(lengths_N1, 1e-12), embeddings)


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Any = cos_sim,
) -> list[list[Hit]]:
    """Finds the nearest documents of each query: exact, by `top_k_cosine`.

    Args:
        query_embeddings: (q, dim) or (dim,): an array, a tensor, or a list of these.
        corpus_embeddings: (n, dim).
        query_chunk_size: Without effect: memory is bounded without chunks.
        corpus_chunk_size: Without effect.
        top_k: The most documents of a query.
        score_function: `cos_sim` or `dot_score` of this module. The second takes unit vectors.

    Returns:
        For each query a list of {"corpus_id": row, "score": cosine}, highest score first.

    Raises:
        InputError: Another score function, or `dot_score` of rows that have no unit length.

    Examples:
        >>> import numpy as np
        >>> from gte_sdk.integrations.sentence_transformers.util import semantic_search
        >>> corpus = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
        >>> semantic_search(np.array([0, 1], np.float32), corpus, top_k=1)
        [[{'corpus_id': 1, 'score': 1.0}]]
    """
    queries_QD, corpus_ND = (
        as_rows("query_embeddings", query_embeddings),
        as_rows("corpus_embeddings", corpus_embeddings),
    )
    if score_function is dot_score:
        _check_unit_length("query_embeddings", queries_QD)
        _check_unit_length("corpus_embeddings", corpus_ND)
    elif score_function is not cos_sim:
        raise InputError("score_function is neither cos_sim nor dot_score of this module")
    found = top_k_cosine(queries_QD, corpus_ND, min(check_count("top_k", top_k), len(corpus_ND)))
    return [
        [{"corpus_id": row, "score": score} for row, score in zip(rows, scores, strict=True)]
        for rows, scores in zip(found.indices.tolist(), found.scores.tolist(), strict=True)
    ]


def _check_unit_length(name: str, rows_ND: NDArray[np.float32]) -> None:
    if len(rows_ND) and not np.allclose(lengths_N := np.linalg.norm(rows_ND, axis=1), 1, atol=1e-3):
        row = int(np.abs(lengths_N - 1).argmax())
        raise InputError(f"row {row} of {name} has length {lengths_N[row]:.3f}; normalize_embeddings makes it 1")
