"""The weights and the wiring of an ONNX file, read without the onnx package: 20 ms where opening a session takes 430.

Only what a reader of weights needs of the format (protobuf, https://protobuf.dev/programming-guides/encoding): the
nodes' operator, name and inputs, and the initializers. Field numbers are those of onnx.proto.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.published import ModelPath

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # 64 bits, 7 a byte
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
# A StringStringEntryProto: field 1 with the 8 bytes "location", then field 2 with the name.
_LOCATION_KEY, _LOCATION_VALUE = b"\x0a\x08location", b"\x12"
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
# TensorProto.DataType of the types that hold weights here.
_DTYPES = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8"}


class Node(NamedTuple):
    operator: str
    name: str
    inputs: list[str]
    outputs: list[str]


class OnnxFile(NamedTuple):
    nodes: list[Node]
    """In the order in which they run."""
    weights: dict[str, NDArray[np.generic]]
    """Initializers by name, read-only views of the file's bytes at any alignment: what is kept is copied. External ones
    and types that hold no weights are left out."""


def read_onnx(path: ModelPath) -> OnnxFile:
    """Raises ValueError for a file that is cut off or is no protobuf."""
    try:
        return _read_model(memoryview(path.read_bytes()))
    except (IndexError, struct.error, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not an ONNX file: {error}") from error


def external_locations(path: ModelPath) -> list[str]:
    """The files, as the graph names them, that hold weights outside of it. Raises ValueError for a name that is none.

    Looks for the key itself, wherever it is in the graph, so that no node or subgraph is missed.
    """
    if isinstance(path, Path):
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return []
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _find_locations(content)
    return _find_locations(path.read_bytes())


def _find_locations(content: bytes | mmap.mmap) -> list[str]:
    locations: list[str] = []
    place = content.find(_LOCATION_KEY)
    while place >= 0:
        value = place + len(_LOCATION_KEY)
        # The longest name that a file system has is far below this.
        entry = memoryview(content[value : value + 2 + _VARINT_BYTES + 4096])
        if entry[:1] == _LOCATION_VALUE:
            length, start = _varint(entry, 1)
            locations.append(str(entry[start : start + length], "utf-8"))
        place = content.find(_LOCATION_KEY, value)
    return locations


def _read_model(model: memoryview) -> OnnxFile:
    nodes: list[Node] = []
    weights: dict[str, NDArray[np.generic]] = {}
    for number, value in _fields(model):
        if number != _MODEL_GRAPH or isinstance(value, int):
            continue
        for graph_number, part in _fields(value):
            if isinstance(part, int):
                continue
            if graph_number == _GRAPH_NODE:
                nodes.append(_read_node(part))
            elif graph_number == _GRAPH_INITIALIZER:
                name, array = _read_tensor(part)
                if array is not None:
                    weights[name] = array
    return OnnxFile(nodes, weights)


def _read_node(node: memoryview) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: [""], _NODE_OPERATOR: [""]}
    for number, value in _fields(node):
        if number in texts and not isinstance(value, int):
            texts[number].append(str(value, "utf-8"))
    return Node(texts[_NODE_OPERATOR][-1], texts[_NODE_NAME][-1], texts[_NODE_INPUT], texts[_NODE_OUTPUT])


def _read_tensor(tensor: memoryview) -> tuple[str, NDArray[np.generic] | None]:
    shape: list[int] = []
    name, dtype = "", None
    data: memoryview | None = None
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _packed_varints(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            dtype = _DTYPES.get(value)
        elif not isinstance(value, int):
            if number == _TENSOR_NAME:
                name = str(value, "utf-8")
            elif number in (_TENSOR_RAW, _TENSOR_FLOATS):
                data = value
    if dtype is None or data is None:
        return name, None
    return name, np.frombuffer(data, dtype=dtype).reshape(shape)


def _packed_varints(values: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(values):
        number, position = _varint(values, position)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs: an int for a varint, the bytes of everything else."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(f"wire type {kind} at byte {position}")
        if position + length > end:
            raise IndexError(f"a field ends at byte {position + length} of {end}")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError(f"a number of more than {_VARINT_BYTES} bytes before byte {position}")
