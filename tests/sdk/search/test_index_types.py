"""The index with float16, int8 and binary rows: recall, filters, rescoring, and growth."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_sdk import Index, InputError, top_k_cosine

SMALL_TYPES = ["float16", "int8", "binary"]
VECTORS = np.random.default_rng(0).standard_normal((700, 64)).astype(np.float32)
QUERIES = np.random.default_rng(1).standard_normal((17, 64)).astype(np.float32)


def index_of(dtype: str, vectors: Any = VECTORS, **options: Any) -> Index:
    index = Index(vectors.shape[1], dtype, **options)
    index.add(vectors)
    return index


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-4), ("int8", 5e-3), ("binary", 0.6)])
def test_scores_are_near_the_exact_cosine(dtype: str, tolerance: float) -> None:
    exact = top_k_cosine(QUERIES, VECTORS, 700)
    scores, ids = index_of(dtype).search(QUERIES, 700)
    by_id = np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)
    exact_by_id = np.take_along_axis(exact.scores, np.argsort(exact.indices, axis=1), axis=1)
    np.testing.assert_allclose(by_id, exact_by_id, atol=tolerance)
    assert [row[0] for row in index_of(dtype).search(VECTORS, 1).ids.tolist()] == list(range(700))


@pytest.mark.parametrize("dtype", SMALL_TYPES)
def test_a_vectors_codes_depend_on_no_other_vector_and_on_no_length(dtype: str) -> None:
    alone, among = Index(64, dtype), index_of(dtype, VECTORS * np.float32(1000))
    alone.add(VECTORS[:1])
    assert alone.search(QUERIES, 1).scores.tobytes() == among.search(QUERIES, 1, where=[0]).scores.tobytes()


@pytest.mark.parametrize("dtype", SMALL_TYPES)
def test_iteration_gives_the_stored_direction(dtype: str) -> None:
    vectors = VECTORS.copy()
    vectors[3] = 0
    index = index_of(dtype, vectors)
    stored = np.array([vector for _, vector in index])
    assert stored.dtype == np.float32
    assert (stored[3] == 0).all()
    lengths = np.linalg.norm(np.delete(stored, 3, axis=0), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
    # Adding what came out stores the same rows again.
    again = index_of(dtype, stored)
    assert again.search(QUERIES, 9).ids.tolist() == index.search(QUERIES, 9).ids.tolist()


@pytest.mark.parametrize("dtype", SMALL_TYPES)
def test_filters_removal_and_updates_work_on_every_type(dtype: str) -> None:
    index = index_of(dtype)
    index.remove(range(0, 700, 2))
    index.add(VECTORS[:5], [1, 3, 5, 7, 9])
    kept = {id: VECTORS[id] for id in range(1, 700, 2)} | dict(zip((1, 3, 5, 7, 9), VECTORS, strict=False))
    order = [int(id) for id, _ in index]
    assert sorted(order) == sorted(kept)
    fresh = Index(64, dtype)
    fresh.add(np.array([kept[id] for id in order]), order)
    for where in (None, [1, 3, 99, 101, 400], lambda id: id % 3 == 0, np.arange(350) % 2 == 0):
        result, expected = index.search(QUERIES, 12, where=where), fresh.search(QUERIES, 12, where=where)
        assert result.scores.tobytes() == expected.scores.tobytes()
        assert result.ids.tolist() == expected.ids.tolist()
    index.compact()
    assert [id for id, _ in index] == order
    assert index.search(QUERIES, 12).scores.tobytes() == fresh.search(QUERIES, 12).scores.tobytes()


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_rescoring_all_rows_is_the_exact_search(dtype: str) -> None:
    index = index_of(dtype, keep_floats=True)
    exact = top_k_cosine(QUERIES, VECTORS, 10)
    result = index.search(QUERIES, 10, rescore=700)
    assert result.scores.tobytes() == exact.scores.tobytes()
    assert result.ids.tolist() == exact.indices.tolist()
    assert index.search(QUERIES, 10, rescore=100_000).ids.tolist() == exact.indices.tolist()
    mask = np.arange(700) % 3 == 0
    filtered = index.search(QUERIES, 10, rescore=700, where=mask)
    assert filtered.ids.tolist() == (top_k_cosine(QUERIES, VECTORS[mask], 10).indices * 3).tolist()
    assert np.array([vector for _, vector in index]).tobytes() == VECTORS.tobytes()


def test_rescoring_orders_the_candidates_of_the_first_pass() -> None:
    index = index_of("binary", keep_floats=True)
    candidates = index.search(QUERIES, 30).ids
    result = index.search(QUERIES, 5, rescore=30)
    for query in range(len(QUERIES)):
        expected = index.search(QUERIES[query], 5, rescore=700, where=candidates[query])
        assert result.ids[query].tolist() == expected.ids[0].tolist()
        assert result.scores[query].tobytes() == expected.scores[0].tobytes()


def test_rescoring_needs_the_float_rows() -> None:
    with pytest.raises(InputError, match="rescore=50 needs the float rows: make the index with keep_floats=True"):
        index_of("int8").search(QUERIES, 5, rescore=50)
    with pytest.raises(InputError, match="keep_floats=True with dtype='float32'"):
        Index(64, keep_floats=True)
    with pytest.raises(InputError, match="dim=65537"):
        Index(65537)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float32", *SMALL_TYPES]),
    dim=st.integers(1, 70),
    batches=st.lists(st.integers(0, 60), max_size=6),
    k=st.integers(0, 40),
    keep_floats=st.booleans(),
)
def test_many_small_additions_equal_one(dtype: str, dim: int, batches: list[int], k: int, keep_floats: bool) -> None:
    keep_floats = keep_floats and dtype in ("int8", "binary")
    values = np.random.default_rng(dim).integers(-2, 3, (sum(batches), dim)).astype(np.float32)
    slowly, at_once = Index(dim, dtype, keep_floats=keep_floats), Index(dim, dtype, keep_floats=keep_floats)
    start = 0
    for count in batches:
        slowly.add(values[start : start + count])
        start += count
    at_once.add(values)
    queries = np.random.default_rng(dim).integers(-2, 3, (3, dim)).astype(np.float32)
    result, expected = slowly.search(queries, k), at_once.search(queries, k)
    assert result.scores.shape == (3, min(k, len(values)))
    assert result.scores.tobytes() == expected.scores.tobytes()
    assert result.ids.tolist() == expected.ids.tolist()
    for scores, ids in zip((-result.scores).tolist(), result.ids.tolist(), strict=True):
        pairs = list(zip(scores, ids, strict=True))
        assert pairs == sorted(set(pairs))


@pytest.mark.parametrize("dtype", ["float32", *SMALL_TYPES])
def test_32_threads_searching_and_adding_give_the_answers_of_one(dtype: str) -> None:
    index = index_of(dtype, VECTORS[:200])
    expected = index.search(QUERIES, 5)

    def work(worker: int) -> None:
        for step in range(6):
            row = 200 + worker * 6 + step
            index.add(VECTORS[row : row + 1], [row])
            old = index.search(QUERIES, 5, where=range(200), threads=1 + step % 3)
            assert old.scores.tobytes() == expected.scores.tobytes()
            assert old.ids.tolist() == expected.ids.tolist()
            assert row in index.search(VECTORS[row], 1).ids

    with ThreadPoolExecutor(32) as pool:
        for done in [pool.submit(work, worker) for worker in range(32)]:
            done.result()
    order = [int(id) for id, _ in index]
    assert sorted(order) == list(range(392))
    alone = Index(64, dtype)
    alone.add(VECTORS[order], order)
    result, one_thread = index.search(QUERIES, 20), alone.search(QUERIES, 20, threads=1)
    assert result.scores.tobytes() == one_thread.scores.tobytes()
    assert result.ids.tolist() == one_thread.ids.tolist()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of resident memory is read as on Linux")
@pytest.mark.parametrize("dtype", ["float32", "binary"])
def test_a_search_holds_no_matrix_of_rows_by_queries(dtype: str) -> None:
    rows = np.random.default_rng(2).standard_normal((100_000, 32)).astype(np.float32)
    index = index_of(dtype, rows)
    index.search(rows[:256], 10)
    growth = []
    for _ in range(2):  # a thread's buffers may come late, but once
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = resident_peak_bytes()
        index.search(rows[:256], 10)
        growth.append(resident_peak_bytes() - before)
    assert min(growth) < 16_000_000  # the matrix would be 102 MB of scores each time


def resident_peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
