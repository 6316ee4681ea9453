"""Refuses a tokenizer that makes much of a little: its memory and time would have no bound, whatever the text.

A tokenizer.json may replace a space by a megabyte, do so several times in a row, repeat the text or add thousands of
tokens. Rust ends the process where memory runs out, so such a file is refused as it is opened. What the tokenizers of
published models do is below each limit. Regular expressions are bounded by Oniguruma itself, by its retries.
"""

import base64
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import ModelPath

MOST_GROWTH = 256
"""Characters that one character of a text may become: XLM-R's may become 72, Model2Vec's multilingual ones 216."""
MOST_STEPS = 256
MOST_SPECIAL_TOKENS = 1000
MOST_NAME_CHARACTERS = 100
"""Of the unknown token, which stands for each unknown word, and of what stands before or behind pieces of words."""
MOST_WORD_CHARACTERS = 1000
"""Of a word for WordPiece, whose time grows with its square; BERT has 100."""
MOST_ADDED_CHARACTERS = 2**20
"""Of all added tokens: 3 s to read."""
MOST_CHARSMAP_BYTES = 2**22
"""Of SentencePiece's table that replaces characters; XLM-R's has 0.24 MB."""
MOST_UNIGRAM_BYTES = 8 * 2**20
"""Of all pieces of a Unigram vocabulary, each of which takes up to 270 bytes of memory; XLM-R has 2 MB."""
# A smaller file than this is within the limits of the two lines above, so it need not be parsed twice.
_PARSED_BYTES = 2**20
_CHECKED_KEYS = frozenset({"model", "vocab", "added_tokens", "precompiled_charsmap"})
# Tables of characters, added tokens to normalize, and letters written as their codes, which could hide either.
_READ_WITH_CARE = re.compile(r'charsmap|"normalized"\s*:\s*true|\\u00[4-7]')
_REMEDY = "use the tokenizer.json that the model was published with"


def check_before_reading(path: ModelPath, text: str) -> None:
    """Refuses what takes the tokenizers library much memory or time to read. Raises ModelFormatError."""
    if len(text) <= _PARSED_BYTES and not _READ_WITH_CARE.search(text):
        return
    state = json.loads(text, object_pairs_hook=lambda pairs: _checked_object(path, pairs))
    if not isinstance(state, dict):
        return
    # The library normalizes added tokens as it reads them.
    _check_steps(path, [] if state.get("normalizer") is None else [*_steps(state["normalizer"], "normalizers")])
    model, added = state.get("model"), state.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        pieces = (str(row[0]) for row in vocabulary if isinstance(row, list) and row)
        count = sum(len(piece.encode("utf-8", "surrogatepass")) for piece in pieces)
        _check(path, "the pieces of its vocabulary have {} bytes", count, MOST_UNIGRAM_BYTES)
    if isinstance(added, list):
        contents = (str(token.get("content", "")) for token in added if isinstance(token, dict))
        _check(path, "its added tokens have {} characters", sum(map(len, contents)), MOST_ADDED_CHARACTERS)


def check_tokenizer(path: ModelPath, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer of which a short text would take much memory or time. Raises ModelFormatError."""
    steps = [*_flat(tokenizer.normalizer, "normalizers"), *_flat(tokenizer.pre_tokenizer, "pretokenizers")]
    _check_steps(path, steps)
    for step in _flat(tokenizer.post_processor, "processors"):
        if step.get("type") == "TemplateProcessing":
            texts = sum("Sequence" in piece for piece in step["single"])
            if texts != 1:
                raise ModelFormatError(f"{path}: its post-processor repeats the text {texts} times; {_REMEDY}")
    special = tokenizer.num_special_tokens_to_add(False)
    _check(path, "it adds {} tokens to each text", special, MOST_SPECIAL_TOKENS)
    model: Any = tokenizer.model
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        length = len(getattr(model, name, None) or "")
        _check(path, f"its {name} has {{}} characters", length, MOST_NAME_CHARACTERS)
    longest_word = getattr(model, "max_input_chars_per_word", 0)
    _check(path, "its words have up to {} characters", longest_word, MOST_WORD_CHARACTERS)
    if dropout := getattr(model, "dropout", None):
        raise ModelFormatError(
            f"{path} leaves out merges by chance (dropout={dropout:.2g}), so one text would have many vectors; set "
            "dropout to null"
        )


def _check_steps(path: ModelPath, steps: list[dict[str, Any]]) -> None:
    _check(path, "it changes a text in {} steps", len(steps), MOST_STEPS)
    _check(path, "it makes up to {} characters of one", _growth(steps), MOST_GROWTH)


def _check(path: ModelPath, what: str, number: float, most: int) -> None:
    if number > most:
        shown = f"{number:,.0f}" if number < 1e15 else f"{number:.0e}"
        raise ModelFormatError(f"{path}: {what.format(shown)}, and at most {most:,} are read; {_REMEDY}")


def _checked_object(path: ModelPath, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without doubles of the keys that are checked: Python keeps the last, the library reads each."""
    value = dict(pairs)
    if len(value) < len(pairs) and not _CHECKED_KEYS.isdisjoint(value):
        raise ValueError("a key stands there twice")
    if "precompiled_charsmap" in value:
        content = base64.b64decode(value["precompiled_charsmap"])
        if len(content) > MOST_CHARSMAP_BYTES:
            raise ModelFormatError(
                f"{path}: its table that replaces characters has {len(content):,} bytes, and at most "
                f"{MOST_CHARSMAP_BYTES:,} are read; {_REMEDY}"
            )
        size = int.from_bytes(content[:4], "little")  # for which the library makes room before it reads on
        if size > len(content) - 4:
            raise ModelFormatError(f"{path}: its table of {size} bytes that replaces characters is cut off; {_REMEDY}")
    return value


def _flat(component: Any, parts: str) -> list[dict[str, Any]]:
    """The steps of a component in their order, as tokenizer.json writes them."""
    return [] if component is None else [*_steps(json.loads(component.__getstate__()), parts)]


def _steps(state: dict[str, Any], parts: str) -> Iterator[dict[str, Any]]:
    if state.get("type") == "Sequence":
        for part in state[parts]:
            yield from _steps(part, parts)
    else:
        yield state


def _growth(steps: list[dict[str, Any]]) -> float:
    """How many characters, or bytes of a byte-level tokenizer, one character of a text may become at the end.

    Goes through the steps from the last to the first, with what each character becomes from there on. Unicode's normal
    forms and cases are no step of it: repeated or joined, they make up to 18 of one, which is U+FDFA.
    """
    becomes: dict[str, float] = {}
    most = 1.0  # of any other character

    def length(text: str) -> float:
        """What a text becomes that the file holds. In a normal form, which may be a later step, it is longer."""
        return sum(count * becomes.get(character, most) for character, count in _decomposed(text).items())

    for step in reversed(steps):
        kind = step.get("type")
        factor, added = 1.0, 0.0
        if kind == "Replace" and (literal := step["pattern"].get("String")):
            share = length(step["content"]) / len(literal)
            becomes |= {character: max(becomes.get(character, most), share) for character in literal}
        elif kind == "Replace":  # an expression, or nothing, may be found before each character
            added = length(step["content"])
        elif kind == "Prepend":  # and a text of one character may stand between any two added tokens
            added = length(step["prepend"])
        elif kind == "Metaspace":
            added = length(step["replacement"])
        elif kind == "BertNormalizer":
            added = 2 * length(" ")
        elif kind == "ByteLevel":
            factor, added = 4.0, length(" ")
        elif kind == "Precompiled":
            factor = _longest_replacement(step["precompiled_charsmap"])
        if factor > 1 or added > 0:
            everything = max([most, *becomes.values()])
            becomes = {character: number + added for character, number in becomes.items()} if factor == 1 else {}
            most = most + added if factor == 1 else factor * everything + added
    return max([most, *becomes.values()])


def _longest_replacement(charsmap: str) -> int:
    """Characters of the longest text that SentencePiece's table replaces a character by, in Unicode's longest form."""
    content = base64.b64decode(charsmap)
    texts = content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")
    return max(_decomposed(text.decode("utf-8", "replace")).total() for text in texts)


def _decomposed(text: str) -> Counter[str]:
    """Counts the characters of a text in NFKD, which as a whole would take the square of its length on some systems."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        for part in unicodedata.normalize("NFKD", character):
            counts[part] += count
    return counts
