"""The kinds of text, for which a model may have different prompts, and functions that embed one kind."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.vector_types import check_dtype, convert_rows
from gte_sdk.errors import InputError

TextKind = Literal["plain", "query", "document"]
TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)
EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts to (n, dim) unit rows."""


class Embedded(NamedTuple):
    vectors: NDArray[np.float32]
    """(n, dim), rows of unit length."""
    left_out: list[int]
    """How many tokens of each text were cut off."""

    @property
    def was_cut(self) -> bool:
        """Whether a text has more tokens than the model reads."""
        return any(self.left_out)


def check_kind(kind: str) -> None:
    """Raises InputError for an unknown kind."""
    if kind not in TEXT_KINDS:
        raise InputError(f"kind={kind!r}; one of {TEXT_KINDS} is supported")


def embed_function(embedder: Embedder, kind: TextKind) -> EmbedTexts:
    """The method that embeds texts with the model's prompt for `kind`. "plain" has no prompt."""
    return {"plain": embedder.embed, "query": embedder.embed_query, "document": embedder.embed_documents}[kind]


def embed_batch(embedder: Embedder, texts: Sequence[str], kind: TextKind) -> Embedded:
    """The vectors of some texts, with the model's prompt for their kind, and what was cut off.

    Whatever the embedder's `truncation`, this neither warns nor raises.
    """
    tokenized = embedder.tokenize(texts, prompt=embedder.prompt_for(kind))
    return Embedded(embedder.embed_tokens(tokenized.ids), tokenized.left_out)


def conversion(embedder: Embedder, dtype: str) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """What makes this model's vectors rows of a type. Raises InputError for one that they cannot have."""
    limits = embedder._description.int8_limits
    check_dtype(dtype, embedder.dim, limits)
    return lambda vectors_ND: convert_rows(vectors_ND, dtype, limits)
