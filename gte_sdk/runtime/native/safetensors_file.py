"""The tensors of a safetensors file (https://huggingface.co/docs/safetensors), without that package.

The file is mapped, not read: a tensor costs memory when it is used, and a file of gigabytes opens at once. The format
is 8 bytes with the length of a JSON header, the header, and the bytes of the tensors in its order of offsets.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import MAX_JSON_BYTES, ModelPath, mapped_bytes

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
# The upper half of a float32; numpy has no such type.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])


def read_safetensors(path: ModelPath) -> dict[str, NDArray[Any]]:
    """As `map_safetensors`, with BF16 copied to float32."""
    tensors = map_safetensors(path)
    return {name: as_floats(array) if array.dtype == BFLOAT16 else array for name, array in tensors.items()}


def map_safetensors(path: ModelPath) -> dict[str, NDArray[Any]]:
    """The tensors by name: read-only views of the mapped file in their own dtype, BF16 as BFLOAT16.

    Raises ModelFormatError for a file that is cut off, is no safetensors file, or has a dtype that holds no weights.
    """
    try:
        content = mapped_bytes(path)
        header, values = split_safetensors(content)
        return {name: _tensor(values, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFormatError(
            f"{path} is not a readable safetensors file: {error}; download the model again"
        ) from error


def split_safetensors(content: memoryview) -> tuple[Mapping[str, Any], memoryview]:
    """The header, and the bytes of the tensors behind it. Raises ValueError for one that is no JSON, or too long."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(MAX_JSON_BYTES, len(content) - 8):
        raise ValueError(f"its header of {length} bytes does not fit into {len(content)}, or into {MAX_JSON_BYTES}")
    return json.loads(bytes(content[8 : 8 + length])), content[8 + length :]


def as_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of a tensor as float32: float32 is returned as it is, other floats are copied.

    Raises ValueError for a dtype that holds no weights.
    """
    if array.dtype == BFLOAT16:
        floats: NDArray[np.float32] = (array["bfloat16"].astype(np.uint32) << np.uint32(16)).view(np.float32)
        return floats
    if array.dtype not in (np.float32, np.float16):
        raise ValueError(f"weights of {array.dtype} where floats belong")
    return array.astype(np.float32, copy=False)


def _tensor(values: memoryview, entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype = BFLOAT16 if entry["dtype"] == "BF16" else np.dtype(_DTYPES[entry["dtype"]])
    shape = [int(size) for size in entry["shape"]]
    start, end = (int(offset) for offset in entry["data_offsets"])
    if (
        not 0 <= start <= end <= len(values)
        or end - start != math.prod(shape) * dtype.itemsize
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"a tensor of shape {shape} at bytes {start} to {end} of {len(values)}")
    array: NDArray[Any] = np.frombuffer(values[start:end], dtype=dtype).reshape(shape)
    return array
