"""Arguments that no caller of ours passes: each call answers or raises, and none reads or writes outside of its arrays.

Crashes are what these tests are for, so the sanitizers (`make sanitize`) see more in them than a plain run.
"""

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import _kernels

HIDDEN, WIDE, VOCABULARY, POSITIONS = 64, 128, 9, 12
ABSURD = [0, 1, 2, 3, 63, 64, 65, 2**31 - 1, 2**31, 2**32, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
VECTORS = np.random.default_rng(0).standard_normal((70, 20)).astype(np.float32)


def linear(inputs: int, outputs: int, shifted: bool = False) -> Any:
    weights = np.random.default_rng(inputs).integers(-127, 128, (inputs, outputs), dtype=np.int8)
    ones = np.ones(outputs, np.float32) / 999
    return weights, ones, ones, np.ones(inputs, np.float32), shifted


def encoder(heads: int = 2, epsilon: float = 1e-12, scale: float = 1.0, layers: int = 1, wide: int = WIDE) -> Any:
    ones, scales = np.ones(HIDDEN, np.float32), np.full(VOCABULARY, scale, np.float32)
    embeddings = np.arange(VOCABULARY * HIDDEN).reshape(VOCABULARY, HIDDEN).astype(np.int8)
    positions = np.zeros((POSITIONS, HIDDEN), np.float32)
    made = _kernels.Encoder(
        embeddings, scales, HIDDEN, heads, POSITIONS, epsilon, "mean", False, "gelu", False, positions,
        embedding_norm=(ones, ones),
    )  # fmt: skip
    for _ in range(layers):
        add_layer(made, wide)
    return made


def add_layer(made: Any, wide: int = WIDE) -> None:
    norm = (np.ones(HIDDEN, np.float32),) * 2
    made.add_layer(
        linear(HIDDEN, 3 * HIDDEN), linear(HIDDEN, HIDDEN), linear(HIDDEN, wide), linear(wide, HIDDEN, True), norm, norm
    )


def encode(made: Any, ids: list[int], starts: list[int], **options: Any) -> NDArray[np.float32]:
    rows = len(ids) if options.get("token_states") else len(starts) - 1
    out = np.zeros((rows, HIDDEN), np.float32)
    batch_tokens, threads = options.pop("batch_tokens", 256), options.pop("threads", 1)
    made.encode(np.array(ids, np.int32), np.array(starts, np.int64), out, batch_tokens, threads, **options)
    return out


def across_alignment(array: NDArray[Any]) -> Any:
    """An equal array whose values begin one byte off."""
    buffer = bytearray(1) + bytearray(array.tobytes())
    return np.frombuffer(buffer, array.dtype, offset=1).reshape(array.shape)


# --- sizes


@pytest.mark.parametrize("heads", [n for n in ABSURD if n not in (1, 2, 64)])
def test_heads_that_do_not_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match="heads must divide hidden"):
        encoder(heads)


@pytest.mark.parametrize("block_bytes", ABSURD[1:])
@pytest.mark.parametrize("size", [0, 1, 64, 100_000])
def test_blocks_of_any_size(block_bytes: int, size: int) -> None:
    data = bytes(size)
    blocks = [data[start : start + block_bytes] for start in range(0, size, min(block_bytes, 10**6))]
    expected = [int(_kernels.block_checksums(block, len(block))[0]) for block in blocks] if block_bytes > 1 else []
    found = _kernels.block_checksums(data, block_bytes, threads=3).tolist()
    assert len(found) == -(-size // block_bytes)
    assert block_bytes == 1 or found == expected


@pytest.mark.parametrize("threads", ABSURD)
def test_any_number_of_threads(threads: int) -> None:
    rows = VECTORS.view(np.uint8)
    expected = _kernels.search(VECTORS[:3], rows, 5)[1].tolist()
    assert _kernels.search(VECTORS[:3], rows, 5, threads=threads)[1].tolist() == expected
    candidates = np.tile(np.arange(70, dtype=np.uint32), (3, 1))
    assert _kernels.search_candidates(VECTORS[:3], rows, 5, "float32", candidates, threads)[1].tolist() == expected
    assert encode(encoder(), [1, 2, 3], [0, 1, 3], threads=threads).tobytes() == (
        encode(encoder(), [1, 2, 3], [0, 1, 3]).tobytes()
    )
    assert _kernels.block_checksums(b"abc", 1, threads=threads).tolist() == _kernels.block_checksums(b"abc", 1).tolist()
    pieces = _kernels.WordPieces({"a": 1, "[UNK]": 0}, "##", "[UNK]", 100, True, False, [])
    assert pieces.encode(["a b"], 9, threads) == ([[1, 0]], [2])


@pytest.mark.parametrize("batch_tokens", ABSURD)
def test_batches_of_any_size(batch_tokens: int) -> None:
    expected = encode(encoder(), [1, 2, 3, 4], [0, 1, 3, 4])
    assert encode(encoder(), [1, 2, 3, 4], [0, 1, 3, 4], batch_tokens=batch_tokens).tobytes() == expected.tobytes()


@pytest.mark.parametrize("k", [n for n in ABSURD if not 1 <= n <= 70])
def test_more_rows_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match="k must be in"):
        _kernels.search(VECTORS[:3], VECTORS.view(np.uint8), k)


def test_layers_too_wide_for_32_bit_sums() -> None:
    with pytest.raises(ValueError, match="widths must be 1 to 65536"):
        encoder(wide=65536 + 64)


@pytest.mark.parametrize(
    "call",
    [
        lambda n: _kernels.search(VECTORS, VECTORS.view(np.uint8), n),
        lambda n: _kernels.search(VECTORS, VECTORS.view(np.uint8), 1, threads=n),
        lambda n: _kernels.block_checksums(b"abc", n),
        lambda n: encoder(n),
        lambda n: encode(encoder(), [1], [0, 1], batch_tokens=n),
        lambda n: _kernels.WordPieces({"[UNK]": 0}, "##", "[UNK]", n, True, False, []),
    ],
)
@pytest.mark.parametrize("number", [-1, -(2**63), 2**64, 2**70])
def test_numbers_that_no_size_holds(call: Callable[[int], object], number: int) -> None:
    with pytest.raises(TypeError):
        call(number)


# --- starts and ids


@pytest.mark.parametrize(
    "starts",
    [[0], [0, 2], [0, 4], [1, 3], [0, 0, 3], [0, 3, 3], [0, 3, 2, 3], [0, -1, 3], [0, 5, 3], [0, 2**62, 3],
     [0, -(2**63), 3], [0, 2**63 - 1, 3], [-(2**63), 3], [0, 2**63 - 1, -(2**63), 3]],
)  # fmt: skip
def test_starts_that_do_not_cover_the_ids(starts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"starts must cover|too few or many"):
        encode(encoder(), [1, 2, 3], starts)


@pytest.mark.parametrize("token_id", [-1, VOCABULARY, 2**31 - 1, -(2**31)])
def test_ids_outside_of_the_table(token_id: int) -> None:
    with pytest.raises(ValueError, match="not in the table"):
        encode(encoder(), [1, token_id, 3], [0, 3])


def test_a_text_longer_than_the_positions() -> None:
    encode(encoder(), [1] * POSITIONS, [0, POSITIONS])
    with pytest.raises(ValueError, match="too few or many"):
        encode(encoder(), [1] * (POSITIONS + 1), [0, POSITIONS + 1])


def test_layers_are_not_added_to_an_encoder_in_use() -> None:
    made = encoder()
    encode(made, [1], [0, 1])
    with pytest.raises(ValueError, match="before the first text"):
        add_layer(made)


@pytest.mark.parametrize(
    "value", [lambda: -1, lambda: 2**31, lambda: 2**70, lambda: "a", lambda: None, lambda: 1.0, lambda: np.int64(1)]
)
def test_vocabularies_of_other_things_than_ids(value: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="ids of a vocabulary"):
        _kernels.WordPieces({"a": value(), "[UNK]": 0}, "##", "[UNK]", 100, True, False, [])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        _kernels.WordPieces({"a": 1}, "##", "[UNK]", 100, True, False, [])


# --- arrays of another form


def test_values_across_their_alignment_are_read_all_the_same() -> None:
    rows = VECTORS.view(np.uint8)
    expected = _kernels.search(VECTORS[:3], rows, 5)
    huge = VECTORS * np.float32(1e18)  # squares beyond 1e30 are summed another way
    for vectors in (VECTORS, huge):
        odd_rows = across_alignment(vectors.view(np.uint8))
        found = _kernels.search(across_alignment(VECTORS[:3]), odd_rows, 5)
        assert found[1].tolist() == expected[1].tolist()
    for dtype in ("float32", "float16", "int8", "binary"):
        assert _kernels.encode(across_alignment(VECTORS), dtype)[0].tobytes() == (
            _kernels.encode(VECTORS, dtype)[0].tobytes()
        )
    assert _kernels.normalize_rows(across_alignment(VECTORS)).tobytes() == _kernels.normalize_rows(VECTORS).tobytes()
    states, mask = VECTORS.reshape(7, 10, 20), np.ones((7, 10), np.int64)
    assert _kernels.mean_pool(across_alignment(states), across_alignment(mask)).tobytes() == (
        _kernels.mean_pool(states, mask).tobytes()
    )
    out = np.zeros((1, HIDDEN), np.float32)
    encoder().encode(across_alignment(np.array([1, 2], np.int32)), across_alignment(np.array([0, 2])), out, 256, 1)
    assert out.tobytes() == encode(encoder(), [1, 2], [0, 2]).tobytes()


@pytest.mark.parametrize(
    "out",
    [np.zeros((1, HIDDEN), np.float64), np.zeros((2, HIDDEN), np.float32), np.zeros((1, HIDDEN + 1), np.float32),
     np.zeros(HIDDEN, np.float32), np.zeros((1, HIDDEN), ">f4"), np.zeros((1, 2 * HIDDEN), np.float32)[:, ::2],
     np.frombuffer(bytes(4 * HIDDEN), np.float32).reshape(1, HIDDEN),
     across_alignment(np.zeros((1, HIDDEN), np.float32))],
)  # fmt: skip
def test_outputs_that_are_not_rows_to_write_to(out: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        encoder().encode(np.array([1, 2], np.int32), np.array([0, 2]), out, 256, 1)


def test_rows_in_any_order_in_memory() -> None:
    rows = VECTORS.view(np.uint8)
    expected = _kernels.search(VECTORS[:3], rows[::-1].copy(), 5)[1].tolist()
    assert _kernels.search(VECTORS[:3], rows[::-1], 5)[1].tolist() == expected
    assert _kernels.search(VECTORS[:3], np.broadcast_to(rows[:1], (99, 80)), 99)[1].tolist() == [list(range(99))] * 3
    with pytest.raises(ValueError, match="adjacent"):
        _kernels.search(VECTORS[:3], np.repeat(rows, 2, axis=1)[:, ::2], 5)


# --- rows that lie


@pytest.mark.parametrize("instruction_set", _kernels.search_instruction_sets())
@pytest.mark.parametrize("dtype", ["int8", "binary"])
@pytest.mark.parametrize("query_count", [1, 3, 300])
@pytest.mark.parametrize("scale", [-1e30, -1.0, 5.0, 1e30, np.nan, np.inf, -np.inf])
def test_scales_that_no_row_has_name_their_row(
    instruction_set: str, dtype: str, query_count: int, scale: float
) -> None:
    queries = np.resize(VECTORS, (query_count, 20))
    rows, scales = _kernels.encode(VECTORS, dtype)
    for damaged in ([37], range(37, 70)):
        scales[list(damaged)] = scale
        found = _kernels.search(queries, rows, 70, dtype, scales, threads=3, instruction_set=instruction_set)
        assert found[2] == 37


@pytest.mark.parametrize("instruction_set", _kernels.search_instruction_sets())
def test_scales_that_are_wrong_and_possible_leave_k_different_rows(instruction_set: str) -> None:
    rows, scales = _kernels.encode(VECTORS, "int8")
    scales[:] = 1  # scores far beyond -1 and 1
    scores, indices, bad_row = _kernels.search(-VECTORS, rows, 70, "int8", scales, instruction_set=instruction_set)
    assert bad_row == -1
    assert (np.sort(indices, axis=1) == np.arange(70)).all()
    assert np.abs(scores).max() == 1


@pytest.mark.parametrize("query_count", [1, 5, 30])
def test_codes_of_minus_128_count_as_such(query_count: int) -> None:
    rows = np.random.default_rng(1).integers(-128, 128, (100, 128), dtype=np.int8)
    rows[:40] = -128
    rows[40:50, ::2] = -128
    queries = np.random.default_rng(2).standard_normal((query_count, 128)).astype(np.float32)
    queries[0] = -1
    codes = _kernels.encode(queries, "int8")[0].view(np.int8).astype(np.int64)
    scales = np.full(100, 1e-4, np.float32)
    results = [
        _kernels.search(queries, rows.view(np.uint8), 100, "int8", scales, instruction_set=name)
        for name in _kernels.search_instruction_sets()
    ]
    dots = codes @ rows.astype(np.int64).T
    for scores, indices, bad_row in results:
        assert bad_row == -1
        assert scores.tobytes() == results[0][0].tobytes()
        assert indices.tobytes() == results[0][1].tobytes()
        assert all(a >= b for row in np.take_along_axis(dots, indices, axis=1).tolist() for a, b in pairwise(row))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("query_count", [1, 300])
def test_queries_that_are_not_finite_are_refused(value: float, dtype: str, query_count: int) -> None:
    queries = np.resize(VECTORS, (query_count, 20)).copy()
    queries[query_count - 1, 7] = value
    rows, scales = _kernels.encode(VECTORS, dtype)
    with pytest.raises(ValueError, match=rf"queries\[{query_count - 1}\] is not finite"):
        _kernels.search(queries, rows, 70, dtype, scales)
    if dtype in ("float32", "float16"):
        candidates = np.tile(np.arange(70, dtype=np.uint32), (query_count, 1))
        with pytest.raises(ValueError, match=rf"queries\[{query_count - 1}\] is not finite"):
            _kernels.search_candidates(queries, rows, 70, dtype, candidates)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_encoded_rows_that_are_not_finite_are_found_by_the_search(value: float) -> None:
    vectors = VECTORS.copy()
    vectors[33, 5] = value
    rows, scales = _kernels.encode(vectors, "int8")
    assert _kernels.search(VECTORS[:2], rows, 3, "int8", scales)[2] == 33


@pytest.mark.parametrize("instruction_set", _kernels.encoder_instruction_sets())
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0])
def test_weights_that_are_not_finite(instruction_set: str, scale: float) -> None:
    encode(encoder(scale=scale), [1, 2, 3] * 4, [0, 5, 12], instruction_set=instruction_set)
    encode(encoder(epsilon=scale), [1, 2, 3] * 4, [0, 5, 12], instruction_set=instruction_set)


# --- arrays that another thread writes to


@pytest.mark.parametrize("changed", ["queries", "documents", "scales", "selected", "candidates", "ids"])
def test_arrays_that_change_during_the_call(changed: str) -> None:
    queries = np.ones((40, 64), np.float32)
    documents = np.ones((700, 64), np.float32)
    rows, scales = _kernels.encode(documents, "int8")
    selected = np.arange(700, dtype=np.uint32)
    candidates = np.tile(selected, (40, 1))
    ids, starts = np.ones(400, np.int32), np.arange(0, 401, 10)
    made = encoder()
    damage: dict[str, tuple[NDArray[Any], Any]] = {
        "queries": (queries, np.nan), "documents": (documents, np.nan), "scales": (scales, np.nan),
        "selected": (selected, 2**32 - 1), "candidates": (candidates, 2**32 - 1), "ids": (ids, 2**31 - 1),
    }  # fmt: skip
    array, value = damage[changed]
    good, done = array.copy(), threading.Event()

    def change() -> None:
        while not done.is_set():
            array[...] = value
            array[...] = good

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(40):
            try:
                if changed == "ids":
                    made.encode(ids, starts, np.zeros((40, HIDDEN), np.float32), 100, 1)
                    continue
                if changed == "candidates":
                    found = _kernels.search_candidates(queries, documents.view(np.uint8), 9, "float32", candidates)
                elif changed == "scales":
                    found = _kernels.search(queries, rows, 9, "int8", scales, threads=2)
                else:
                    found = _kernels.search(queries, documents.view(np.uint8), 9, selected=selected, threads=2)
            except ValueError:
                continue
            assert found[2] >= 0 or (found[1].min() >= 0 and found[1].max() < 700)
    finally:
        done.set()
        thread.join()
