"""The weights and the wiring of an ONNX file, read without the onnx package: 20 ms where opening a session takes 430.

Only what a reader of weights needs of the format (protobuf, https://protobuf.dev/programming-guides/encoding): the
nodes' operator, name and inputs, and the initializers. Field numbers are those of onnx.proto.
"""

import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.graph_file import MODEL_GRAPH, fields_of, read_varint
from gte_sdk.model_files.published import ModelPath, mapped_bytes
from gte_sdk.runtime.native.safetensors_file import BFLOAT16

_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 1, 2, 4, 8, 9, 13
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# TensorProto.DataType of the types that hold weights here.
_DTYPES: dict[int, Any] = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8", 10: "<f2", 16: BFLOAT16}

ExternalFile = Callable[[str], ModelPath]
"""From the name of a file with weights, as the graph gives it, to the checked file."""


class Node(NamedTuple):
    operator: str
    name: str
    inputs: list[str]
    outputs: list[str]
    transposes_weights: bool
    """Gemm's attribute transB: whether its matrix has a row for each output."""


class OnnxFile(NamedTuple):
    nodes: list[Node]
    """In the order in which they run."""
    weights: dict[str, NDArray[np.generic]]
    """Initializers by name, read-only views of the mapped file at any alignment. Types that hold no weights are left
    out, and external ones without `external_file`."""


def read_onnx(path: ModelPath, external_file: ExternalFile | None = None) -> OnnxFile:
    """Raises ValueError for a file that is cut off or is no protobuf."""
    try:
        return _read_model(mapped_bytes(path), external_file)
    except (IndexError, struct.error, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not an ONNX file: {error}") from error


def _read_model(model: memoryview, external_file: ExternalFile | None) -> OnnxFile:
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
                name, array = _read_tensor(part, external_file)
                if array is not None:
                    weights[name] = array
    return OnnxFile(nodes, weights)


def _read_node(node: memoryview) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: [""], _NODE_OPERATOR: [""]}
    transposes = False
    for number, value in fields_of(node):
        if number in texts and not isinstance(value, int):
            texts[number].append(str(value, "utf-8"))
        elif number == _NODE_ATTRIBUTE and not isinstance(value, int):
            attribute: dict[int, Any] = dict(fields_of(value))
            if attribute.get(_ATTRIBUTE_NAME) == b"transB":
                transposes = attribute.get(_ATTRIBUTE_INT) == 1
    return Node(texts[_NODE_OPERATOR][-1], texts[_NODE_NAME][-1], texts[_NODE_INPUT], texts[_NODE_OUTPUT], transposes)


def _read_tensor(tensor: memoryview, external_file: ExternalFile | None) -> tuple[str, NDArray[np.generic] | None]:
    shape: list[int] = []
    name, dtype = "", None
    data: memoryview | None = None
    external: dict[str, str] = {}
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
            elif number == _TENSOR_EXTERNAL:
                entry = {key: str(text, "utf-8") for key, text in fields_of(value) if not isinstance(text, int)}
                external[entry.get(_ENTRY_KEY, "")] = entry.get(_ENTRY_VALUE, "")
    if external and external_file is not None and dtype is not None:
        start, size = int(external.get("offset", 0)), math.prod(shape) * np.dtype(dtype).itemsize
        data = mapped_bytes(external_file(external.get("location", "")))[max(start, 0) :][: max(size, 0)]
    if dtype is None or data is None:
        return name, None
    return name, np.frombuffer(data, dtype=dtype).reshape(shape)


def _packed_varints(values: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(values):
        number, position = read_varint(values, position)
        numbers.append(number)
    return numbers
