"""Tokenizers that make much of a little are refused as they are opened, and those of published models are not."""

import base64
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.model_files import tokenizer_bounds
from gte_sdk.model_files.tokenizer_bounds import (
    MOST_ADDED_CHARACTERS,
    MOST_CHARSMAP_BYTES,
    MOST_GROWTH,
    MOST_UNIGRAM_BYTES,
)
from gte_sdk.runtime.text_pieces import PIECE_CHARACTERS
from gte_sdk.runtime.tokens import load_tokenizer, tokenize

from ..run_python import run_python
from ..tiny_models import tiny_tokenizer, write_json, write_tiny_model

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
# That of U+FDFA is the longest of Unicode.
NFKC_TEXTS = [unicodedata.normalize("NFKC", character) for character in "\ufdfa\u2167\u00bd"]


def charsmap(texts: list[str]) -> str:
    """A table of SentencePiece's that replaces nothing, and could replace by these texts."""
    trie = bytes(4 * 256)
    return base64.b64encode(
        len(trie).to_bytes(4, "little") + trie + b"\0".join(text.encode() for text in texts) + b"\0"
    ).decode()


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def replace_regex(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def precompiled(texts: list[str]) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": charsmap(texts)}


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
QWEN_SPLIT = {
    "type": "Split", "behavior": "Isolated", "invert": False,
    "pattern": {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
                r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"},
}  # fmt: skip
ALBERT = [replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]


def pre_tokenizer(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


PUBLISHED: dict[str, tuple[Any, Any]] = {
    "BERT": ({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
              "lowercase": True}, {"type": "BertPreTokenizer"}),
    "RoBERTa": (None, BYTE_LEVEL),
    "XLM-R": (sequence(precompiled(NFKC_TEXTS), replace_regex(" {2,}", " ")),
              pre_tokenizer({"type": "WhitespaceSplit"}, METASPACE)),
    "ALBERT": (sequence(*ALBERT, precompiled(NFKC_TEXTS), replace_regex(" {2,}", " ")), METASPACE),
    "Model2Vec, multilingual": (
        sequence(precompiled(NFKC_TEXTS), *(replace(mark, f" {mark} ") for mark in PUNCTUATION),
                 replace_regex(r"\s+", " "), {"type": "Strip", "strip_left": True, "strip_right": True}), METASPACE),
    "Llama": (sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")), None),
    "Gemma": (replace(" ", "▁"), {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                  "invert": False}),
    "Qwen": ({"type": "NFC"}, pre_tokenizer(QWEN_SPLIT, BYTE_LEVEL)),
    "gte-nano": (sequence(replace_regex("(?<=[a-z0-9])(?=[A-Z])", " "), {"type": "Lowercase"}), None),
}  # fmt: skip


def written(folder: Path, **parts: Any) -> Path:
    """The tokenizer.json of a tiny model with these parts in the place of its own."""
    path = folder / "tokenizer.json"
    state = json.loads(tiny_tokenizer().to_str())
    path.write_text(json.dumps({**state, **parts}), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_tokenizers_do_is_read(tmp_path: Path, name: str) -> None:
    normalizer, split = PUBLISHED[name]
    tokenizer = load_tokenizer(written(tmp_path, normalizer=normalizer, pre_tokenizer=split))
    assert len(tokenizer.encode("red green").ids) >= 2


MUCH = "x" * 1_000_000
TOO_MUCH = f"makes up to .* characters of one, and at most {MOST_GROWTH}"
INFLATING: dict[str, dict[str, Any]] = {
    "a space": {"normalizer": replace(" ", MUCH)},
    "by several characters": {"normalizer": replace("a", "a" * 300)},
    "an expression": {"normalizer": replace_regex("[a-z]", MUCH)},
    "between all characters": {"normalizer": replace_regex("", MUCH)},
    "nothing": {"normalizer": replace("", MUCH)},
    "perhaps nothing": {"normalizer": replace_regex("q*", MUCH)},
    "a few steps": {"normalizer": sequence(*[replace("e", "eeeeeee")] * 3)},
    "steps in steps": {"normalizer": sequence(*[sequence(*[replace("e", "ee")] * 5)] * 2)},
    "one by another": {"normalizer": sequence(*(replace(a, b * 7) for a, b in ("ab", "bc", "cd")))},
    "by what a normal form makes long": {"normalizer": sequence(replace("a", "\ufdfa" * 20), {"type": "NFKD"})},
    "the beginning": {"normalizer": {"type": "Prepend", "prepend": MUCH}},
    "bytes of bytes": {"normalizer": sequence(*[{"type": "ByteLevel"}] * 20)},
    "bytes of bytes of words": {"pre_tokenizer": pre_tokenizer(*[BYTE_LEVEL] * 20)},
    "a table": {"normalizer": precompiled([MUCH])},
    "two tables": {"normalizer": sequence(*[precompiled(["x" * 17])] * 2)},
    "a table's normal form": {"normalizer": precompiled(["\ufdfa" * 15])},
}  # fmt: skip


@pytest.mark.parametrize("name", INFLATING)
def test_what_inflates_a_text_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, **INFLATING[name])
    with pytest.raises(ModelFormatError, match=TOO_MUCH) as raised:
        load_tokenizer(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).endswith("; use the tokenizer.json that the model was published with")


@pytest.mark.parametrize("normalizer", [replace("a", "\ufdfa" * 1_000_000), precompiled(["\ufdfa" * 1_000_000])])
def test_long_texts_are_normalized_one_character_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalizer: dict[str, Any]
) -> None:
    """Python's NFKD adds room for ten characters at a time, which takes hours where memory is copied each time."""
    normalized = []

    def normalize(form: Literal["NFKD"], text: str) -> str:
        normalized.append(text)
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(tokenizer_bounds, "unicodedata", SimpleNamespace(normalize=normalize))
    with pytest.raises(ModelFormatError, match="makes up to 18,000,000 characters of one"):
        load_tokenizer(written(tmp_path, normalizer=normalizer))
    assert normalized == ["\ufdfa"]


def test_a_table_of_characters_has_a_bounded_size(tmp_path: Path) -> None:
    path = written(tmp_path, normalizer=precompiled([""] * MOST_CHARSMAP_BYTES))
    with pytest.raises(ModelFormatError, match=f"its table that replaces characters has .* and at most {2**22:,} are"):
        load_tokenizer(path)


def test_added_tokens_are_not_inflated_as_they_are_read(tmp_path: Path) -> None:
    """The tokenizers library normalizes them before anybody can look at what it read."""
    token = {"id": 4, "content": "a" * 10_000, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": True, "special": False}  # fmt: skip
    path = written(tmp_path, normalizer=sequence(*[replace("a", "a" * 100)] * 9), added_tokens=[token])
    with pytest.raises(ModelFormatError, match=TOO_MUCH):
        load_tokenizer(path)


def template(single: list[Any], special: dict[str, Any] | None = None) -> dict[str, Any]:
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special or {}}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
TWICE = template([TEXT, TEXT])
SPECIAL = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}


def special_of(count: int) -> dict[str, Any]:
    return {"[CLS]": {"id": "[CLS]", "ids": [2] * count, "tokens": ["[CLS]"] * count}}


def word_level(**fields: Any) -> dict[str, Any]:
    return {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", **fields}


def word_piece(**fields: Any) -> dict[str, Any]:
    return {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, **fields}  # fmt: skip


def pairs(**fields: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], **fields}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the text twice": ({"post_processor": TWICE}, "repeats the text 2 times"),
    "the text often": ({"post_processor": {"type": "Sequence", "processors": [TWICE] * 40}}, "repeats the text 2 t"),
    "no text": ({"post_processor": template([SPECIAL], special_of(1))}, "repeats the text 0 times"),
    "many special tokens": ({"post_processor": template([SPECIAL] * 2000 + [TEXT], special_of(1))}, "adds 2,000 tok"),
    "one of many": ({"post_processor": template([SPECIAL, TEXT], special_of(5000))}, "adds 5,000 tokens to each text"),
    "many steps": ({"normalizer": sequence(*[{"type": "Lowercase"}] * 299)}, "changes a text in 300 steps"),
    "a long unknown word": ({"model": word_level(unk_token=MUCH, vocab={MUCH: 0})}, "unk_token has 1,000,000 char"),
    "a long prefix": ({"model": word_piece(continuing_subword_prefix=MUCH)}, "continuing_subword_prefix has 1,000,0"),
    "a long prefix of pairs": ({"model": pairs(continuing_subword_prefix=MUCH)}, "continuing_subword_prefix has 1,0"),
    "a long suffix": ({"model": pairs(end_of_word_suffix=MUCH)}, "end_of_word_suffix has 1,000,000 characters"),
    "long words": ({"model": word_piece(max_input_chars_per_word=10**9)}, "words have up to 1,000,000,000 characters"),
    "chance": ({"model": pairs(dropout=0.5)}, r"dropout=0\.5.*set dropout to null"),
    "long pieces": ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["x" * (MOST_UNIGRAM_BYTES + 1), 0.0]]}},
                    f"pieces of its vocabulary have {MOST_UNIGRAM_BYTES + 1:,} bytes"),
    "long added tokens": (
        {"added_tokens": [{"id": 0, "content": "x" * (MOST_ADDED_CHARACTERS + 1), "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": False}]}, "its added tokens have 1,0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_else_makes_much_of_a_little_is_refused(tmp_path: Path, name: str) -> None:
    parts, message = REFUSED[name]
    path = written(tmp_path, **parts)
    with pytest.raises(ModelFormatError, match=message) as raised:
        load_tokenizer(path)
    assert str(raised.value).startswith(str(path))


def test_a_part_that_stands_there_twice_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The tokenizers library reads both, and json the last."""
    path = tmp_path / "tokenizer.json"
    vocabulary = json.dumps([["x" * (MOST_UNIGRAM_BYTES + 1), 0.0]])
    small = '{"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}'
    path.write_text(f'{{"model": {{"type": "Unigram", "vocab": {vocabulary}}}, "model": {small}}}', encoding="utf-8")
    with pytest.raises(ModelFormatError, match="a key stands there twice"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "key", ["precompiled_charsmap", "precompiled_\\u0063harsmap", "\\u0070recompiled_charsm\\u0061p"]
)
@pytest.mark.parametrize("size", [2**32 - 1, 2**31, 1200])
def test_a_table_of_characters_that_is_cut_off_is_refused_before_it_is_read(
    tmp_path: Path, key: str, size: int
) -> None:
    """The tokenizers library makes room for the size that the table names, and ends the process where there is none."""
    table = base64.b64encode(size.to_bytes(4, "little") + bytes(1024)).decode()
    path = written(tmp_path, normalizer={"type": "Precompiled", "key": table})
    path.write_text(path.read_text(encoding="utf-8").replace('"key"', f'"{key}"'), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=f"its table of {size} bytes that replaces characters is cut off"):
        load_tokenizer(path)


def test_padding_to_a_length_in_the_file_is_never_done(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    state = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    padding = {"strategy": {"Fixed": 2**60}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    write_json(path / "tokenizer.json", {**state, "padding": padding})
    assert Embedder(path).embed(["red"]).shape == (1, 5)


EXPRESSION = "(a|aa)+$"
OF_EXPRESSIONS: dict[str, Callable[[Tokenizer], None]] = {
    "normalizer": lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace(Regex(EXPRESSION), "a")),
    "pre_tokenizer": lambda tokenizer: setattr(
        tokenizer, "pre_tokenizer", pre_tokenizers.Split(Regex(EXPRESSION), "isolated")
    ),
}


@pytest.mark.parametrize("part", OF_EXPRESSIONS)
def test_an_expression_with_endless_retries_is_an_error(
    tmp_path: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=None, special_tokens=[])
    OF_EXPRESSIONS[part](tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    opened = load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ModelFormatError, match=r"cannot tokenize a text: .*retry-limit-in-match over"):
        tokenize(opened, ["a" * 400 + "b"], 8)
    capfd.readouterr()  # Rust's own words


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read as Linux tells it")
def test_the_most_that_is_read_takes_bounded_memory(tmp_path: Path) -> None:
    """The worst of what is accepted, of a text of one piece: each character becomes words."""
    path = written(tmp_path, normalizer=replace("a", "x " * (MOST_GROWTH // 2)), pre_tokenizer={"type": "Whitespace"})
    run_python(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gte_sdk.runtime.tokens import load_tokenizer, tokenize\n"
        f"tokenizer = load_tokenizer(Path({str(path)!r}))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"tokenize(tokenizer, ['a' * {PIECE_CHARACTERS // 8}], 32)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "assert grown < 160 * 1024, grown\n"
    )
