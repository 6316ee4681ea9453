"""Tokenizers that were never damaged, but built to make much of a little: parts and sizes drawn at random.

See formats.py.
"""

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

from model_formats import Case, embed_all
from tiny_native_models import write_tiny_table

from gte_sdk import Embedder

_EXPRESSIONS = [
    "", "a*", "[a-z]", r"\s+", "(a|aa)+$", "(?=.)", ".", r"\p{L}+", "q*", "(a+)+b", "(?<=a)|(?=b)", "[^", "{", "(?i:A)",
    "a{1,1000}", "((a{1,100}){1,100}){1,100}", r"\G", "^|$",
]  # fmt: skip
_LITERALS = ["", " ", "a", "e", "ab", "x", "é", "▁", "\ufdfa", "[SEP]"]
_UNITS = ["", "x", "x ", "a", " ", ".", "\ufdfa", "é", "[SEP]", "中"]
_LENGTHS = [0, 1, 2, 3, 8, 30, 100, 1000, 1_000_000]
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}
_OTHER = {"Sequence": {"id": "B", "type_id": 0}}
_LONG = "a b e é 中 [SEP] ab, " * 500


def tokenizer_parts(folder: Path) -> Case:
    model = write_tiny_table(folder / "model")
    file = model / "tokenizer.json"
    whole = json.loads(file.read_bytes())

    def case(random: Random) -> None:
        state = json.loads(json.dumps(whole))
        for part in random.sample(
            ["normalizer", "pre_tokenizer", "post_processor", "added", "model", "sizes"], random.randrange(3)
        ):
            match part:
                case "normalizer":
                    state[part] = _sequence(random, "normalizers", _normalizer)
                case "pre_tokenizer":
                    state[part] = _sequence(random, "pretokenizers", _pre_tokenizer)
                case "post_processor":
                    state[part] = _sequence(random, "processors", _post_processor)
                case "added":
                    state["added_tokens"] += [_added(random, 200 + number) for number in range(random.choice([1, 50]))]
                case "model":
                    name = random.choice(["unk_token", "continuing_subword_prefix", "max_input_chars_per_word"])
                    is_number = name == "max_input_chars_per_word"
                    value: Any = random.choice([0, 1, 1000, 10**9, 2**64 - 1]) if is_number else _text(random)
                    state["model"][name] = value
                    if name == "unk_token":
                        state["model"]["vocab"][value] = 1
                case _:
                    state["padding"] = _padding(random)
                    state["truncation"] = random.choice([None, _truncation(random)])
        file.write_text(json.dumps(state), encoding="utf-8")
        embed_all(model)
        with Embedder(model, offline=True, truncation="ignore") as embedder:
            embedder.embed([_LONG])

    return case


def _text(random: Random) -> str:
    return random.choice(_UNITS) * random.choice(_LENGTHS)


def _sequence(random: Random, parts: str, part: Any) -> Any:
    count = random.choice([0, 1, 1, 2, 3, 10, 400])
    steps = [part(random) for _ in range(min(count, 10))]
    if count == 400 and sum(len(str(step)) for step in steps) < 2**16:  # or the file is too long to be read
        steps = steps * 40
    if count and random.random() < 0.2:
        steps = [{"type": "Sequence", parts: steps}] * random.choice([1, 2, 5])
    return {"type": "Sequence", parts: steps}


def _pattern(random: Random) -> dict[str, str]:
    if random.random() < 0.5:
        return {"Regex": random.choice(_EXPRESSIONS)}
    return {"String": random.choice(_LITERALS)}


def _normalizer(random: Random) -> dict[str, Any]:
    match random.randrange(7):
        case 0 | 1 | 2:
            return {"type": "Replace", "pattern": _pattern(random), "content": _text(random)}
        case 3:
            return {"type": "Prepend", "prepend": _text(random)}
        case 4:
            blob = b"\0".join(_text(random).encode() for _ in range(3)) + b"\0" * random.randrange(2)
            trie = random.choice([b"", bytes(1024), random.randbytes(64), random.randbytes(1024)])
            size = random.choice([len(trie), len(trie), 2**32 - 1, 3])
            content = size.to_bytes(4, "little") + trie + blob
            return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}
        case 5:
            return {"type": "Strip", "strip_left": True, "strip_right": True}
        case _:
            return {"type": random.choice(["NFC", "NFKD", "NFKC", "Lowercase", "StripAccents", "Nmt", "ByteLevel"])}


def _pre_tokenizer(random: Random) -> dict[str, Any]:
    behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    match random.randrange(5):
        case 0:
            return {"type": "Split", "pattern": _pattern(random), "behavior": random.choice(behaviors),
                    "invert": random.random() < 0.5}  # fmt: skip
        case 1:
            return {"type": "Metaspace", "replacement": random.choice("▁é_"), "split": random.random() < 0.5,
                    "prepend_scheme": random.choice(["always", "never", "first"])}  # fmt: skip
        case 2:
            return {"type": "ByteLevel", "add_prefix_space": random.random() < 0.5, "trim_offsets": True,
                    "use_regex": random.random() < 0.5}  # fmt: skip
        case 3:
            return {"type": "Punctuation", "behavior": random.choice(behaviors)}
        case _:
            return {"type": random.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"])}


def _post_processor(random: Random) -> dict[str, Any]:
    if random.random() < 0.2:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    special = {"SpecialToken": {"id": "[X]", "type_id": random.choice([0, 0, 1])}}
    single = [special] * random.choice([0, 1, 20, 2000]) + [_TEXT] * random.choice([0, 1, 1, 1, 2, 3])
    count = random.choice([1, 1, 2, 1000, 100_000])
    name = random.choice(["[X]", "[X]", "x" * 10_000])
    ids = [random.choice([2, 2, 10**6, 2**32 - 1])] * count
    specials = {"[X]": {"id": "[X]", "ids": ids, "tokens": [name] * min(count, 1000) + ["x"] * max(0, count - 1000)}}
    return {"type": "TemplateProcessing", "single": single, "pair": [_TEXT, _OTHER], "special_tokens": specials}


def _added(random: Random, number: int) -> dict[str, Any]:
    flags = {name: random.random() < 0.3 for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    return {"id": random.choice([number, 1, 10**9]), "content": random.choice([_text(random), f"a{number}"]), **flags}


def _padding(random: Random) -> dict[str, Any]:
    strategy = random.choice(["BatchLongest", {"Fixed": random.choice([0, 8, 10**9, 2**62])}])
    return {"strategy": strategy, "direction": "Right", "pad_to_multiple_of": random.choice([None, 0, 8, 2**62]),
            "pad_id": 0, "pad_type_id": 0, "pad_token": _text(random)}  # fmt: skip


def _truncation(random: Random) -> dict[str, Any]:
    return {"direction": "Right", "max_length": random.choice([0, 1, 8, 2**62]), "strategy": "LongestFirst",
            "stride": random.choice([0, 1, 8, 2**62])}  # fmt: skip
