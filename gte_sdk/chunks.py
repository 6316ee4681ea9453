"""The pieces that Embedder.embed_chunks gives."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Chunk(NamedTuple):
    """A piece of a long text with its vector."""

    start: int
    end: int
    text: str
    """The characters [start, end) of the text."""
    vector: NDArray[np.float32]
    """(dim,), unit length."""
