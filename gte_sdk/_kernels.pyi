"""The C++ kernels. Arguments are checked by their callers in gte_sdk; a ValueError from here is a mistake of ours."""

import numpy as np
from numpy.typing import NDArray

MAX_ROWS: int

def variants() -> list[str]:
    """Names of the instruction sets that this CPU and build have, slowest first: "scalar", "avx2", "neon", ..."""

def search(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    k: int,
    selected: NDArray[np.uint32] | None = None,
    threads: int = 1,
    variant: str = "",
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Scores (q, k), rows (q, k), and the lowest row that is not finite or -1. An empty variant takes the fastest."""

def mean_pool(last_hidden_state: NDArray[np.float32], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Means (n, d) of the token vectors (n, t, d) where the mask (n, t) is not 0; zeros for a text without tokens."""

def normalize_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy (n, d) with rows of unit length; a row of zeros stays zero."""
