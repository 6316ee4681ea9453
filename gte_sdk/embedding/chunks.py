"""`Embedder.embed_chunks`: the chunks of a long text, embedded one by one or in their context.

Late chunking (Guenther et al., arXiv 2409.04701) runs the model over as much of the text as it can read, and averages
the token states of each chunk afterwards. A chunk's vector then reflects what "it" or "the city" in it refers to.
"""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import InputError, InputTypeError, ModelFormatError
from gte_sdk.runtime.engine import TokenStates, cut_rows
from gte_sdk.runtime.text_tokenizer import TextTokenizer
from gte_sdk.runtime.tokens import Span, SpecialTokens, chunk_spans, encodable

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder

SpansWithIds = Iterator[tuple[Span, list[int]]]
_RUNS_AT_ONCE = 16


class Chunk(NamedTuple):
    """A part of a long text, with its vector.

    Examples:
        >>> from gte_sdk import Embedder
        >>> chunks = Embedder().embed_chunks("It was a dark and stormy night. " * 100, max_tokens=200, overlap=20)
        >>> len(chunks), chunks[0].text[:31]
        (5, 'It was a dark and stormy night.')
    """

    start: int
    end: int
    text: str
    """The characters [start, end) of the text."""
    vector: NDArray[np.float32]
    """(dim,), unit length."""


def embed_chunks(
    embedder: "Embedder", text: str, max_tokens: int | None = None, overlap: int = 0, *, late: bool = False
) -> list[Chunk]:
    """Splits a long text between words into chunks and embeds each. An empty text has no chunks.

    Args:
        text: The text, of any length.
        max_tokens: The most tokens of a chunk, by default as many as the model reads.
        overlap: About how many tokens neighbouring chunks share, 0 <= overlap < max_tokens.
        late: Late chunking. The model reads as many chunks at once as fit into `Embedder.max_tokens`, and a chunk's
            vector is the mean of its own token states, which have seen the surrounding chunks.

    Raises:
        InputError: With `late`, a model without token states to average: one with another pooling, or a token table,
            which has no context.
    """
    tokenizer = embedder._tokenizer
    room = tokenizer.check_limit(max_tokens, embedder.max_tokens) - tokenizer.special_token_count
    text, spans_with_ids = split_text(tokenizer, text, room, overlap)
    if late:
        reads = embedder.max_tokens - tokenizer.special_token_count
        states = embedder._engine.token_states
        spans, whole_ND = late_vectors(spans_with_ids, embedder.special_tokens, reads, states)
        pieces, vectors_ND = [text[span.start : span.end] for span in spans], cut_rows(whole_ND, embedder.dim)
    else:
        spans = [span for span, _ in spans_with_ids]
        pieces = [text[span.start : span.end] for span in spans]
        vectors_ND = embedder.embed(pieces)
    return [
        Chunk(span.start, span.end, piece, vector_D)
        for span, piece, vector_D in zip(spans, pieces, vectors_ND, strict=True)
    ]


def split_text(tokenizer: TextTokenizer, text: str, room: int, overlap: int) -> tuple[str, SpansWithIds]:
    """The text as the tokenizer reads it, and spans in it of at most `room` tokens, not counting special tokens."""
    if not isinstance(text, str):
        raise InputTypeError(f"text is a {type(text).__name__}; give a str")
    if not 0 <= overlap < room:
        raise InputError(f"overlap={overlap}; it must be at least 0 and below the {room} tokens of a piece")
    text = encodable(text)
    return text, chunk_spans(tokenizer.tokenizer, text, room, overlap, tokenizer.text_pieces)


def late_vectors(
    spans_with_ids: SpansWithIds, around: SpecialTokens, room: int, token_states: TokenStates | None
) -> tuple[list[Span], NDArray[np.float32]]:
    """The spans, and (n, hidden) unit rows: the mean state of each span's tokens.

    The model reads `room` tokens of text at once: runs of whole spans, as many as fit. The special tokens of a run
    belong to no span.
    """
    if token_states is None:
        raise InputError("late=True needs a model that averages the states of a text's tokens, and this one does not")
    before, after = around
    spans: list[Span] = []
    means: list[NDArray[np.float32]] = []
    runs = _runs(spans_with_ids, room)
    while some := list(islice(runs, _RUNS_AT_ONCE)):
        states = token_states([[*before, *run.ids, *after] for run in some])
        for run, states_TD in zip(some, states, strict=True):
            offset = len(before) - run.spans[0].first
            with np.errstate(over="ignore", invalid="ignore"):  # found below
                means += [states_TD[offset + span.first : offset + span.last].mean(axis=0) for span in run.spans]
            spans += run.spans
    if not means:
        return [], np.empty((0, 1), np.float32)
    rows_ND = _kernels.normalize_rows(np.array(means, dtype=np.float32))
    if not np.isfinite(rows_ND).all():
        raise ModelFormatError(
            "the model gives vectors with NaN or infinity: the weights are damaged; export or download it again"
        )
    return spans, rows_ND


class _Run(NamedTuple):
    spans: list[Span]
    ids: list[int]
    """Of the tokens from the first span's first to the last span's last."""


def _runs(spans_with_ids: SpansWithIds, room: int) -> Iterator[_Run]:
    run = _Run([], [])
    for span, ids in spans_with_ids:
        if run.spans and span.last - run.spans[0].first > room:
            yield run
            run = _Run([], [])
        known = run.spans[-1].last - span.first if run.spans else 0
        run.spans.append(span)
        run.ids.extend(ids[known:])
    if run.spans:
        yield run
