"""top_k_cosine as a user calls it: shapes, ties, and one clear error for each wrong input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gte_sdk import InputError, InputTypeError, top_k_cosine

DOCUMENTS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def test_a_document_finds_itself_first_whatever_its_length() -> None:
    scores, indices = top_k_cosine(DOCUMENTS * np.float32(7.5), DOCUMENTS, 3)
    assert scores.shape == indices.shape == (10, 3)
    assert scores.dtype == np.float32
    assert indices.dtype == np.int64
    assert indices[:, 0].tolist() == list(range(10))
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-6)
    assert (scores <= 1).all()


def test_one_vector_counts_as_one_row() -> None:
    one = top_k_cosine(DOCUMENTS[4], DOCUMENTS, 2)
    assert one.indices.shape == (1, 2)
    assert one.indices.tolist() == top_k_cosine(DOCUMENTS[4:5], DOCUMENTS, 2).indices.tolist()


def test_ties_go_to_the_lower_index() -> None:
    documents = np.array([[0, 1], [2, 2], [1, 1], [4, 4], [1, 1]], np.float32)
    result = top_k_cosine(np.array([[1, 1]], np.float32), documents, 5)
    assert result.indices.tolist() == [[1, 2, 3, 4, 0]]
    assert len(set(result.scores[0, :4].tolist())) == 1


def test_k_of_zero_and_no_queries_give_empty_arrays() -> None:
    for k, queries, shape in ((0, DOCUMENTS[:3], (3, 0)), (2, DOCUMENTS[:0], (0, 2)), (0, DOCUMENTS[:0], (0, 0))):
        result = top_k_cosine(queries, DOCUMENTS, k)
        assert result.scores.shape == result.indices.shape == shape
    assert top_k_cosine(DOCUMENTS[:3], DOCUMENTS[:0], 0).scores.shape == (3, 0)


@pytest.mark.parametrize(
    ("queries", "documents", "k", "error", "message"),
    [
        (DOCUMENTS, DOCUMENTS, 11, InputError, r"^k=11 exceeds 10 documents$"),
        (DOCUMENTS, DOCUMENTS[:0], 1, InputError, r"^k=1 exceeds 0 documents$"),
        (DOCUMENTS, DOCUMENTS, -1, InputError, r"k=-1; it must be at least 0"),
        (DOCUMENTS, DOCUMENTS, 2.0, InputTypeError, r"k=2.0 is a float; give an int"),
        (
            DOCUMENTS,
            DOCUMENTS.astype(np.float64),
            1,
            InputTypeError,
            r"documents has dtype float64.*astype\(np.float32\)",
        ),
        (DOCUMENTS.astype(np.int32), DOCUMENTS, 1, InputTypeError, r"queries has dtype int32.*astype\(np.float32\)"),
        (DOCUMENTS, DOCUMENTS.astype(object), 1, InputTypeError, r"documents has dtype object"),
        (DOCUMENTS, DOCUMENTS.astype(">f4"), 1, InputTypeError, r"documents has dtype >f4"),
        (DOCUMENTS.tolist(), DOCUMENTS, 1, InputTypeError, r"queries is a list; give a numpy array of float32"),
        (DOCUMENTS, None, 1, InputTypeError, r"documents is a NoneType"),
        (DOCUMENTS[:, :3], DOCUMENTS, 1, InputError, r"queries have dimension 3, documents 4"),
        (DOCUMENTS, DOCUMENTS[0], 1, InputError, r"documents has shape \(4,\)"),
        (DOCUMENTS[:, :0], DOCUMENTS[:, :0], 1, InputError, r"queries has shape \(10, 0\)"),
    ],
)
def test_wrong_input_is_one_clear_error(queries: Any, documents: Any, k: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        top_k_cosine(queries, documents, k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_row(value: float) -> None:
    broken = DOCUMENTS.copy()
    broken[[6, 8], 1] = value
    with pytest.raises(InputError, match=r"^documents row 6 holds NaN or an infinity"):
        top_k_cosine(DOCUMENTS, broken, 1)
    with pytest.raises(InputError, match=r"^queries row 6 holds NaN or an infinity"):
        top_k_cosine(broken, DOCUMENTS, 1)


def test_threads_must_be_positive() -> None:
    with pytest.raises(InputError, match="threads=0"):
        top_k_cosine(DOCUMENTS, DOCUMENTS, 1, threads=0)


@given(data=st.data(), dim=st.integers(1, 40), row_count=st.integers(1, 90), query_count=st.integers(0, 15))
def test_any_layout_in_memory_gives_the_result_of_a_plain_copy(
    data: st.DataObject, dim: int, row_count: int, query_count: int
) -> None:
    # Few different values, so that equal rows, zero rows and ties are common.
    values = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0])
    documents = data.draw(hnp.arrays(np.float32, (row_count, dim), elements=values))
    queries = data.draw(hnp.arrays(np.float32, (query_count, dim), elements=values))
    k = data.draw(st.integers(0, row_count))
    plain = top_k_cosine(queries, documents, k)

    spread = np.full((2 * row_count, dim + 3), np.nan, np.float32)
    spread[::2, 1 : dim + 1] = documents
    packed = np.zeros(row_count, np.dtype([("tag", np.uint8), ("vector", np.float32, (dim,))]))
    packed["vector"] = documents
    for layout in (
        spread[::2, 1 : dim + 1],
        np.asfortranarray(documents),
        documents[::-1].copy()[::-1],
        packed["vector"],
    ):
        result = top_k_cosine(np.asfortranarray(queries), layout, k)
        assert result.scores.tobytes() == plain.scores.tobytes()
        assert result.indices.tobytes() == plain.indices.tobytes()

    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] * np.linalg.norm(documents, axis=1)
    dots = queries.astype(np.float64) @ documents.T
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    np.testing.assert_allclose(plain.scores, -np.sort(-cosines, axis=1)[:, :k], atol=1e-6)
    for scores, indices in zip(plain.scores, plain.indices, strict=True):
        pairs = list(zip((-scores).tolist(), indices.tolist(), strict=True))
        assert pairs == sorted(pairs)
