"""The kinds of text that a model may tell apart by its prompts, and the function that embeds one kind."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import InputError

TextKind = Literal["plain", "query", "document"]
TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)
EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts to (n, dim) unit rows."""


def check_kind(kind: str) -> None:
    """Raises InputError for a kind that is none."""
    if kind not in TEXT_KINDS:
        raise InputError(f"kind={kind!r}; one of {TEXT_KINDS} is supported")


def embed_function(embedder: Embedder, kind: TextKind) -> EmbedTexts:
    """The method that puts the model's prompt for `kind` before each text; "plain" is none."""
    return {"plain": embedder.embed, "query": embedder.embed_query, "document": embedder.embed_documents}[kind]
