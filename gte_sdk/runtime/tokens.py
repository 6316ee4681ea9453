"""Text to token batches: the one home of tokenization, truncation, prompts, padding and batching by tokens.

Runtime, training, mining and evaluation all come through here, so that a text has the same ids in each of them.
Batches are cut by padded tokens (rows x longest row), not by a count of texts: memory then follows the budget whatever
the lengths are, and sorting by length keeps the padding small.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import ModelPath
from gte_sdk.runtime.word_pieces import WordPieces

# A text longer than this is tokenized in pieces, so that 10 MB of text do not become 10 MB of token objects at once.
PIECE_CHARACTERS = 65_536
_WHITE_SPACE = re.compile(r"\s")


class TokenizedTexts(NamedTuple):
    ids: list[list[int]]
    """The token ids of each text, including special tokens, at most max_tokens of them."""
    left_out: list[int]
    """How many tokens of each text were cut off (0 if the text fits)."""


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

    Raises ModelFormatError where the file is missing or is no tokenizer.
    """
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; a model directory needs the fast tokenizer's tokenizer.json")
    try:
        tokenizer: Tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelFormatError(f"{path} is not a readable tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_tokens: int,
    prompt: str = "",
    word_pieces: WordPieces | None = None,
    threads: int = 1,
) -> TokenizedTexts:
    """Token ids of `prompt + text` for each text, cut on the right to `max_tokens` (special tokens included).

    A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD, the replacement character. Time is linear in the text,
    memory is that of the ids kept plus one piece of about PIECE_CHARACTERS. `word_pieces`, the same tokenizer for the
    texts that it covers, gives the same ids sooner, on that many threads.
    """
    prepared = [prompt + text for text in texts] if prompt else list(texts)
    if word_pieces is None:
        return _tokenize_any(tokenizer, prepared, max_tokens)
    rows, left_out = word_pieces.encode(prepared, max_tokens, threads)
    others = [place for place, row in enumerate(rows) if row is None]
    other_rows, others_left_out = _tokenize_any(tokenizer, [prepared[place] for place in others], max_tokens)
    for place, row, count in zip(others, other_rows, others_left_out, strict=True):
        rows[place], left_out[place] = row, count
    return TokenizedTexts([row for row in rows if row is not None], left_out)


def _tokenize_any(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> TokenizedTexts:
    prepared = [encodable(text) for text in texts]
    short = [text for text in prepared if len(text) <= PIECE_CHARACTERS]
    short_encodings = iter(tokenizer.encode_batch_fast(short, add_special_tokens=False))
    room = max_tokens - tokenizer.num_special_tokens_to_add(False)
    ids: list[list[int]] = []
    left_out: list[int] = []
    for text in prepared:
        if len(text) <= PIECE_CHARACTERS:
            encoding = next(short_encodings)
            token_count = len(encoding)
        else:
            encoding, token_count = _encode_in_pieces(tokenizer, text, room)
        if token_count > room:
            encoding.truncate(room)
        ids.append(tokenizer.post_process(encoding).ids)
        left_out.append(max(0, token_count - room))
    return TokenizedTexts(ids, left_out)


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


def chunk_spans(tokenizer: Tokenizer, text: str, room: int, overlap: int) -> tuple[list[Span], list[int]]:
    """Spans that cover a text in pieces of at most `room` tokens, and the ids of all its tokens; no special ones.

    A piece ends between two words, unless one word alone is longer than `room`; neighbours share up to
    `overlap` tokens.
    """
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    begins_word: list[bool] = []
    for piece_start, piece_end in _piece_spans(text):
        encoding = tokenizer.encode(text[piece_start:piece_end], add_special_tokens=False)
        previous_word = None
        ids += encoding.ids
        for (start, end), word in zip(encoding.offsets, encoding.word_ids, strict=True):
            starts.append(piece_start + start)
            ends.append(piece_start + end)
            begins_word.append(word is None or word != previous_word)
            previous_word = word
    spans: list[Span] = []
    first, count = 0, len(starts)
    while first < count:
        last = min(first + room, count)
        if last < count:
            last = next((index for index in range(last, first, -1) if begins_word[index]), last)
        spans.append(Span(starts[first], ends[last - 1], first, last))
        if last == count:
            break
        first = next((index for index in range(max(last - overlap, first + 1), last) if begins_word[index]), last)
    return spans, ids


def special_tokens_around(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens that the tokenizer puts around the tokens of a text."""
    encoding = tokenizer.encode("a")
    ids, special = encoding.ids, encoding.special_tokens_mask
    if 0 not in special:  # the tokenizer has no token for "a"
        return SpecialTokens(ids, [])
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return SpecialTokens(ids[:first], ids[last:])


def encodable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 cannot hold, as U+FFFD; any other text as it is."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _encode_in_pieces(tokenizer: Tokenizer, text: str, room: int) -> tuple[Encoding, int]:
    """The first `room` tokens or more of a long text, and the count of all its tokens."""
    head: list[Encoding] = []
    token_count = 0
    for start, end in _piece_spans(text):
        (encoding,) = tokenizer.encode_batch_fast([text[start:end]], add_special_tokens=False)
        if token_count < room:
            head.append(encoding)
        token_count += len(encoding)
    return Encoding.merge(head), token_count


def _piece_spans(text: str) -> Iterator[tuple[int, int]]:
    """Cuts a text before white space, where every tokenizer of this family ends a word too.

    The pieces' ids are therefore those of the whole text. A text without white space stays one piece.
    """
    start = 0
    while start < len(text):
        white_space = _WHITE_SPACE.search(text, start + PIECE_CHARACTERS)
        end = white_space.start() if white_space else len(text)
        yield start, end
        start = end
