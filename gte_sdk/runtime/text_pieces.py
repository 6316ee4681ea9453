"""Cuts a long text into pieces that are tokenized one by one, so that memory does not grow with the text.

A BERT tokenizer ends a word at white space, punctuation and ideographs, so the ids of pieces that are cut there are
those of the whole text. A run of other characters is one word: longer than the tokenizer's limit, it is one unknown
token, and a short stand-in takes its place. Other tokenizers are cut before a space between words, if that leaves their
ids as they are; a text without such a place is cut after every PIECE_CHARACTERS, where a token or two may then differ.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from gte_sdk.runtime.word_pieces import CASE_BOUNDARY, SPLIT_CASE, normalizer_steps

# A tokenizer takes up to 0.6 KB for each character.
PIECE_CHARACTERS = 16_384
_LONGEST_WORD, _LONGEST_ADDED_TOKEN = 1000, 100
_CASE_BOUNDARY = re.compile(CASE_BOUNDARY)
_UNKNOWN, _SEPARATOR, _JOINING, _DROPPED, _MIXED = range(5)
# A letter that no rule of a tokenizer treats in a way of its own.
_LETTER = "ж"
# A tokenizer that can be cut before a space gives these the same ids in two pieces.
_PROBES = (("ab", " cd"), ("a.", " b"), ("1", " 2 3"), ("a", " b c"), ("中", " a"), ("A", " éa"))

Read = Callable[[int, int], str]
"""The characters [start, end) of a text; fewer where the text ends."""


class Piece(NamedTuple):
    start: int
    end: int
    """The characters [start, end) of the text."""
    text: str
    """What to tokenize: these characters, or a stand-in with the same tokens."""
    positions: Sequence[int] | None = None
    """Of a stand-in: for each of its characters, the place in the text that it stands for."""


class TextPieces:
    """What is known of one tokenizer: the characters that end a word. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = list(tokenizer.get_added_tokens_decoder().values())
        self._kinds = bytearray(0x110000)
        steps = normalizer_steps(tokenizer)
        self._splits_case = steps[:1] == [SPLIT_CASE]
        model: Any = tokenizer.model
        self._is_bert = (
            isinstance(model, models.WordPiece)
            and model.max_input_chars_per_word <= _LONGEST_WORD
            and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and [step.get("type") for step in steps[self._splits_case :]] == ["BertNormalizer"]
            and all(self._begins_at_a_cut(token) for token in self._added)
        )
        self._longest_word = model.max_input_chars_per_word if self._is_bert else 0
        self._cuts_at_spaces = not self._is_bert and self._probe_spaces()

    def of(self, text: str, prompt: str = "") -> Iterator[Piece]:
        """The pieces of prompt + text, in order; a short text is one piece. The text has no lone surrogates."""
        length = len(prompt) + len(text)

        def read(start: int, end: int) -> str:
            if start >= len(prompt):
                return text[start - len(prompt) : end - len(prompt)]
            return (prompt + text[: max(0, end - len(prompt))])[start:end]

        start = 0
        while start < length:
            # What follows decides on a cut too: an added token or a case boundary may lie across it.
            window = read(start, start + PIECE_CHARACTERS + _LONGEST_ADDED_TOKEN)
            end = min(start + PIECE_CHARACTERS, length)
            if end < length:
                cut = self._last_cut(window)
                if cut is None and self._is_one_word(window[:PIECE_CHARACTERS]):
                    yield (word := self._long_word(read, start, length))
                    start = word.end
                    continue
                end = start + (cut or PIECE_CHARACTERS)
            yield Piece(start, end, window[: end - start])
            start = end

    def _last_cut(self, window: str) -> int | None:
        if not self._is_bert:
            return self._last_space(window) if self._cuts_at_spaces else None
        is_separator = self._kind(window[PIECE_CHARACTERS]) == _SEPARATOR
        for place in range(PIECE_CHARACTERS, 0, -1):
            is_after_separator = self._kind(window[place - 1]) == _SEPARATOR
            if (is_separator or is_after_separator) and not self._crosses_added_token(window, place):
                return place
            is_separator = is_after_separator
        if self._splits_case:
            places = [match.start() for match in _CASE_BOUNDARY.finditer(window[: PIECE_CHARACTERS + 2])]
            inside = [place for place in places if 0 < place <= PIECE_CHARACTERS]
            return next((place for place in reversed(inside) if not self._crosses_added_token(window, place)), None)
        return None

    def _last_space(self, window: str) -> int | None:
        for place in range(min(PIECE_CHARACTERS, len(window) - 2), 0, -1):
            is_between_words = window[place] == " " and window[place + 1].isalnum() and not window[place - 1].isspace()
            if is_between_words and not self._takes_space(window, place):
                return place
        return None

    def _takes_space(self, window: str, place: int) -> bool:
        """Whether the space at `place` is part of an added token, or is dropped beside one."""
        for token in self._added:
            first = place - len(token.content) + (not token.rstrip)
            last = place + len(token.content) + token.lstrip
            if window.find(token.content, max(0, first), last) >= 0:
                return True
        return False

    def _is_one_word(self, window: str) -> bool:
        return self._is_bert and all(self._kind(character) in (_JOINING, _DROPPED) for character in set(window))

    def _end_of_word(self, read: Read, start: int, length: int) -> int:
        place = start + 1
        while place < length:
            window = read(place - 1, place + PIECE_CHARACTERS + 2)  # what is before and after decides on a boundary
            new = window[1 : 1 + PIECE_CHARACTERS]
            ends = [new.index(character) for character in set(new) if self._kind(character) not in (_JOINING, _DROPPED)]
            if self._splits_case and (boundary := _CASE_BOUNDARY.search(window, 1)):
                ends.append(boundary.start() - 1)
            if ends and min(ends) < len(new):
                return place + min(ends)
            place += len(new)
        return length

    def _long_word(self, read: Read, start: int, length: int) -> Piece:
        end = self._end_of_word(read, start, length)
        kept: list[int] = []
        dropped = ""
        for first in range(start, end, PIECE_CHARACTERS):
            window = read(first, min(first + PIECE_CHARACTERS, end))
            for place, character in enumerate(window, first):
                if self._kind(character) == _JOINING:
                    kept.append(place)
                else:
                    dropped = character
                if len(kept) > self._longest_word:
                    break
            if len(kept) > self._longest_word:
                break
        # What is dropped stands between the others again, so that no case boundary appears where it was.
        text = dropped.join(read(place, place + 1) for place in kept)
        return Piece(start, end, text, [place for place in kept for _ in range(1 + len(dropped))])

    def _kind(self, character: str) -> int:
        code = ord(character)
        if not self._kinds[code]:
            self._kinds[code] = self._ask_kind(character)
        return self._kinds[code]

    def _ask_kind(self, character: str) -> int:
        normalize: Any = self._tokenizer.normalizer
        split: Any = self._tokenizer.pre_tokenizer
        words = [word for word, _ in split.pre_tokenize_str(normalize.normalize_str(_LETTER + character + _LETTER))]
        if len(words) == 1:
            return _JOINING if len(words[0]) > 2 else _DROPPED
        return _SEPARATOR if words[0] == _LETTER else _MIXED

    def _crosses_added_token(self, window: str, place: int) -> bool:
        character = window[place]
        return any(
            window.startswith(token.content, place - inside)
            for token in self._added
            for inside in range(1, len(token.content))
            if inside <= place and token.content[inside] == character
        )

    def _begins_at_a_cut(self, token: AddedToken) -> bool:
        """Whether the text before the token ends as that before any other separator."""
        plain = not (token.normalized or token.single_word or token.lstrip or token.rstrip)
        return plain and 0 < len(token.content) <= _LONGEST_ADDED_TOKEN and self._kind(token.content[0]) == _SEPARATOR

    def _probe_spaces(self) -> bool:
        try:
            return all(self._ids(before + after) == self._ids(before) + self._ids(after) for before, after in _PROBES)
        except BaseException as error:  # tokenizers raises a bare Exception, and panics that are none
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return False

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
