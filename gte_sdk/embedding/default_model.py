"""`gte_sdk.embed`: the bundled model, opened on the first call and kept open."""

import threading
from collections.abc import Iterable
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import Embedder

_embedder: Embedder | None = None
_lock = threading.Lock()


@overload
def embed(texts: str) -> NDArray[np.float32]: ...
@overload
def embed(texts: Iterable[str]) -> NDArray[np.float32]: ...
def embed(texts: str | Iterable[str]) -> NDArray[np.float32]:
    """Embeds texts with the bundled model, which is opened on the first call and kept open.

    Args:
        texts: A list, or any other ordered iterable, of n texts, or one str. See `Embedder.embed`.

    Returns:
        (n, 384) float32 unit rows in the order of the texts, or (384,) for one str.

    Raises:
        InputTypeError: An item that is not a str, with its index.

    Examples:
        >>> import gte_sdk
        >>> gte_sdk.embed(["a text", "another"]).shape
        (2, 384)
    """
    global _embedder
    with _lock:
        if _embedder is None:
            _embedder = Embedder()
    return _embedder.embed(texts)
