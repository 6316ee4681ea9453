"""Tokenization against the tokenizers library's own truncation, and the arithmetic of batches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.directory import TOKENIZER_JSON, bundled_model_path
from gte_sdk.runtime import tokens
from gte_sdk.runtime.text_pieces import PIECE_CHARACTERS
from gte_sdk.runtime.word_pieces import word_pieces_of

TOKENIZER = bundled_model_path("gte-mini") / TOKENIZER_JSON


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokens.load_tokenizer(TOKENIZER)


def reference_ids(text: str, max_tokens: int) -> list[int]:
    """What the tokenizers library gives when it truncates itself."""
    reference: Tokenizer = Tokenizer.from_file(str(TOKENIZER))
    reference.no_padding()
    reference.enable_truncation(max_tokens)
    ids: list[int] = reference.encode(text).ids
    return ids


@given(st.lists(st.text(max_size=300), max_size=8), st.integers(3, 40))
@settings(deadline=None, max_examples=60)
def test_ids_equal_the_librarys_own_truncation(texts: list[str], max_tokens: int) -> None:
    tokenized = tokens.tokenize(tokens.load_tokenizer(TOKENIZER), texts, max_tokens)
    assert tokenized.ids == [reference_ids(text, max_tokens) for text in texts]


def test_left_out_counts_the_tokens_beyond_the_limit(tokenizer: Tokenizer) -> None:
    # "one two three four" is four tokens; [CLS] and [SEP] take two of the limit.
    tokenized = tokens.tokenize(tokenizer, ["one two three four", "one"], 5)
    assert tokenized.left_out == [1, 0]
    assert [tokenizer.id_to_token(token) for token in tokenized.ids[0]] == ["[CLS]", "one", "two", "three", "[SEP]"]


@pytest.mark.parametrize("text", ["one", "one " * PIECE_CHARACTERS, "é " * PIECE_CHARACTERS, ""])
@pytest.mark.parametrize("max_tokens", [1, 0, -5])
def test_fewer_tokens_than_the_special_ones_are_refused(tokenizer: Tokenizer, text: str, max_tokens: int) -> None:
    word_pieces = word_pieces_of(tokenizer, tokens.special_tokens_around(tokenizer))
    for pieces in (None, word_pieces):
        with pytest.raises(InputError, match=f"max_tokens={max_tokens} is below the 2 special tokens of every text"):
            tokens.tokenize(tokenizer, [text], max_tokens, word_pieces=pieces)
    assert word_pieces is not None
    with pytest.raises(InputError, match=f"max_tokens={max_tokens}"):
        word_pieces.encode([text], max_tokens, 1)
    assert [len(row) for row in tokens.tokenize(tokenizer, [text], 2, word_pieces=word_pieces).ids] == [2]


def test_prompt_stands_before_the_text(tokenizer: Tokenizer) -> None:
    assert tokens.tokenize(tokenizer, ["b"], 9, "query: ").ids == tokens.tokenize(tokenizer, ["query: b"], 9).ids


@pytest.mark.parametrize("characters", ["word ", "a-b, c\n", "\u6f22 ", "x"])
def test_a_long_text_in_pieces_equals_the_whole(tokenizer: Tokenizer, characters: str) -> None:
    text = characters * (3 * PIECE_CHARACTERS // len(characters))
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    room = 100_000
    tokenized = tokens.tokenize(tokenizer, [text], room)
    expected = tokenizer.encode(text).ids
    if len(whole) > room - 2:
        expected = [*expected[: room - 1], expected[-1]]
    assert tokenized.ids[0] == expected
    assert tokenized.left_out == [max(0, len(whole) - (room - 2))]


def test_lone_surrogate_is_the_replacement_character_and_a_pair_is_its_character(tokenizer: Tokenizer) -> None:
    assert tokens.encodable("a\ud800b") == "a\ufffdb"
    assert tokens.encodable("\ud83d\ude00") == "\U0001f600"
    assert tokens.encodable("plain \u00e9") == "plain \u00e9"
    assert tokens.tokenize(tokenizer, ["a\ud800b"], 9).ids == tokens.tokenize(tokenizer, ["a\ufffdb"], 9).ids


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 512), st.one_of(st.none(), st.integers(1, 9)))
def test_batches_cover_every_row_once_within_the_budget(lengths: list[int], budget: int, max_rows: int | None) -> None:
    batches = list(tokens.batches_by_tokens(lengths, budget, max_rows))
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(lengths)))
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
        assert max_rows is None or len(batch) <= max_rows


def test_equal_lengths_keep_the_callers_order() -> None:
    (batch,) = tokens.batches_by_tokens([5] * 100, 10_000)
    assert batch.tolist() == list(range(100))


def test_pad_batch_pads_on_the_right_and_masks() -> None:
    batch = tokens.pad_batch([[7, 8, 9], [7]], pad_id=1)
    np.testing.assert_array_equal(batch.input_ids, [[7, 8, 9], [7, 1, 1]])
    np.testing.assert_array_equal(batch.attention_mask, [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(batch.token_type_ids, np.zeros((2, 3)))
    assert {array.dtype for array in batch} == {np.dtype(np.int64)}


@given(
    st.lists(st.sampled_from(["one", "two-three", "unbelievableness", "x.y", "\n\n", "42"]), max_size=80),
    st.integers(6, 20),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_chunks_cover_the_text_and_keep_to_the_limit(words: list[str], room: int, overlap: int) -> None:
    tokenizer = tokens.load_tokenizer(TOKENIZER)
    text = " ".join(words)
    spans_with_ids = list(tokens.chunk_spans(tokenizer, text, room, overlap))
    spans = [span for span, _ in spans_with_ids]
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = [tokenizer.encode(text[span.start : span.end], add_special_tokens=False).ids for span in spans]
    assert [ids for _, ids in spans_with_ids] == pieces
    assert [whole[span.first : span.last] for span in spans] == pieces
    assert all(0 < len(piece) <= room for piece in pieces)
    assert [span.start for span in spans] == sorted({span.start for span in spans})
    if overlap == 0:
        assert [token for piece in pieces for token in piece] == whole
    covered = {position for span in spans for position in range(span.start, span.end)}
    assert {position for position, character in enumerate(text) if not character.isspace()} <= covered


def test_chunks_of_a_word_longer_than_a_piece(tokenizer: Tokenizer) -> None:
    text = "antidisestablishmentarianism" * 3
    spans = tokens.chunk_spans(tokenizer, text, 4, 0)
    assert "".join(text[span.start : span.end] for span, _ in spans) == text


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0", "model": {"type": "Unknown"}}'])
def test_a_damaged_tokenizer_is_an_error_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json is not a readable"):
        tokens.load_tokenizer(path)
    with pytest.raises(ModelFormatError, match="is missing"):
        tokens.load_tokenizer(tmp_path / "absent.json")


def test_pad_token_id_by_name(tokenizer: Tokenizer) -> None:
    assert tokens.pad_token_id(tokenizer) == 0
    assert tokens.pad_token_id(Tokenizer(WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))) == 1
