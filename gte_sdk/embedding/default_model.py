"""`gte_sdk.embed`: the model inside the package, opened at the first call and kept."""

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
    """Embeds texts with the model inside the package, opened at the first call and kept.

    A list of n texts gives (n, 384) float32 of unit rows, one str gives (384,). See `Embedder.embed`.
    """
    global _embedder
    with _lock:
        if _embedder is None:
            _embedder = Embedder()
    return _embedder.embed(texts)
