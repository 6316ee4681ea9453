"""float16, int8 and binary rows: what is stored, and every instruction set against integers and float64."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import _kernels

INSTRUCTION_SETS = _kernels.search_instruction_sets()
SMALL_TYPES = ["float16", "int8", "binary"]
DIMS = [1, 7, 8, 31, 32, 33, 129, 384, 1000, 2049]


def random_vectors(seed: int, count: int, dim: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.uniform(-3, 3, (count, 1)))
    return (generator.standard_normal((count, dim)) * lengths).astype(np.float32)


def stored_values(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.float64]:
    """The numbers that a stored row stands for, computed without the kernels."""
    wide = vectors.astype(np.float64)
    if dtype == "float16":
        return unit_rows(wide).astype(np.float32).astype(np.float16).astype(np.float64)
    if dtype == "int8":
        return np.asarray(np.rint(wide * (127 / np.abs(wide).max(axis=1, keepdims=True))))
    return np.where(wide < 0, -1.0, 1.0)


def unit_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def search(queries: NDArray[np.float32], encoded: tuple[Any, Any], k: int, dtype: str, **options: Any) -> Any:
    return _kernels.search(queries, encoded[0], k, dtype, encoded[1], **options)


@pytest.mark.parametrize("dtype", SMALL_TYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_stored_rows_hold_the_numbers_of_the_format(dtype: str, dim: int) -> None:
    vectors = random_vectors(0, 9, dim)
    rows, scales = _kernels.encode(vectors, dtype)
    values = stored_values(vectors, dtype)
    bits = {"float16": 16, "int8": 8, "binary": 1}[dtype]
    assert rows.shape == (9, -(-dim * bits // 32) * 4)
    if dtype == "binary":
        signs = np.unpackbits(rows, axis=1, bitorder="little")
        assert (signs[:, :dim] == (values < 0)).all()
        assert not signs[:, dim:].any()
        assert scales.tolist() == [np.float32(dim**-0.5)] * 9
        return
    numbers = rows.view(np.int8 if dtype == "int8" else np.float16).astype(np.float64)
    assert (numbers[:, :dim] == values).all()
    assert not numbers[:, dim:].any()
    if dtype == "int8":
        np.testing.assert_allclose(scales, 1 / np.linalg.norm(values, axis=1), rtol=1e-7)


def test_halves_are_rounded_as_ieee_says() -> None:
    # All halves, the middles between neighbours (ties to even), and their neighbours in float32.
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    middles = ((halves[:-1].astype(np.float64) + halves[1:].astype(np.float64)) / 2).astype(np.float32)
    around = np.concatenate([halves.astype(np.float32), middles, np.nextafter(middles, np.float32(9)), -middles])
    values = around[np.abs(around) <= 1]
    # Dimension 1 would be scaled to unit length; a second value that makes the row a unit vector leaves the first.
    pairs = np.stack([values, np.sqrt(1 - values.astype(np.float64) ** 2).astype(np.float32)], axis=1)
    unit = _kernels.normalize_rows(pairs)
    assert (_kernels.encode(pairs, "float16")[0].view(np.float16) == unit.astype(np.float16)).all()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", SMALL_TYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_scores_are_the_cosines_of_what_is_stored(instruction_set: str, dtype: str, dim: int) -> None:
    queries, vectors = random_vectors(1, 14, dim), random_vectors(2, 401, dim)
    encoded = _kernels.encode(vectors, dtype)
    query_values = queries.astype(np.float64) if dtype == "float16" else stored_values(queries, dtype)
    cosines = unit_rows(query_values) @ unit_rows(stored_values(vectors, dtype)).T
    for k in (1, 10, 401):
        scores, indices, bad_row = search(queries, encoded, k, dtype, threads=2, instruction_set=instruction_set)
        assert bad_row == -1
        np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :k], atol=2e-6)
        np.testing.assert_allclose(np.take_along_axis(cosines, indices, axis=1), scores, atol=2e-6)
        for score_row, index_row in zip((-scores).tolist(), indices.tolist(), strict=True):
            pairs = list(zip(score_row, index_row, strict=True))
            assert pairs == sorted(set(pairs))


@pytest.mark.parametrize("dtype", ["int8", "binary"])
@pytest.mark.parametrize("dim", DIMS)
def test_every_instruction_set_gives_the_same_bits(dtype: str, dim: int) -> None:
    queries, vectors = random_vectors(3, 29, dim), random_vectors(4, 1000, dim)
    encoded = _kernels.encode(vectors, dtype)
    results = [
        search(queries, encoded, 1000, dtype, instruction_set=instruction_set) for instruction_set in INSTRUCTION_SETS
    ]
    for scores, indices, _ in results[1:]:
        assert scores.tobytes() == results[0][0].tobytes()
        assert indices.tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_int8_sums_do_not_saturate(instruction_set: str) -> None:
    """All codes at their ends: where 16-bit intermediate sums would clip, and dimensions that need the 32nd bit."""
    for dim in (4, 64, 4096, _kernels.MAX_DIM):
        vectors = np.ones((3, dim), np.float32)
        vectors[1] = -1
        vectors[2, ::2] = -1
        scores, indices, _ = search(
            vectors, _kernels.encode(vectors, "int8"), 3, "int8", instruction_set=instruction_set
        )
        assert indices.tolist() == [[0, 2, 1], [1, 2, 0], [2, 0, 1]]
        np.testing.assert_allclose(scores, [[1, 0, -1], [1, 0, -1], [1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", SMALL_TYPES)
def test_place_batch_threads_and_selection_leave_a_score_alone(instruction_set: str, dtype: str) -> None:
    queries, vectors = random_vectors(5, 300, 72), np.tile(random_vectors(6, 700, 72), (4, 1))
    rows, scales = _kernels.encode(vectors, dtype)
    scores, indices, _ = search(queries, (rows, scales), 50, dtype, threads=3, instruction_set=instruction_set)
    for query in (0, 13, 263, 264, 299):
        alone = search(queries[query : query + 1], (rows, scales), 50, dtype, instruction_set=instruction_set)
        assert alone[0].tobytes() == scores[query].tobytes()
        assert alone[1].tobytes() == indices[query].tobytes()
    selected = np.arange(5, 2800, 7, dtype=np.uint32)
    some = search(queries, (rows, scales), 50, dtype, selected=selected, threads=2, instruction_set=instruction_set)
    copied = search(queries, (rows[selected], scales[selected]), 50, dtype, instruction_set=instruction_set)
    assert some[0].tobytes() == copied[0].tobytes()
    assert some[1].tolist() == selected[copied[1]].tolist()
    # Four copies of every row: they tie, in order.
    assert (scores[:, 0:48:4] == scores[:, 3:48:4]).all()
    assert (np.diff(indices[:, 0:4], axis=1) > 0).all()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", SMALL_TYPES)
def test_zeros_score_zero(instruction_set: str, dtype: str) -> None:
    vectors = random_vectors(7, 66, 40)
    vectors[[0, 65]] = 0
    encoded = _kernels.encode(vectors, dtype)
    scores, indices, bad_row = search(vectors[:2], encoded, 66, dtype, instruction_set=instruction_set)
    assert bad_row == -1
    assert scores[0].tolist() == [0.0] * 66
    assert indices[0].tolist() == list(range(66))
    assert scores[1, np.isin(indices[1], [0, 65])].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_candidates_are_searched_per_query(instruction_set: str) -> None:
    queries, vectors = random_vectors(8, 21, 50), random_vectors(9, 500, 50)
    generator = np.random.default_rng(10)
    candidates = np.stack([np.sort(generator.choice(500, 60, replace=False)) for _ in range(21)]).astype(np.uint32)
    rows = vectors.view(np.uint8)
    scores, indices, _ = _kernels.search_candidates(queries, rows, 5, "float32", candidates, 3, instruction_set)
    for query in range(21):
        expected = _kernels.search(
            queries[query : query + 1], rows, 5, selected=candidates[query].copy(), instruction_set=instruction_set
        )
        assert scores[query].tobytes() == expected[0].tobytes()
        assert indices[query].tobytes() == expected[1].tobytes()


def test_rows_that_are_not_finite_are_reported_whatever_their_type() -> None:
    vectors = random_vectors(11, 100, 20)
    rows, scales = _kernels.encode(vectors, "float16")
    rows.view(np.float16)[57, 3] = np.inf
    assert _kernels.search(vectors[:1], rows, 100, "float16")[2] == 57
    for dtype in ("int8", "binary"):
        rows, scales = _kernels.encode(vectors, dtype)
        scales[[31, 80]] = np.nan
        assert _kernels.search(vectors[:1], rows, 100, dtype, scales)[2] == 31
        assert _kernels.search(vectors[:1], rows, 3, dtype, scales, threads=2)[2] == 31


def test_what_the_binding_refuses() -> None:
    vectors = np.ones((4, 8), np.float32)
    rows, scales = _kernels.encode(vectors, "int8")
    with pytest.raises(ValueError, match="no rows of dtype int4"):
        _kernels.encode(vectors, "int4")
    with pytest.raises(ValueError, match="scales are missing"):
        _kernels.search(vectors, rows, 1, "int8")
    with pytest.raises(ValueError, match="scales are missing"):
        _kernels.search(vectors, rows, 1, "int8", scales[:3])
    with pytest.raises(ValueError, match="another row size"):
        _kernels.search(vectors, rows, 1, "float32")
    for candidates in ([[0, 0]] * 4, [[1, 4]] * 4):
        with pytest.raises(ValueError, match="ascending and in range"):
            _kernels.search_candidates(vectors, vectors.view(np.uint8), 1, "float32", np.array(candidates, np.uint32))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, 100_003])
def test_checksums_are_crc32c(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()

    def crc32c(block: bytes) -> int:
        state = 0xFFFFFFFF
        for byte in block:
            state ^= byte
            for _ in range(8):
                state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
        return state ^ 0xFFFFFFFF

    block_bytes = 30_000
    expected = [crc32c(data[start : start + block_bytes]) for start in range(0, size, block_bytes)]
    assert _kernels.block_checksums(data, block_bytes, threads=2).tolist() == expected
    assert _kernels.block_checksums(b"123456789", 9).tolist() == [0xE3069283]
