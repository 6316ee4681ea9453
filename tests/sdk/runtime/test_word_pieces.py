"""The tokenizer in C++ against the tokenizers library: the same ids for every ASCII text, and hands off the others."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from gte_sdk.model_files.directory import bundled_model_path
from gte_sdk.runtime import tokens
from gte_sdk.runtime.word_pieces import CASE_BOUNDARY, WordPieces, word_pieces_of

from ..tiny_models import tiny_tokenizer

TOKENIZER = tokens.load_tokenizer(bundled_model_path("gte-mini") / "tokenizer.json")
AROUND = tokens.special_tokens_around(TOKENIZER)
ODD = ["", " ", "\x00", "\x0b\x0cab", "a\x7fb", "\x1fend", "\r\n\t", "x" * 100, "x" * 101, "don't", "[sep]", "[[SEP]]"]
ODD += [
    "##ing",
    "#",
    "zzzqqqxxj",
    "Antidisestablishmentarianism",
    "f(x)=x**2;",
    "..." * 50,
    "[MASK]",
    "a[PAD]b",
    "_a_b_",
    "createdAt HTTPServer URLs utf8Name isA ABCd aB",
    "a\x00B a\x01Bcd AB\x7fcd A\tBc",
    "X",
    "XMLHTTPRequest2Go",
]


def pieces_of(tokenizer: Tokenizer) -> WordPieces:
    pieces = word_pieces_of(tokenizer, AROUND)
    assert pieces is not None
    return pieces


def with_normalizer(normalizer: normalizers.Normalizer) -> Tokenizer:
    changed = Tokenizer.from_str(TOKENIZER.to_str())
    changed.normalizer = normalizer  # type: ignore[assignment, unused-ignore]
    return changed


SPLIT_CASE = with_normalizer(
    normalizers.Sequence([normalizers.Replace(Regex(CASE_BOUNDARY), " "), normalizers.BertNormalizer()])
)
PIECES, SPLIT_CASE_PIECES = pieces_of(TOKENIZER), pieces_of(SPLIT_CASE)


def both_ways(texts: list[str], max_tokens: int, tokenizer: Tokenizer = TOKENIZER, pieces: WordPieces = PIECES) -> None:
    expected = tokens.tokenize(tokenizer, texts, max_tokens)
    assert tokens.tokenize(tokenizer, texts, max_tokens, "", pieces, 2) == expected


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(max_codepoint=0x7F), max_size=80), max_size=6), st.integers(3, 40))
def test_any_ascii_text_has_the_librarys_ids(texts: list[str], max_tokens: int) -> None:
    both_ways(texts, max_tokens)
    both_ways(texts, max_tokens, SPLIT_CASE, SPLIT_CASE_PIECES)


@settings(max_examples=300)
@given(st.lists(st.text("abXY1_ \x00", max_size=12), max_size=6))
def test_identifiers_are_cut_where_the_library_cuts_them(texts: list[str]) -> None:
    both_ways([*texts, *ODD], 64, SPLIT_CASE, SPLIT_CASE_PIECES)


def test_words_prompts_and_other_scripts_have_the_librarys_ids() -> None:
    choose = random.Random(3)
    vocabulary = sorted(TOKENIZER.get_vocab())
    alphabet = string.ascii_letters + string.digits + string.punctuation + " \n"
    texts = [
        "".join(choose.choices([*choose.sample(vocabulary, 8), *alphabet], k=choose.randint(1, 200)))
        for _ in range(200)
    ]
    both_ways([*texts, *ODD, "naïve café", "検索 search", "\ud800", "word " * 30_000], 64)
    assert any(text.isascii() for text in texts)
    expected = tokens.tokenize(TOKENIZER, ODD, 16, "query: ")
    assert tokens.tokenize(TOKENIZER, ODD, 16, "query: ", PIECES, 1) == expected


def test_what_is_not_plain_ascii_is_left_to_the_library() -> None:
    rows, left_out = PIECES.encode(["plain", "naïve", "a [SEP] b", "[sep]"], 5, 2)
    assert rows[0] == [101, TOKENIZER.token_to_id("plain"), 102]
    assert rows[1] is None
    assert rows[2] is None
    assert rows[3] is not None
    assert left_out == [0, 0, 0, 0]
    assert PIECES.encode(["one two three four"], 4, 1)[1] == [2]
    with pytest.raises(TypeError, match="texts must be str"):
        PIECES.encode([b"bytes"], 4, 1)  # type: ignore[list-item]


def test_a_tokenizer_that_keeps_the_case() -> None:
    cased = with_normalizer(normalizers.BertNormalizer(lowercase=False))
    both_ways(["Case and CASE", "lower", *ODD], 32, cased, pieces_of(cased))


def test_other_tokenizers_are_the_librarys_alone() -> None:
    assert word_pieces_of(tiny_tokenizer(), ([2], [3])) is None
    changed = Tokenizer.from_str(TOKENIZER.to_str())
    changed.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment, unused-ignore]
    assert word_pieces_of(changed, AROUND) is None
    replaced = normalizers.Replace("a", "b")
    for steps in ([replaced, normalizers.BertNormalizer()], [normalizers.BertNormalizer(), replaced], [], [replaced]):
        assert word_pieces_of(with_normalizer(normalizers.Sequence(steps)), AROUND) is None
    changed = Tokenizer.from_str(TOKENIZER.to_str())
    changed.add_tokens(["addedword"])
    assert word_pieces_of(changed, AROUND) is None
