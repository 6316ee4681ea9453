"""Every instruction set against float64 numpy, and what holds across them: the same bits, no dependence on place."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import _kernels

INSTRUCTION_SETS = _kernels.search_instruction_sets()
FUSED = [name for name in INSTRUCTION_SETS if name != "scalar"]


def random_vectors(seed: int, count: int, dim: int) -> NDArray[np.float32]:
    # Lengths from 0.05 to 20, so that a kernel which forgets to divide by them is wrong.
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.uniform(-3, 3, (count, 1)))
    return (generator.standard_normal((count, dim)) * lengths).astype(np.float32)


def search(
    queries: NDArray[np.float32], documents: NDArray[np.float32], k: int, **options: Any
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    return _kernels.search(queries, documents.view(np.uint8), k, **options)


def reference_cosines(queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = [m.astype(np.float64) / np.linalg.norm(m.astype(np.float64), axis=1)[:, None] for m in (queries, documents)]
    return np.asarray(unit[0] @ unit[1].T)


def test_the_scalar_kernels_are_always_there_and_an_unknown_name_is_refused() -> None:
    assert INSTRUCTION_SETS[0] == "scalar"
    vectors = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="no kernels called sse9"):
        search(vectors, vectors, 1, instruction_set="sse9")


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dim", [1, 7, 8, 31, 384, 1000])
@pytest.mark.parametrize("row_count", [1, 17, 10_007])
def test_scores_and_ranks_equal_float64(instruction_set: str, dim: int, row_count: int) -> None:
    queries, documents = random_vectors(1, 13, dim), random_vectors(2, row_count, dim)
    cosines = reference_cosines(queries, documents)
    sorted_cosines = -np.sort(-cosines, axis=1)
    for k in {1, min(10, row_count), row_count}:
        scores, indices, bad_row = search(queries, documents, k, threads=2, instruction_set=instruction_set)
        assert bad_row == -1
        assert scores.shape == indices.shape == (13, k)
        np.testing.assert_allclose(scores, sorted_cosines[:, :k], atol=2e-6)
        np.testing.assert_allclose(np.take_along_axis(cosines, indices, axis=1), scores, atol=2e-6)
        assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("dim", [1, 7, 31, 384, 1000])
def test_instruction_sets_with_fused_multiply_add_agree_to_the_bit(dim: int) -> None:
    queries, documents = random_vectors(3, 13, dim), random_vectors(4, 1009, dim)
    results = [search(queries, documents, 1009, instruction_set=instruction_set) for instruction_set in FUSED]
    for scores, indices, _ in results[1:]:
        assert scores.tobytes() == results[0][0].tobytes()
        assert indices.tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_a_score_depends_on_its_row_and_query_only(instruction_set: str) -> None:
    """Neither on the other queries, nor on the place among the rows, nor on the threads."""
    queries, documents = random_vectors(5, 27, 100), random_vectors(6, 333, 100)
    scores, indices, _ = search(queries, documents, 333, threads=1, instruction_set=instruction_set)
    by_row = np.take_along_axis(scores, np.argsort(indices, axis=1), axis=1)
    for query in (0, 11, 12, 26):
        alone, order, _ = search(queries[query : query + 1], documents, 333, instruction_set=instruction_set)
        assert alone.tobytes() == scores[query].tobytes()
        assert order.tobytes() == indices[query].tobytes()
    for row in (0, 31, 32, 332):
        one = search(queries, documents[row : row + 1], 1, instruction_set=instruction_set)[0]
        assert one[:, 0].tobytes() == by_row[:, row].tobytes()
    many_threads = search(
        np.tile(queries, (8, 1)), np.tile(documents, (9, 1)), 7, threads=5, instruction_set=instruction_set
    )
    one_thread = search(
        np.tile(queries, (8, 1)), np.tile(documents, (9, 1)), 7, threads=1, instruction_set=instruction_set
    )
    assert many_threads[0].tobytes() == one_thread[0].tobytes()
    assert many_threads[1].tobytes() == one_thread[1].tobytes()


def rows_of_one_cosine(query: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Rows whose cosines with the query are all .7 but for rounding, so that the order of sums decides who is first."""
    unit = query.astype(np.float64) / np.linalg.norm(query)
    others = random_vectors(16, count, len(query)).astype(np.float64)
    others -= np.outer(others @ unit, unit)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    return np.asarray(0.7 * unit + np.sqrt(1 - 0.7**2) * others, np.float32)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [7, 64, 100, 384])
@pytest.mark.parametrize("selected", [None, np.arange(0, 3000, 3, dtype=np.uint32)], ids=["all rows", "selected rows"])
def test_what_one_query_does_not_look_at_twice_could_not_have_entered(
    instruction_set: str, dtype: str, dim: int, selected: NDArray[np.uint32] | None
) -> None:
    """One query rules panels out by sums in another order; a batch scores every row. Both name the same rows."""
    queries = random_vectors(17, 13, dim)
    close = rows_of_one_cosine(queries[0], 3000)
    rising = np.linspace(-1, 1, 3000)[:, None] * queries[0] + 0.3 * random_vectors(18, 3000, dim)
    for documents in (close, rising.astype(np.float32), random_vectors(19, 3000, dim)):
        rows, _ = _kernels.encode(documents, dtype)
        for k in (1, 10, 200):
            options: dict[str, Any] = {"dtype": dtype, "selected": selected, "instruction_set": instruction_set}
            scores, indices, _ = _kernels.search(queries, rows, k, **options)
            alone, order, bad_row = _kernels.search(queries[:1], rows, k, **options)
            assert bad_row == -1
            assert alone.tobytes() == scores[0].tobytes()
            assert order.tobytes() == indices[0].tobytes()


def falling_rows() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A query, and 2,000 rows that are less and less like it, so that the first panel holds the best."""
    documents = np.tile(np.linspace(0.9, 0, 2000, dtype=np.float32)[:, None], (1, 40))
    documents[:, 1::2] = 1
    return np.ones((1, 40), np.float32), documents


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 31, 39])
def test_one_query_names_a_late_row_that_is_not_finite(instruction_set: str, value: float, column: int) -> None:
    query, documents = falling_rows()
    documents[1900, column] = value
    assert search(query, documents, 1, instruction_set=instruction_set)[2] == 1900


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("size", [1e30, 1e20, 1e-20, 1e-38])
def test_one_query_finds_a_late_row_of_extreme_size(instruction_set: str, size: float) -> None:
    query, documents = falling_rows()
    documents[1900] = size
    scores, indices, bad_row = search(query, documents, 2, instruction_set=instruction_set)
    assert (indices.tolist(), bad_row) == ([[1900, 0]], -1)
    assert scores[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_equal_rows_tie_and_the_lower_index_wins(instruction_set: str) -> None:
    queries = random_vectors(7, 14, 19)
    documents = np.tile(random_vectors(8, 3, 19), (500, 1))
    scores, indices, _ = search(queries, documents, 1500, threads=3, instruction_set=instruction_set)
    for query in range(14):
        assert len(set(scores[query].tolist())) == 3
        for third in range(3):
            run = indices[query, 500 * third : 500 * (third + 1)]
            assert run.tolist() == sorted(run.tolist())
            assert len(set((run % 3).tolist())) == 1
    few, few_indices, _ = search(queries, documents, 40, threads=3, instruction_set=instruction_set)
    assert few.tobytes() == scores[:, :40].tobytes()
    assert few_indices.tobytes() == indices[:, :40].tobytes()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_rows_of_extreme_size_keep_their_direction(instruction_set: str) -> None:
    direction = random_vectors(9, 40, 24)
    # From subnormal numbers to the largest ones, whose squares leave the range of float32.
    sizes = np.array([1e-44, 1e-38, 1e-20, 1e-15, 1e-3, 1.0, 1e10, 1e15, 1e20, 1e37], np.float64)
    unit = direction / np.abs(direction).max(axis=1, keepdims=True)
    documents = (unit.astype(np.float64) * np.tile(sizes, 4)[:, None]).astype(np.float32)
    queries = (unit[:5] * np.array([[1e-38], [1e-12], [1], [1e12], [1e38]])).astype(np.float32)
    scores, indices, bad_row = search(queries, documents, 40, instruction_set=instruction_set)
    assert bad_row == -1
    expected = np.take_along_axis(reference_cosines(queries, documents), indices, axis=1)
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_a_row_or_query_of_zeros_scores_zero(instruction_set: str) -> None:
    documents = random_vectors(10, 70, 12)
    documents[[3, 40]] = 0
    queries = random_vectors(11, 3, 12)
    queries[1] = 0
    scores, indices, bad_row = search(queries, documents, 70, instruction_set=instruction_set)
    assert bad_row == -1
    assert (scores[1] == 0).all()
    assert indices[1].tolist() == list(range(70))
    for query in (0, 2):
        places = np.flatnonzero(np.isin(indices[query], [3, 40]))
        assert scores[query, places].tolist() == [0.0, 0.0]
        assert indices[query, places].tolist() == [3, 40]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_lowest_row_that_is_not_finite_is_named(instruction_set: str, value: float) -> None:
    documents = random_vectors(12, 5000, 33)
    for row, column in ((4999, 0), (77, 32), (3000, 5)):
        documents[row, column] = value
    assert search(documents[:1], documents, 2, threads=2, instruction_set=instruction_set)[2] == 77


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_selected_rows_are_searched_as_if_they_were_all(instruction_set: str) -> None:
    queries, documents = random_vectors(13, 5, 40), random_vectors(14, 3000, 40)
    selected = np.flatnonzero(np.random.default_rng(15).random(3000) < 0.3).astype(np.uint32)
    scores, indices, _ = search(queries, documents, 20, selected=selected, threads=2, instruction_set=instruction_set)
    expected = search(queries, documents[selected], 20, instruction_set=instruction_set)
    assert scores.tobytes() == expected[0].tobytes()
    assert indices.tolist() == selected[expected[1]].tolist()


def test_what_the_binding_refuses() -> None:
    matrix = np.ones((4, 3), np.float32)
    for k in (0, 5):
        with pytest.raises(ValueError, match="k must be in"):
            search(matrix, matrix, k)
    with pytest.raises(ValueError, match="another row size"):
        search(matrix[:, :2].copy(), matrix, 1)
    for rows in ([1, 1], [2, 1], [4]):
        with pytest.raises(ValueError, match="ascending and in range"):
            search(matrix, matrix, 1, selected=np.array(rows, np.uint32))
