"""Text to token batches: the one home of tokenization, truncation, prompts, padding and batching by tokens.

Runtime, training, mining and evaluation all come through here, so that a text has the same ids in each of them.
Batches are cut by padded tokens (rows x longest row), not by a count of texts: memory then follows the budget whatever
the lengths are, and sorting by length keeps the padding small.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from gte_sdk.errors import GteError, ModelFormatError
from gte_sdk.model_files.published import MAX_TOKENIZER_BYTES, ModelPath, read_text
from gte_sdk.model_files.tokenizer_bounds import check_before_reading, check_tokenizer
from gte_sdk.runtime.text_pieces import PIECE_CHARACTERS, Piece, TextPieces
from gte_sdk.runtime.word_pieces import WordPieces, room_for_text

# So many characters are tokenized at once: a tokenizer takes up to 0.6 KB for each.
GROUP_CHARACTERS = 2 * PIECE_CHARACTERS
COUNTED_CHARACTERS = 2**18
"""Behind so many characters of a text, what max_tokens leaves out need not be counted: up to 6 us a character."""
_FAILED = "tokenizer.json cannot tokenize a text"
_SURROGATE = re.compile("[\ud800-\udfff]")
# Texts of an Embedder that are tokenized and sorted together. Larger windows need less padding, but a few thousand
# texts are enough.
WINDOW_TEXTS = 2048


class TokenizedTexts(NamedTuple):
    ids: list[list[int]]
    """The token ids of each text, including special tokens, at most max_tokens of them."""
    left_out: list[int]
    """How many tokens of each text were cut off (0 if it fits); at least so many of a text above COUNTED_CHARACTERS."""

    def __getitem__(self, key: Any) -> Any:
        """As a tuple, and by the names of the model's inputs ("input_ids", ...), which are padded arrays (n, t)."""
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in TokenBatch._fields:
            raise KeyError(key)
        return getattr(pad_batch(self.ids), key)

    def keys(self) -> tuple[str, ...]:
        """The names of the model's inputs, so that `dict(...)` and `**` take them as sentence-transformers' tokens."""
        return TokenBatch._fields


class SpecialTokens(NamedTuple):
    """The ids that stand around the tokens of every text, such as those of [CLS] and [SEP]."""

    before: list[int]
    after: list[int]


class TokenBatch(NamedTuple):
    input_ids: NDArray[np.int64]
    """(n, t), padded on the right."""
    attention_mask: NDArray[np.int64]
    """(n, t), 1 for a token and 0 for padding."""
    token_type_ids: NDArray[np.int64]
    """(n, t), all zero: an embedded text is one segment."""


def load_tokenizer(path: ModelPath) -> Tokenizer:
    """Reads a tokenizer.json. The truncation and padding that it may carry are switched off: both are done here.

    Raises ModelFormatError where the file is missing, is no tokenizer, or makes much of a little (tokenizer_bounds.py).
    """
    tokenizer = read_tokenizer(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_tokenizer(path: ModelPath) -> Tokenizer:
    """As `load_tokenizer`, with the truncation and padding that the file carries still on."""
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; a model directory needs the fast tokenizer's tokenizer.json")
    with tokenizer_errors(f"{path} is not a readable tokenizer.json"):
        text = read_text(path, MAX_TOKENIZER_BYTES)
        check_before_reading(path, text)
        tokenizer: Tokenizer = Tokenizer.from_str(text)
        check_tokenizer(path, tokenizer)
    return tokenizer


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """What the tokenizers library raises, a bare Exception or a panic that is none, as ModelFormatError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, GteError):
        raise
    except BaseException as error:
        raise ModelFormatError(f"{what}: {error}; export or download the model again") from error


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_tokens: int,
    prompt: str = "",
    word_pieces: WordPieces | None = None,
    threads: int = 1,
    text_pieces: TextPieces | None = None,
) -> TokenizedTexts:
    """Token ids of `prompt + text` for each text, cut on the right to `max_tokens` (special tokens included).

    A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD, the replacement character. Memory is that of the ids
    kept and some 30 MB, whatever the texts are (text_pieces.py). A text is read until its ids are known, and counted to
    COUNTED_CHARACTERS at least.
    word_pieces: the same tokenizer in C++, for the texts that it covers, which runs on that many threads.
    text_pieces: of this tokenizer, if the caller keeps one.
    Raises InputError where max_tokens has no room for the special tokens.
    """
    room = room_for_text(max_tokens, tokenizer.num_special_tokens_to_add(False))
    rows: list[list[int] | None] = [None] * len(texts)
    left_out = [0] * len(texts)
    if word_pieces is not None:
        # A long text is not copied to put a prompt before it.
        places = [place for place, text in enumerate(texts) if not prompt or len(text) <= PIECE_CHARACTERS]
        found = word_pieces.encode([prompt + texts[place] for place in places], max_tokens, threads)
        for place, row, count in zip(places, *found, strict=True):
            rows[place], left_out[place] = row, count
    for group in _groups([place for place, row in enumerate(rows) if row is None], texts, len(prompt)):
        if len(group) == 1 and len(prompt) + len(texts[group[0]]) > PIECE_CHARACTERS:
            text_pieces = text_pieces or TextPieces(tokenizer)
            encoded = [_encode_in_pieces(tokenizer, text_pieces.of(encodable(texts[group[0]]), prompt), room)]
        else:
            short = [encodable(prompt + texts[place]) for place in group]
            with tokenizer_errors(_FAILED):
                encodings = tokenizer.encode_batch_fast(short, add_special_tokens=False)
            encoded = [(encoding, len(encoding)) for encoding in encodings]
        for place, (encoding, count) in zip(group, encoded, strict=True):
            with tokenizer_errors(_FAILED):
                if count > room:
                    encoding.truncate(room)
                rows[place], left_out[place] = tokenizer.post_process(encoding).ids, max(0, count - room)
    return TokenizedTexts([row for row in rows if row is not None], left_out)


def _groups(places: Sequence[int], texts: Sequence[str], prompt_characters: int) -> Iterator[list[int]]:
    """Texts that are tokenized at once: of GROUP_CHARACTERS together, and longer ones alone."""
    group: list[int] = []
    characters = 0
    for place in places:
        length = prompt_characters + len(texts[place])
        if group and characters + length > GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(place)
        characters += length
    if group:
        yield group


def batches_by_tokens(
    lengths: Sequence[int], max_batch_tokens: int, max_rows: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yields index arrays that cover all rows once, longest rows first, each with rows x longest <= max_batch_tokens.

    `max_rows` bounds the rows of a batch as well. A row that is longer than the budget makes a batch of its own.
    Longest first, so that the largest buffers are allocated at the start and reused. Equal lengths keep the caller's
    order, so the batches are deterministic.
    """
    lengths_N = np.asarray(lengths, dtype=np.int64)
    order_N = np.argsort(-lengths_N, kind="stable")
    start = 0
    while start < len(order_N):
        longest = max(1, int(lengths_N[order_N[start]]))
        row_count = max(1, min(max_batch_tokens // longest, max_rows or len(order_N)))
        yield order_N[start : start + row_count]
        start += row_count


def pad_batch(ids: Sequence[Sequence[int]], pad_id: int = 0) -> TokenBatch:
    """Pads rows of token ids on the right to the longest of them."""
    longest = max((len(row) for row in ids), default=0)
    input_ids = np.full((len(ids), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(ids), longest), dtype=np.int64)
    for index, row in enumerate(ids):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return TokenBatch(input_ids, attention_mask, np.zeros_like(input_ids))


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The id of the padding token by the names the field uses, 0 where there is none (the mask hides it anyway)."""
    for name in ("[PAD]", "<pad>", "<|padding|>"):
        token_id: int | None = tokenizer.token_to_id(name)
        if token_id is not None:
            return token_id
    return 0


class Span(NamedTuple):
    """A piece of a text: its characters [start, end) and its tokens [first, last) among all of the text."""

    start: int
    end: int
    first: int
    last: int


class _Token(NamedTuple):
    id: int
    start: int
    end: int
    begins_word: bool


def chunk_spans(
    tokenizer: Tokenizer, text: str, room: int, overlap: int, text_pieces: TextPieces | None = None
) -> Iterator[tuple[Span, list[int]]]:
    """Spans that cover a text in pieces of at most `room` tokens, each with its token ids; no special tokens.

    A span ends between two words, unless one word alone is longer than `room`. Neighbours share up to `overlap` tokens.
    Only the tokens of one span and one piece of the text are in memory.
    """
    waiting: list[_Token] = []
    first = 0
    for token in chain(_tokens(tokenizer, (text_pieces or TextPieces(tokenizer)).of(text)), (None,)):
        if token is not None:
            waiting.append(token)
            if len(waiting) <= room:
                continue
        while len(waiting) > room or (token is None and waiting):
            count = min(room, len(waiting))
            if count < len(waiting):
                count = next((place for place in range(count, 0, -1) if waiting[place].begins_word), count)
            span = Span(waiting[0].start, waiting[count - 1].end, first, first + count)
            yield span, [each.id for each in waiting[:count]]
            if count == len(waiting):
                return
            starts = range(max(count - overlap, 1), count)
            step = next((place for place in starts if waiting[place].begins_word), count)
            del waiting[:step]
            first += step


def _tokens(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> Iterator[_Token]:
    for piece in pieces:
        with tokenizer_errors(_FAILED):
            encoding = tokenizer.encode(piece.text, add_special_tokens=False)
        previous_word = None
        last = len(encoding) - 1
        for place, (id, (start, end), word) in enumerate(
            zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True)
        ):
            if piece.positions is None:
                start, end = piece.start + start, piece.start + end
            else:
                start, end = piece.positions[start], piece.end if place == last else piece.positions[end - 1] + 1
            yield _Token(id, start, end, word is None or word != previous_word)
            previous_word = word


def special_tokens_around(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens that the tokenizer puts around the tokens of a text."""
    with tokenizer_errors(_FAILED):
        encoding = tokenizer.encode("a")
    ids, special = encoding.ids, encoding.special_tokens_mask
    if 0 not in special:  # the tokenizer has no token for "a"
        return SpecialTokens(ids, [])
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return SpecialTokens(ids[:first], ids[last:])


def encodable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 cannot hold, as U+FFFD; any other text as it is."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encode_in_pieces(tokenizer: Tokenizer, pieces: Iterable[Piece], room: int) -> tuple[Encoding, int]:
    """The first `room` tokens or more of a long text, and the count of its tokens, as far as they are counted."""
    head: list[Encoding] = []
    token_count = 0
    for piece in pieces:
        with tokenizer_errors(_FAILED):
            (encoding,) = tokenizer.encode_batch_fast([piece.text], add_special_tokens=False)
        if token_count < room:
            head.append(encoding)
        token_count += len(encoding)
        if token_count > room and piece.end >= COUNTED_CHARACTERS:
            break
    return Encoding.merge(head), token_count
