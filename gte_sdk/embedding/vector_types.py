"""The types of vectors: float32, as they are computed, or smaller ones.

int8 and uint8 have one range for all texts and dimensions, measured at export and stored in gte.json. So a text always
has the same bytes, and the dot product of two int8 rows is that of the vectors on another scale, which would not hold
with a range for each dimension. For gte-mini: cosine .9998 to the float vectors, .99 of the ten nearest (500 texts).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError

VECTOR_DTYPES: Mapping[str, Any] = {
    "float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8, "binary": np.uint8,
}  # fmt: skip
_STEPS = 127


def check_dtype(dtype: str, dim: int, int8_limits: Mapping[int, float]) -> str:
    """`dtype`, if vectors of `dim` dimensions can have it. Raises InputError with the types that they can have."""
    if dtype not in VECTOR_DTYPES:
        raise InputError(f"dtype={dtype!r}; one of {tuple(VECTOR_DTYPES)} is supported")
    if dtype in ("int8", "uint8") and dim not in int8_limits:
        raise InputError(
            f"dtype={dtype!r}: this model's directory has no range for vectors of {dim} dimensions; write it with "
            "python -m export.ranges DIRECTORY, or take 'float16' or 'binary'"
        )
    return dtype


class RowType(NamedTuple):
    """What a row of vectors is in a file."""

    dtype: np.dtype[Any]
    width: int
    """The numbers of a row."""


def row_type(dtype: str, dim: int) -> RowType:
    """The row of a vector of `dim` dimensions in a type of VECTOR_DTYPES; little-endian."""
    return RowType(np.dtype(VECTOR_DTYPES[dtype]).newbyteorder("<"), row_width(dtype, dim))


def row_width(dtype: str, dim: int) -> int:
    """The columns of an array of that type: 8 dimensions a byte for binary, else one each."""
    return (dim + 7) // 8 if dtype == "binary" else dim


def convert_rows(vectors_ND: NDArray[np.float32], dtype: str, int8_limits: Mapping[int, float]) -> NDArray[Any]:
    """The rows as a dtype that `check_dtype` accepts: (n, row_width).

    int8: value * 127 / limit, rounded to even and clipped to -127 .. 127. uint8: the int8 value + 128. binary: one bit
    for each value, set if it is above zero, the first value in the highest bit, as in numpy.packbits.
    """
    if dtype == "float32":
        return vectors_ND
    if dtype == "float16":
        return vectors_ND.astype(np.float16)
    if dtype == "binary":
        return np.packbits(vectors_ND > 0, axis=1)
    per_step = np.float32(_STEPS / int8_limits[vectors_ND.shape[1]])
    steps_ND = np.clip(np.rint(vectors_ND * per_step), -_STEPS, _STEPS)
    steps_or_raised_ND: NDArray[Any] = (
        steps_ND.astype(np.int8) if dtype == "int8" else (steps_ND + 128).astype(np.uint8)
    )
    return steps_or_raised_ND
