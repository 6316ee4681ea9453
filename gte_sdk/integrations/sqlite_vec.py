"""sqlite-vec: a vector as the bytes that its columns and functions take, for float[dim], int8[dim] and bit[dim].

>>> connection.execute("INSERT INTO notes(rowid, embedding) VALUES (?, vec_int8(?))", (1, int8_bytes(vector)))

Needs numpy only: the bytes go through any SQLite driver that has the extension loaded. vec_int8() and vec_bit() have to
be written around the others; bare bytes are read as float32.
"""

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, InputTypeError


def float32_bytes(vector_D: NDArray[np.float32]) -> bytes:
    """4 bytes a number, for float[dim]: what vec_f32() takes."""
    return _checked(vector_D).astype("<f4", copy=False).tobytes()


def int8_bytes(vector_D: NDArray[np.float32]) -> bytes:
    """1 byte a number, for int8[dim] with distance_metric=cosine: what vec_int8() takes.

    The largest number becomes 127 or -127. Each vector so uses the whole range, which sqlite-vec's own
    vec_quantize_int8(..., 'unit') does not: it spreads [-1, 1], of which the numbers of a unit vector fill a tenth. The
    scale differs from vector to vector, so distances other than cosine mean nothing.
    """
    vector_D = _checked(vector_D)
    largest = np.abs(vector_D).max()
    if largest == 0:
        raise InputError("the vector is all zeros, which has no direction and no cosine; leave the row out")
    codes_D: NDArray[np.int8] = np.rint(vector_D * (127 / float(largest))).astype(np.int8)
    return codes_D.tobytes()


def bit_bytes(vector_D: NDArray[np.float32]) -> bytes:
    """1 bit a number, whether it is above 0, for bit[dim] and its Hamming distance: what vec_bit() takes.

    The same bits as of vec_quantize_binary(). Raises InputError where dim is no multiple of 8.
    """
    vector_D = _checked(vector_D)
    if len(vector_D) % 8:
        raise InputError(f"the vector has {len(vector_D)} numbers; bit[dim] needs a multiple of 8")
    return np.packbits(vector_D > 0, bitorder="little").tobytes()


def _checked(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(vector_D, np.ndarray) or vector_D.dtype != np.float32:
        given = getattr(vector_D, "dtype", type(vector_D).__name__)
        raise InputTypeError(f"the vector is {given}; give a numpy array of float32")
    if vector_D.ndim != 1 or not len(vector_D):
        raise InputError(f"the vector has shape {vector_D.shape}; give one vector, (dim,), at a time")
    if not np.isfinite(vector_D).all():
        raise InputError("the vector has NaN or infinite numbers; sqlite-vec would store them and find nothing")
    return vector_D
