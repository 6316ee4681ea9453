"""The weights and the wiring of an ONNX file, read without the onnx package: 20 ms where opening a session takes 430.

Only what a reader of weights needs of the format (protobuf, https://protobuf.dev/programming-guides/encoding): the
nodes' operator, name and inputs, and the initializers. Field numbers are those of onnx.proto.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.graph_file import MODEL_GRAPH, fields_of, read_varint
from gte_sdk.model_files.published import ModelPath

_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
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


def _read_model(model: memoryview) -> OnnxFile:
    nodes: list[Node] = []
    weights: dict[str, NDArray[np.generic]] = {}
    for number, value in fields_of(model):
        if number != MODEL_GRAPH or isinstance(value, int):
            continue
        for graph_number, part in fields_of(value):
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
    for number, value in fields_of(node):
        if number in texts and not isinstance(value, int):
            texts[number].append(str(value, "utf-8"))
    return Node(texts[_NODE_OPERATOR][-1], texts[_NODE_NAME][-1], texts[_NODE_INPUT], texts[_NODE_OUTPUT])


def _read_tensor(tensor: memoryview) -> tuple[str, NDArray[np.generic] | None]:
    shape: list[int] = []
    name, dtype = "", None
    data: memoryview | None = None
    for number, value in fields_of(tensor):
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
        number, position = read_varint(values, position)
        numbers.append(number)
    return numbers
