"""The methods that programs written for fastembed call on an Embedder, with their arguments.

fastembed's `TextEmbedding` itself, whose `embed` yields the vectors, is in gte_sdk/integrations/fastembed.py.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_count
from gte_sdk.embedding.other_names.sentence_transformers import ONE_PROCESS
from gte_sdk.errors import InputError

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder


def query_embed(embedder: "Embedder", query: str | Iterable[str]) -> Iterator[NDArray[np.float32]]:
    """Yields the vectors of queries, as fastembed's method does.

    Args:
        query: A list of queries, or one str, which yields one vector.
    """
    return stream(embedder, query, embedder.prompt_for("query"))


def passage_embed(
    embedder: "Embedder", texts: str | Iterable[str], batch_size: int | None = None, parallel: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yields the vectors of documents, as fastembed's method does. Reads at most 2,048 texts ahead.

    Args:
        texts: Any number of documents, or one str, which yields one vector.
        batch_size: Without effect: batches are made by tokens.
        parallel: None or 0, which there means all cores. Other numbers raise InputError, as there are no processes to
            share the work.
    """
    return stream(embedder, texts, embedder.prompt_for("document"), batch_size, parallel)


def stream(
    embedder: "Embedder",
    texts: str | Iterable[str],
    prompt: str | None,
    batch_size: int | None = None,
    parallel: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """One vector for each text, after a check of fastembed's arguments. `prompt` is as for `embed_iter`."""
    if parallel:
        raise InputError(f"parallel={parallel}: {ONE_PROCESS}")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    return embedder.embed_iter([texts] if isinstance(texts, str) else texts, prompt=prompt)
