"""The words of texts and questions, as the index of words takes them: identifiers whole and in parts.

SQLite's tokenizer lowers letters and cuts at every mark, so `get_user_name` would be found by its parts only and
`getUserName` as a whole only. Both get the other form beside their own: `getusername`, and `get user name`. A change of
this rule needs another FORMAT_VERSION (database.py), because words leave an index by the rule that they came by.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_WORDS = 100
"""The words of a question that are looked up; those after them are not."""

# ASCII only, so that the rule doesn't depend on the Unicode version of a Python.
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]+")
_CASE_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"\w+")
_LETTERS_AND_DIGITS = re.compile(r"[A-Za-z]\w*\d")


class QuestionWords(NamedTuple):
    words: list[str]
    """The different words in their order, each identifier whole and in parts; MAX_WORDS at most."""
    identifiers: list[str]
    """Those among them that are names in code by their form (`get_name`, `getName`, `E2BIG`, `HTTP`), or alone."""
    has_nothing_else: bool
    """Whether all words of the question are identifiers."""


def words_of_text(text: str) -> str:
    """Returns the text, followed by the other forms of its identifiers."""
    return " ".join([text, *(form for word in _ASCII_WORD.findall(text) for form in _other_forms(word))])


def words_of_question(question: str) -> QuestionWords:
    """Returns the words to look for. They are lower-case and hold letters and digits only."""
    found = [word for word in _WORD.findall(question) if word.strip("_")]
    words: dict[str, None] = {}
    identifiers: dict[str, None] = {}
    for word in found:
        whole = word.replace("_", "").lower()
        words[whole] = None
        if len(found) == 1 or _is_identifier(word):
            identifiers[whole] = None
        parts = [part.lower() for piece in word.split("_") for part in _CASE_BORDER.split(piece) if part]
        words.update(dict.fromkeys(parts if len(parts) > 1 else ()))
    looked_up = list(words)[:MAX_WORDS]
    return QuestionWords(
        looked_up,
        [word for word in identifiers if word in looked_up],
        all(word.replace("_", "").lower() in identifiers for word in found),
    )


def match_any(words: Sequence[str]) -> str:
    """Returns the FTS5 expression for any of the words. Each is a quoted string, in which nothing is an operator."""
    return " OR ".join('"' + word.replace('"', '""') + '"' for word in words)


def _other_forms(word: str) -> Iterator[str]:
    pieces = [piece for piece in word.split("_") if piece]
    if len(pieces) > 1:
        yield "".join(pieces)
    for piece in pieces:
        if len(parts := _CASE_BORDER.split(piece)) > 1:
            yield from parts


def _is_identifier(word: str) -> bool:
    inner = word.strip("_")
    return "_" in word or any(letter.isupper() for letter in inner[1:]) or bool(_LETTERS_AND_DIGITS.match(inner))
