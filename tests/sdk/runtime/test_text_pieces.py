"""Texts in pieces: the ids of the whole text, from each kind of tokenizer, in memory that does not grow with it.

`make fuzz` runs more examples and longer texts (GTE_FUZZ_CASES).
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gte_sdk.model_files.directory import bundled_model_path
from gte_sdk.runtime import text_pieces, tokens
from gte_sdk.runtime.text_pieces import Piece, TextPieces
from gte_sdk.runtime.tokens import chunk_spans, encodable, load_tokenizer, tokenize
from gte_sdk.runtime.word_pieces import SPLIT_CASE

from ..run_python import run_python
from ..tiny_models import write_tiny_model

LONG_RUN = "GTE_FUZZ_CASES" in os.environ
EXAMPLES = 2000 if LONG_RUN else 80
GTE_MINI = load_tokenizer(bundled_model_path("gte-mini") / "tokenizer.json")
WORDS = [
    "a",
    "b",
    "##a",
    "##b",
    "ab",
    "##ab",
    "A",
    "##B",
    "Ab",
    "中",
    "か",
    "##か",
    ",",
    "[",
    "]",
    "é",
    "##é",
    "1",
    "##1",
    "ж",
]
CORPUS = ["some words, and more words. 1 2 34", "a b ab abc 中文 かな é è ü", "New York City! [x] (y) {z}"] * 20
# What tokenizers treat in ways of their own: marks, controls, white space of all kinds, decompositions that are
# punctuation, letters that change under lowercase, ideographs, kana, surrogates' neighbours, added tokens.
PARTS = [
    *"aAbB1,.-[] \n\t中か。жéß", "\u0301", "\u0323", "\0", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u2028",
    "\u3000", "\u200b", "\u1fef", "\u226e", "\u037e", "\u0130", "\uac00", "\U0001f600", "\ufffd", "\u0344", "\ufb01",
    "\U00020000", "[SEP]", "[SE", "P]", "aB", "ABcd", "  ", "a" * 120, "か" * 130, "\0" * 60, "\u0301" * 60, "ab,",
    "[[SEP]]", "<mask>",
]  # fmt: skip


def bert(split_case: bool = False, **normalizer: Any) -> Tokenizer:
    words = ["[UNK]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(
        models.WordPiece(
            {word: place for place, word in enumerate(words)}, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment, unused-ignore]
    state = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    steps = [SPLIT_CASE] * split_case + [{**state, "lowercase": True, **normalizer}]
    content = json.loads(tokenizer.to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": steps} if split_case else steps[0]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens(["[SEP]"])
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment, unused-ignore]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("[SEP]", rstrip=True)])
    return tokenizer


def metaspace() -> Tokenizer:
    """As XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])  # type: ignore[assignment, unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment, unused-ignore]
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment, unused-ignore]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"])
    )
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


BERTS = {
    "gte-mini": GTE_MINI,
    "uncased": bert(),
    "cased": bert(lowercase=False),
    "cased, stripped": bert(lowercase=False, strip_accents=True),
    "uncased, accents": bert(strip_accents=False),
    "not cleaned": bert(clean_text=False),
    "no ideographs": bert(handle_chinese_chars=False),
    "split case": bert(split_case=True),
    "split case, cased": bert(split_case=True, lowercase=False),
}
OTHERS = {"byte level": byte_level(), "metaspace": metaspace()}


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def ids_in_pieces(tokenizer: Tokenizer, text: str, prompt: str = "") -> list[int]:
    pieces = list(TextPieces(tokenizer).of(text, prompt))
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])][: len(pieces)]
    assert not pieces or pieces[-1].end == len(prompt + text)
    return [id for piece in pieces for id in ids_of(tokenizer, piece.text)]


def test_the_tokenizers_of_bert_are_known() -> None:
    for tokenizer in BERTS.values():
        assert TextPieces(tokenizer)._is_bert
    for tokenizer in OTHERS.values():
        assert TextPieces(tokenizer)._cuts_at_spaces


@pytest.mark.parametrize("name", BERTS)
@given(
    parts=st.lists(st.sampled_from(PARTS) | st.characters(exclude_categories=["Cs"]), max_size=60),
    prompt=st.sampled_from(["", "query: ", "a"]),
    characters=st.integers(8, 40),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_pieces_of_any_text_have_the_ids_of_the_whole(
    name: str, parts: list[str], prompt: str, characters: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pieces, "PIECE_CHARACTERS", characters)
        text = "".join(parts)
        assert ids_in_pieces(BERTS[name], text, prompt) == ids_of(BERTS[name], prompt + text)


@pytest.mark.parametrize("name", OTHERS)
@given(
    words=st.lists(
        st.sampled_from([*PARTS[:20], "some", "word", "City!", "[x]", "34", "é", "ü.", "<mask>"]), max_size=60
    )
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_other_tokenizers_are_cut_between_words(name: str, words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pieces, "PIECE_CHARACTERS", 64)
        text = " word ".join(words)
        assert ids_in_pieces(OTHERS[name], text) == ids_of(OTHERS[name], text)


@pytest.mark.parametrize("name", OTHERS)
def test_a_text_full_of_added_tokens_is_cut_between_words(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pieces, "PIECE_CHARACTERS", 64)
        text = "A word <mask> " + "word <mask> " * 40
        assert ids_in_pieces(OTHERS[name], text) == ids_of(OTHERS[name], text)


@given(
    parts=st.lists(st.sampled_from(PARTS), max_size=60), room=st.integers(3, 12), overlap=st.integers(0, 2),
    characters=st.sampled_from([8, 20, 10_000]),
)  # fmt: skip
@settings(deadline=None, max_examples=EXAMPLES)
def test_spans_are_those_of_the_whole_text(parts: list[str], room: int, overlap: int, characters: int) -> None:
    text = "".join(parts)
    whole = list(chunk_spans(GTE_MINI, text, room, overlap))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pieces, "PIECE_CHARACTERS", characters)
        found = list(chunk_spans(GTE_MINI, text, room, overlap))
    assert [ids for _, ids in found] == [ids for _, ids in whole]
    assert [(span.first, span.last) for span, _ in found] == [(span.first, span.last) for span, _ in whole]
    assert all(0 <= span.start <= span.end <= len(text) for span, _ in found)


# Of each kind of text without white space, one that is longer than a piece.
LONG = {
    "digits": "1,", "ideographs": "中", "punctuation": "中。", "kana": "か", "letters": "a", "accents": "é",
    "marks": "\u0301", "nothing": "\0", "emoji": "\U0001f600", "added tokens": "[SEP]", "case": "aB", "brackets": "[",
    "lines": "a\n", "surrogates": "a\ud800",
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_a_long_text_has_the_ids_and_the_count_of_the_whole(name: str, prompt: str) -> None:
    text = LONG[name] * (40_000 // len(LONG[name]))
    expected = ids_of(GTE_MINI, encodable(prompt + text))
    for room in (32, 100_000):
        tokenized = tokenize(GTE_MINI, [text, "short"], room + 2, prompt)
        assert tokenized.ids[0][1:-1] == expected[:room]
        assert tokenized.left_out == [max(0, len(expected) - room), 0]


class ReadTexts(TextPieces):
    """Notes how far each text is read."""

    def of(self, text: str, prompt: str = "") -> Iterator[Piece]:
        for piece in super().of(text, prompt):
            self.end = piece.end
            yield piece


@pytest.mark.parametrize(
    ("text", "is_counted"),
    [
        ("中" * 120_000, False),
        ("か " * 60_000, False),
        ("[SEP]中。" * 20_000, False),
        ("か" * 120_000 + " 中" * 100, True),  # one unknown word, and then what the ids need too
        ("\xa0" * 120_000 + "中" * 100, True),
        ("中" * 40_000, True),
    ],
)
def test_a_text_is_read_until_its_ids_are_known_and_not_for_the_count_alone(
    monkeypatch: pytest.MonkeyPatch, text: str, is_counted: bool
) -> None:
    monkeypatch.setattr(tokens, "COUNTED_CHARACTERS", 40_000)
    pieces = ReadTexts(GTE_MINI)
    tokenized = tokenize(GTE_MINI, [text], 32, text_pieces=pieces)
    expected = ids_of(GTE_MINI, text)
    assert tokenized.ids[0][1:-1] == expected[:30]
    if is_counted:
        assert (tokenized.left_out, pieces.end) == ([len(expected) - 30], len(text))
    else:
        assert 30 < tokenized.left_out[0] < len(expected) - 30
        assert pieces.end <= 40_000 + text_pieces.PIECE_CHARACTERS


# What is done with texts, each after the other in one process: its peak is the highest of all of them.
LENGTH = 3_000_000 if LONG_RUN else 300_000
USES = [
    *(f"table.embed({part!r} * {LENGTH // len(part)})" for part in LONG.values()),
    f"""table.embed(['{{"a":1,' * {LENGTH // 4}] * 20)""",
    f"table.embed(['中' * {LENGTH // 20}] * 20)",
    f"table.embed(['中' * 10_000 for _ in range({LENGTH // 10_000})])",
    f"table.embed_chunks('中,' * {LENGTH // 4})",
    "model.embed(['中,' * 20_000] * 4)",
    "model.embed_chunks('中,' * 2_000)",
    f"prompted.embed_query('中' * {LENGTH})",
    f"prompted.embed_query('1,' * {LENGTH})",
    f"prompted.embed_query(['word ' * {LENGTH // 3}] * 20)",
]
PROGRAM = """
import gc, resource, sys, warnings
warnings.simplefilter("ignore")
from gte_sdk import Embedder
from gte_sdk.runtime.idle_unload import return_free_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

table, model, prompted = Embedder("gte-nano"), Embedder("gte-mini", threads=2), Embedder(sys.argv[1])
for each in (table, model, prompted):
    each.embed(["word " * 600 + "é"] * 4)
idle, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for use in USES:
    exec(use)
    gc.collect(), return_free_memory()
    print(use, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - peak / 1e3, resident() - idle, sep="\t")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_text_takes_much_memory(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path, prompts={"query": "query : "})
    lines = run_python(PROGRAM.replace("USES", repr(USES)).replace("sys.argv[1]", repr(str(model)))).splitlines()
    used = {use: (float(peak), float(stays)) for use, peak, stays in (line.rsplit("\t", 2) for line in lines)}
    assert list(used) == USES
    assert max(peak for peak, _ in used.values()) <= 64, used
    assert max(stays for _, stays in used.values()) <= 20, used
