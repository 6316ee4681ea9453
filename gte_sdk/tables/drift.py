"""Whether stored vectors are those that a model gives for their texts, found by embedding a sample of the rows again.

A store of vectors rarely knows which model made them. After a change of the model, its prompts or the texts, searches
still run and answer worse. The cosine between a stored vector and the model's own shows it. That needs no more than
pairs of text and vector, which every store can give: as a file that it exports, or row by row through its client.
"""

import json
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError
from gte_sdk.tables.text_rows import shown

SAME_COSINE = 0.999
"""From here on a vector counts as the model's own. Numbers of 16 bits are far above it, other models far below."""
SAME_COSINE_OF_CODES = 0.99
"""The same for vectors stored as whole numbers of 8 bits."""
SAMPLE_ROWS = 200
_SEED = 0

Embed = Callable[[list[str]], NDArray[np.float32]]


class Drift(NamedTuple):
    """How the stored vectors of a sample compare with a model's."""

    row_count: int
    """All rows with a vector."""
    sampled: int
    dim: int
    """Of the stored vectors."""
    same: int
    """Rows of the sample whose vector is the model's own."""
    mean_cosine: float
    least_cosine: float
    unlike: tuple[int, ...]
    """The numbers of the sampled rows that are not the model's own, worst first, from 1."""

    def is_none(self) -> bool:
        """Returns whether every sampled vector is the model's own."""
        return self.same == self.sampled


def check_drift(rows: Iterable[tuple[str, Any]], embed: Embed, sample_rows: int = SAMPLE_ROWS) -> Drift:
    """Compares stored vectors with those that a model gives now.

    Args:
        rows: Texts with their vectors, in any form that `vector_of` reads; None as a vector is passed over. They are
            read once, one at a time. What is sampled does not depend on anything but their number.
        embed: The model, as it embedded the texts: `embedder.embed_documents`, for instance.
        sample_rows: How many rows to embed again, 1 or more; all of them where there are no more.

    Returns:
        The cosines and counts. Vectors of another dimension than the model's have the cosine 0.

    Raises:
        InputError: No row has a vector, or one of the sample is no vector.
    """
    if sample_rows < 1:
        raise InputError(f"sample_rows={sample_rows}; give 1 or more")
    chosen = random.Random(_SEED)
    sample: list[tuple[int, str, Any]] = []
    count = 0
    for number, (text, vector) in enumerate(rows, 1):
        if vector is None:
            continue
        count += 1
        if len(sample) < sample_rows:  # Vitter's algorithm R
            sample.append((number, text, vector))
        elif (place := chosen.randrange(count)) < sample_rows:
            sample[place] = (number, text, vector)
    if not sample:
        raise InputError("no row has a vector")
    stored = [vector_of(vector, f"row {number}") for number, _, vector in sample]
    own_ND = embed([text for _, text, _ in sample])
    cosines = np.array([_cosine(vector, own) for vector, own in zip(stored, own_ND, strict=True)])
    limits = [SAME_COSINE_OF_CODES if vector.dtype.kind in "iu" else SAME_COSINE for vector in stored]
    unlike = [row for row in np.argsort(cosines, kind="stable").tolist() if cosines[row] < limits[row]]
    return Drift(
        count, len(sample), len(stored[0]), len(sample) - len(unlike), float(cosines.mean()), float(cosines.min()),
        tuple(sample[row][0] for row in unlike),
    )  # fmt: skip


def vector_of(value: Any, where: str) -> NDArray[Any]:
    """Returns a stored vector as an array of floats, or of whole numbers where it was quantized.

    It may be an array, a list of numbers, the text of one ("[0.1, 0.2]", as pgvector writes it), or bytes of float32
    (as sqlite-vec keeps it). Raises InputError, with `where` in it, for anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: {shown(value)} is no vector; expected numbers like [0.1, -0.2]") from None
    if isinstance(value, bytes):
        if not value or len(value) % 4:
            raise InputError(f"{where}: {len(value)} bytes are no vector of float32")
        value = np.frombuffer(value, "<f4")
    try:
        vector = np.asarray(value)
    except ValueError:  # lists of several lengths
        vector = np.empty(0, dtype=object)
    if vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "fiu":
        raise InputError(f"{where}: a value of type {type(value).__name__} is no vector; expected a list of numbers")
    if not np.isfinite(vector).all():
        raise InputError(f"{where}: the vector has NaN or infinite numbers")
    # Whole numbers in floats, such as those of a JSON file, are codes too.
    is_code = vector.dtype.kind == "f" and (np.abs(vector) <= 128).all() and np.any(vector) and (vector % 1 == 0).all()
    return vector.astype(np.int16) if is_code else vector


def _cosine(stored: NDArray[Any], own: NDArray[np.float32]) -> float:
    if len(stored) != len(own):
        return 0.0
    a, b = stored.astype(np.float64), own.astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))
