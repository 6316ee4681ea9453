"""Arguments drawn at random: each call of the extension answers or refuses, and what it answers is possible."""

import os
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_sdk import _kernels

from .test_hostile_arguments import VOCABULARY, encode, encoder

# `make fuzz` tries more.
CASES = int(os.environ.get("GTE_FUZZ_CASES", "60"))
REFUSALS = (ValueError, TypeError, MemoryError)
SIZES = st.integers(0, 70) | st.sampled_from([127, 128, 129, 384])


@settings(max_examples=CASES, deadline=None)
@given(
    query_count=st.integers(0, 30), row_count=SIZES, dim=SIZES, k=st.integers(0, 80), threads=st.integers(0, 9),
    dtype=st.sampled_from(["float32", "float16", "int8", "binary", "int4"]), seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]), offset=st.sampled_from([-1, 0, 0, 0, 1]),
)  # fmt: skip
def test_searches_of_random_shapes(
    query_count: int, row_count: int, dim: int, k: int, threads: int, dtype: str, seed: int, scale: float, offset: int
) -> None:
    generator = np.random.default_rng(seed)
    queries = generator.standard_normal((query_count, dim)).astype(np.float32)
    vectors = (generator.standard_normal((row_count, dim)) * scale).astype(np.float32)
    try:
        rows, scales = _kernels.encode(vectors, dtype)
        rows = generator.integers(0, 256, (row_count, max(0, rows.shape[1] + offset)), np.uint8) if seed % 2 else rows
        scores, indices, bad_row = _kernels.search(queries, rows, k, dtype, scales, threads=threads)
    except REFUSALS:
        return
    if bad_row < 0:
        assert scores.shape == indices.shape == (query_count, k)
        assert np.abs(scores).max(initial=0) <= 1
        assert all(len(set(row)) == k and set(row) <= set(range(row_count)) for row in indices.tolist())


@settings(max_examples=CASES, deadline=None)
@given(
    ids=st.lists(st.integers(-1, VOCABULARY), max_size=40), starts=st.lists(st.integers(-2, 41), max_size=8),
    batch_tokens=st.integers(0, 50), threads=st.integers(0, 4), token_states=st.booleans(),
    instruction_set=st.sampled_from(_kernels.encoder_instruction_sets()), covers=st.booleans(),
)  # fmt: skip
def test_texts_of_random_lengths(
    ids: list[int], starts: list[int], batch_tokens: int, threads: int, token_states: bool, instruction_set: str,
    covers: bool,
) -> None:  # fmt: skip
    bounds = sorted({0, len(ids), *(start for start in starts if 0 <= start <= len(ids))}) if covers else starts
    if not bounds:
        return
    options: dict[str, Any] = {"token_states": token_states, "instruction_set": instruction_set}
    try:
        out = encode(encoder(), ids, bounds, batch_tokens=batch_tokens, threads=threads, **options)
    except REFUSALS:
        return
    assert np.isfinite(out).all()


MAY_BE_MISSING = ["positions", "embedding_norm", "projection", "bias", "attention_norm"]
MAY_BE_GIVEN = ["token_type_row", "relative_bias", "final_norm", "rotary", "padding_token", "padding_row"]
WIDTHS = st.sampled_from([64, 64, 64, 64, 64, 64, 128, 128, 66, 12, 0])


@settings(max_examples=CASES, deadline=None)
@given(
    hidden=WIDTHS, width=WIDTHS, wide=WIDTHS, heads=st.sampled_from([0, 1, 2, 2, 3, 4]),
    most_tokens=st.integers(0, 20) | st.just(2**60), window=st.integers(0, 30) | st.just(2**64 - 1),
    norm_first=st.booleans(), gated=st.booleans(), int8=st.booleans(),
    missing=st.sets(st.sampled_from(MAY_BE_MISSING), max_size=2),
    given=st.sets(st.sampled_from(MAY_BE_GIVEN), max_size=3),
    off=st.sampled_from([0, 0, 0, 0, 0, 1]), frequency=st.sampled_from([1.0, 1e30, np.nan]), layers=st.integers(0, 2),
    threads=st.integers(0, 4), maxima=st.booleans(),
)  # fmt: skip
def test_encoders_of_random_shapes(
    hidden: int, width: int, wide: int, heads: int, most_tokens: int, window: int, norm_first: bool, gated: bool,
    int8: bool, missing: set[str], given: set[str], off: int, frequency: float, layers: int, threads: int, maxima: bool,
) -> None:  # fmt: skip
    def ones(*shape: int) -> Any:
        return np.ones((*shape[:-1], shape[-1] + off), np.float32) / 9

    def product(inputs: int, outputs: int) -> Any:
        if int8:
            return np.ones((inputs, outputs), np.int8), ones(outputs), ones(outputs), ones(inputs), False
        return ones(outputs, inputs), None if "bias" in missing else ones(outputs)

    some = min(most_tokens, 20)
    try:
        made = _kernels.Encoder(
            np.ones((VOCABULARY, width), np.float32), None, hidden, heads, most_tokens, 1e-5, "cls", norm_first, "silu",
            gated,
            None if "positions" in missing else ones(some, width),
            ones(width) if "token_type_row" in given else None,
            None if "embedding_norm" in missing else (ones(width), ones(width)),
            None if "projection" in missing else (ones(hidden, width), None),
            ones(heads, max(0, 2 * some - 1)) if "relative_bias" in given else None,
            (ones(hidden), ones(hidden)) if "final_norm" in given else None,
            1 if "padding_token" in given else None, ones(width) if "padding_row" in given else None,
        )  # fmt: skip
        for _ in range(layers):
            made.add_layer(
                product(hidden, 3 * hidden), product(hidden, hidden), product(hidden, wide * (1 + gated)),
                product(wide, hidden), None if "attention_norm" in missing else (ones(hidden), ones(hidden)),
                (ones(hidden), ones(hidden)), window,
                np.full(hidden // max(heads, 1) // 2 + off, frequency, np.float32) if "rotary" in given else None,
            )  # fmt: skip
        ids, starts = np.ones(some + 3, np.int32), np.array([0, 1, 3, some + 3])
        out = np.full((3, hidden), np.nan, np.float32)
        if maxima:
            assert np.isfinite(
                [np.max(part) for layer in made.channel_maxima(ids, starts, threads) for part in layer]
            ).all()
        made.encode(ids, starts, out, 9, threads)
    except REFUSALS:
        return
    assert np.isfinite(out).all()


@settings(max_examples=CASES, deadline=None)
@given(shape=st.tuples(SIZES, SIZES, SIZES), mask_shape=st.none() | st.tuples(SIZES, SIZES))
def test_pooling_of_random_shapes(shape: tuple[int, int, int], mask_shape: tuple[int, int] | None) -> None:
    states = np.ones(shape, np.float32)
    mask = np.ones(shape[:2] if mask_shape is None else mask_shape, np.int64)
    try:
        means = _kernels.mean_pool(states, mask)
    except REFUSALS:
        return
    assert means.shape == (shape[0], shape[2])
    assert _kernels.normalize_rows(means).shape == means.shape


@settings(max_examples=CASES, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="ascii"), max_size=60) | st.text(max_size=9), max_size=40),
    room=st.integers(0, 9) | st.sampled_from([2**31, 2**63]), threads=st.integers(0, 4),
    longest_word=st.integers(0, 9) | st.sampled_from([100, 2**63]), lowercase=st.booleans(), split_case=st.booleans(),
)  # fmt: skip
def test_tokenizing_random_texts(
    texts: list[str], room: int, threads: int, longest_word: int, lowercase: bool, split_case: bool
) -> None:
    vocabulary = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##ab": 4, "A": 5, ".": 6, "": 7, "##": 8}
    pieces = _kernels.WordPieces(vocabulary, "##", "[UNK]", longest_word, lowercase, split_case, ["[SEP]"])
    ids, counts = pieces.encode(texts, room, threads)
    for row, count, text in zip(ids, counts, texts, strict=True):
        assert (row is not None) == (text.isascii() and "[SEP]" not in text)
        assert row is None or len(row) == min(room, count)
