"""What must be known of weights before they are opened: their other files, and a graph's inputs and outputs.

Read without the onnx package, as gte_sdk/runtime reads weights. An ONNX file is a protobuf
(https://protobuf.dev/programming-guides/encoding); field numbers are those of onnx.proto.
"""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.bundle import BundlePath
from gte_sdk.model_files.modules import SAFETENSORS
from gte_sdk.model_files.published import ModelPath, is_inside, mapped_bytes, read_json

# The weights of a model without a graph, which the native engine reads; the second names the files of a divided one.
WEIGHT_FILES = (SAFETENSORS, f"{SAFETENSORS}.index.json")

# What a graph may take: a text's tokens, and of a decoder their positions and the cache of earlier tokens.
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
POSITIONS = "position_ids"
CACHE_INPUTS = "past_key_values."
STATES, SENTENCE_EMBEDDING = ("last_hidden_state", "token_embeddings"), "sentence_embedding"
MODEL_GRAPH = 7
_GRAPH_INPUT, _GRAPH_OUTPUT, _VALUE_NAME = 11, 12, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # 64 bits, 7 a byte
# A StringStringEntryProto: field 1 with the 8 bytes "location", then field 2 with the name.
_LOCATION_KEY, _LOCATION_VALUE = b"\x0a\x08location", b"\x12"


def unknown_inputs(names: Iterable[str]) -> list[str]:
    """The inputs that no text gives; "input_ids" if it is missing."""
    given = set(names)
    others = given - {*TOKEN_INPUTS, POSITIONS}
    return sorted({name for name in others if not name.startswith(CACHE_INPUTS)} | ({TOKEN_INPUTS[0]} - given))


class GraphNames(NamedTuple):
    inputs: list[str]
    outputs: list[str]


def graph_names(path: ModelPath) -> GraphNames:
    """The names of a graph's inputs and outputs. Raises ValueError for a file that is no ONNX file."""
    names: dict[int, list[str]] = {_GRAPH_INPUT: [], _GRAPH_OUTPUT: []}
    try:
        for graph in _messages(mapped_bytes(path), MODEL_GRAPH):
            for number, found in names.items():
                for value in _messages(graph, number):
                    found += [str(text, "utf-8") for text in _messages(value, _VALUE_NAME)]
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} is not an ONNX file: {error}") from error
    return GraphNames(names[_GRAPH_INPUT], names[_GRAPH_OUTPUT])


def _messages(message: memoryview, field: int) -> Iterator[memoryview]:
    return (value for number, value in fields_of(message) if number == field and isinstance(value, memoryview))


def external_data_names(path: ModelPath, name: str) -> list[str]:
    """The files that hold weights of a graph outside of it, or those of an index, by their paths in the directory.

    Raises ModelFormatError for a name that leads out of the directory, and for such a graph in a bundle.
    """
    file = path / name
    try:
        if name == WEIGHT_FILES[1]:
            locations = [str(location) for location in read_json(file)["weight_map"].values()]
        else:
            locations = external_locations(file) if name.endswith(".onnx") and file.is_file() else []
    except (ValueError, IndexError, KeyError, AttributeError) as error:
        raise ModelFormatError(f"{file} names weights outside of it that are no file: {error!r}") from error
    if locations and isinstance(path, BundlePath):
        raise ModelFormatError(
            f"{file} has weights outside of it, in {locations[0]!r}, which a bundle cannot hold; export it as one file"
        )
    return sorted({name_beside(path, name, location) for location in locations})


def name_beside(path: ModelPath, name: str, location: str) -> str:
    """The path in the directory of a file that the file `name` names. Raises ModelFormatError if it is not inside."""
    inside = PurePosixPath(name).parent / location
    if not location or not is_inside(inside):
        where = f"{location!r:.200}, which is not inside the model directory"
        raise ModelFormatError(f"{path / name} has weights in {where}")
    return inside.as_posix()


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
            length, start = read_varint(entry, 1)
            locations.append(str(entry[start : start + length], "utf-8"))
        place = content.find(_LOCATION_KEY, value)
    return locations


def fields_of(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs of a protobuf message: an int for a varint, the bytes of everything else.

    Raises IndexError for bytes that are none.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = read_varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = read_varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = read_varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(f"wire type {kind} at byte {position}")
        if position + length > end:
            raise IndexError(f"a field ends at byte {position + length} of {end}")
        yield key >> 3, message[position : position + length]
        position += length


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError(f"a number of more than {_VARINT_BYTES} bytes before byte {position}")
