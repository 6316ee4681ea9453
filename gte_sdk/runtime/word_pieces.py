"""BERT's tokenizer on ASCII text in C++ (csrc/tokenizer/word_pieces.hpp), for those tokenizer.json files that are one.

The tokenizers library takes 1.4 us a token, forty times what a token table takes for the vector; this takes a tenth of
it and gives the same ids (tests/sdk/runtime/test_word_pieces.py). Any other text is the library's.
"""

import json
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gte_sdk import _kernels
from gte_sdk.errors import InputError

# Where a word ends inside of an identifier: createdAt and HTTPServer are two words, HTTP and URLs are one.
CASE_BOUNDARY = "(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})"
# What cuts a text there before BertNormalizer takes the case away, as tokenizer.json writes it.
SPLIT_CASE = {"type": "Replace", "pattern": {"Regex": CASE_BOUNDARY}, "content": " "}


class WordPieces:
    """The ids of ASCII texts, special tokens in place. Safe to share between threads."""

    def __init__(self, pieces: _kernels.WordPieces, before: list[int], after: list[int]) -> None:
        self._pieces = pieces
        self._before = before
        self._after = after

    def encode(self, texts: list[str], max_tokens: int, threads: int) -> tuple[list[list[int] | None], list[int]]:
        """Of each text its ids, at most max_tokens of them, and how many are left out; None for what is not covered."""
        room = room_for_text(max_tokens, len(self._before) + len(self._after))
        rows, counts = self._pieces.encode(texts, room, threads)
        ids = [None if row is None else self._before + row + self._after for row in rows]
        return ids, [max(0, count - room) for count in counts]


def room_for_text(max_tokens: int, special_tokens: int) -> int:
    """How many tokens of a text itself there may be. Raises InputError where the special ones alone are too many."""
    if max_tokens < special_tokens:
        raise InputError(f"max_tokens={max_tokens} is below the {special_tokens} special tokens of every text")
    return max_tokens - special_tokens


def word_pieces_of(tokenizer: Tokenizer, around: tuple[list[int], list[int]]) -> WordPieces | None:
    """None for a tokenizer that does anything else than BERT's, a cut at changes of case (SPLIT_CASE) apart.

    around: the special tokens before and after a text.
    """
    model: Any = tokenizer.model
    steps = normalizer_steps(tokenizer)
    split_case = steps[:1] == [SPLIT_CASE]
    normalizer = steps[-1] if len(steps) == 1 + split_case else {}
    if not (
        isinstance(model, models.WordPiece)
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.post_processor, processors.TemplateProcessing | processors.BertProcessing)
    ):
        return None
    added = tokenizer.get_added_tokens_decoder().values()
    if any(token.normalized or token.single_word or token.lstrip or token.rstrip for token in added):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    if model.unk_token not in vocabulary:
        return None
    try:
        pieces = _kernels.WordPieces(
            vocabulary,
            model.continuing_subword_prefix,
            model.unk_token,
            model.max_input_chars_per_word,
            normalizer["lowercase"],
            split_case,
            [token.content for token in added],
        )
    except (TypeError, ValueError, RuntimeError):  # ids that are no int32
        return None
    return WordPieces(pieces, *around)


def normalizer_steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokenizer's normalizers in their order, as tokenizer.json writes them."""
    if tokenizer.normalizer is None:
        return []
    state: dict[str, Any] = json.loads(tokenizer.normalizer.__getstate__())  # type: ignore[no-untyped-call, unused-ignore]
    steps: list[dict[str, Any]] = state["normalizers"] if state["type"] == "Sequence" else [state]
    return steps
