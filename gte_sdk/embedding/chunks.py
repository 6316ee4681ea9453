"""The chunks that Embedder.embed_chunks returns, embedded one by one or in their context.

Late chunking (Guenther et al., arXiv 2409.04701) runs the model over as much of the text as it can read, and averages
the token states of each chunk afterwards. A chunk's vector then reflects what "it" or "the city" in it refers to.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gte_sdk import _kernels
from gte_sdk.errors import InputError, InputTypeError
from gte_sdk.runtime import tokens
from gte_sdk.runtime.engine import TokenStates


class Chunk(NamedTuple):
    """A part of a long text, with its vector."""

    start: int
    end: int
    text: str
    """The characters [start, end) of the text."""
    vector: NDArray[np.float32]
    """(dim,), unit length."""


def split_text(tokenizer: Tokenizer, text: str, room: int, overlap: int) -> tuple[str, list[tokens.Span], list[int]]:
    """The text as the tokenizer reads it, spans in it of at most `room` tokens each (special tokens not counted), and
    the ids of all of it."""
    if not isinstance(text, str):
        raise InputTypeError(f"text is a {type(text).__name__}; give a str")
    if not 0 <= overlap < room:
        raise InputError(f"overlap={overlap}; it must be at least 0 and below the {room} tokens of a piece")
    text = tokens.encodable(text)
    return text, *tokens.chunk_spans(tokenizer, text, room, overlap)


def late_vectors(
    spans: Sequence[tokens.Span],
    ids: Sequence[int],
    around: tokens.SpecialTokens,
    room: int,
    token_states: TokenStates | None,
) -> NDArray[np.float32]:
    """(n, hidden) unit rows: the mean state of each span's tokens, where the model read `room` tokens of text at once.

    A text that is longer is read in runs of whole spans, as many as fit; the special tokens of a run count for no span.
    """
    if token_states is None:
        raise InputError("late=True needs a model that averages the states of a text's tokens, and this one does not")
    before, after = around
    runs = list(_runs(spans, room))
    inputs = [[*before, *ids[run[0].first : run[-1].last], *after] for run in runs]
    means = [
        states_TD[len(before) + span.first - run[0].first : len(before) + span.last - run[0].first].mean(axis=0)
        for run, states_TD in zip(runs, token_states(inputs), strict=True)
        for span in run
    ]
    return _kernels.normalize_rows(np.array(means, dtype=np.float32))


def _runs(spans: Sequence[tokens.Span], room: int) -> Iterator[Sequence[tokens.Span]]:
    first = 0
    for index, span in enumerate(spans):
        if span.last - spans[first].first > room:
            yield spans[first:index]
            first = index
    yield spans[first:]
