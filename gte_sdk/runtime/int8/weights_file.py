"""model_int8.safetensors: the int8 weights of an encoder in one file, as safetensors with metadata of our own.

The tensors have the names of the fields in native/description.py, and the metadata has what is no tensor. A checksum
covers the whole file, so that a damaged one is found in milliseconds. docs/model-directory.md describes the format.
"""

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import LARGEST, ModelPath, mapped_bytes
from gte_sdk.runtime.native.description import EncoderWeights, Layer, Linear, Norm, QuantizedLinear
from gte_sdk.runtime.native.parameters import give_back_pages
from gte_sdk.runtime.native.safetensors_file import map_safetensors, split_safetensors

FORMAT_VERSION = 2
_LINEARS = ("query_key_value", "attention_output", "feed_forward_in", "feed_forward_out")
_VALUES = ("hidden", "heads", "most_tokens", "epsilon", "norm_first", "activation", "gated", "padding_token")
_TABLES = ("positions_PE", "padding_row_E", "token_type_row_E", "relative_bias_HD")
_DTYPES = {"float32": "F32", "int8": "I8"}
# The header begins with the checksum, so that its place is known.
_BEFORE_CHECKSUM = b'{"__metadata__":{"checksum":"'
_NO_CHECKSUM = b"00000000"
_LENGTH_BYTES = 8
_CHECKSUM_START = _LENGTH_BYTES + len(_BEFORE_CHECKSUM)
_BLOCK_BYTES = 1 << 20
_ALIGNMENT = 64

Array = NDArray[Any]
Tensors = Mapping[str, Array]


class Int8File(NamedTuple):
    weights: EncoderWeights
    """Mapped, not read. Reading a layer takes the one before out of memory; it may raise ModelFormatError."""
    facts: Mapping[str, Any]
    """What was written with them."""


def write_int8(file: IO[bytes], weights: EncoderWeights, facts: Mapping[str, Any]) -> None:
    """Writes weights to an empty file that is open for writing and reading. Equal arguments give equal bytes.

    facts: what else is to be known about the weights, as JSON has it.
    """
    layers = list(weights.layers)
    tensors = dict(_tensors_of(weights, layers))
    description = {
        "format_version": FORMAT_VERSION,
        **{name: getattr(weights, name) for name in _VALUES},
        "layers": [{"window": layer.window, "shifted": _shifted(layer)} for layer in layers],
        "facts": dict(facts),
    }
    metadata = {"checksum": _NO_CHECKSUM.decode(), "gte_int8": json.dumps(description)}
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(_LENGTH_BYTES + len(encoded)) % _ALIGNMENT)
    file.write(len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded)
    for array in tensors.values():
        file.write(array.data)
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as written:
        checksum = _checksum(written, threads=1)
    file.seek(_CHECKSUM_START)
    file.write(checksum)
    file.seek(0, 2)


def read_int8(path: ModelPath, pooling: str, threads: int) -> Int8File:
    """Raises ModelFormatError for a file that is damaged, or of another format."""
    description = _read_description(path, threads)
    tensors = map_safetensors(path)
    with _explained(path):
        weights = EncoderWeights(
            hidden=_value(description, "hidden", int),
            heads=_value(description, "heads", int),
            most_tokens=_value(description, "most_tokens", int),
            epsilon=_value(description, "epsilon", float),
            pooling=pooling,
            token_embeddings_VE=_array(tensors, "token_embeddings_VE", "int8"),
            layers=_read_layers(path, tensors, _value(description, "layers", list)),
            norm_first=_value(description, "norm_first", bool),
            activation=_value(description, "activation", str),
            gated=_value(description, "gated", bool),
            token_scales_V=_floats(tensors, "token_scales_V"),
            positions_PE=_optional(tensors, "positions_PE"),
            padding_token=None if description["padding_token"] is None else _value(description, "padding_token", int),
            padding_row_E=_optional(tensors, "padding_row_E"),
            token_type_row_E=_optional(tensors, "token_type_row_E"),
            embedding_norm=_norm(tensors, "embedding_norm"),
            projection=_float_linear(tensors, "projection") if "projection.weights_NK" in tensors else None,
            relative_bias_HD=_optional(tensors, "relative_bias_HD"),
            final_norm=_norm(tensors, "final_norm"),
        )
        return Int8File(weights, _value(description, "facts", dict))


def _read_layers(path: ModelPath, tensors: Tensors, entries: Sequence[Mapping[str, Any]]) -> Iterator[Layer]:
    for number, entry in enumerate(entries):
        prefix = f"layers.{number}."
        with _explained(path):
            shifted = entry["shifted"]
            linears = {name: _linear(tensors, prefix + name, name in shifted) for name in _LINEARS}
            feed_forward_norm = _norm(tensors, f"{prefix}feed_forward_norm")
            if feed_forward_norm is None:
                raise KeyError(f"{prefix}feed_forward_norm")
            layer = Layer(
                **linears,
                attention_norm=_norm(tensors, f"{prefix}attention_norm"),
                feed_forward_norm=feed_forward_norm,
                window=_value(entry, "window", int),
                rotary_H2=_optional(tensors, f"{prefix}rotary_H2"),
            )
        yield layer
        give_back_pages(tensors)


def _tensors_of(weights: EncoderWeights, layers: Sequence[Layer]) -> Iterator[tuple[str, Array]]:
    """All tensors by their names in the file, contiguous."""
    fields = {
        "token_embeddings_VE": weights.token_embeddings_VE,
        "token_scales_V": weights.token_scales_V,
        **{name: getattr(weights, name) for name in _TABLES},
        **_parts("embedding_norm", weights.embedding_norm),
        **_parts("projection", weights.projection),
        **_parts("final_norm", weights.final_norm),
    }
    for number, layer in enumerate(layers):
        for name in (*_LINEARS, "attention_norm", "feed_forward_norm"):
            fields.update(_parts(f"layers.{number}.{name}", getattr(layer, name)))
        fields[f"layers.{number}.rotary_H2"] = layer.rotary_H2
    for name, array in fields.items():
        if array is not None:
            yield name, np.ascontiguousarray(array)


def _parts(name: str, value: Linear | QuantizedLinear | Norm | None) -> dict[str, Any]:
    """The arrays of a part of the encoder, by their names in the file."""
    arrays = {} if value is None else value._asdict()
    return {f"{name}.{field}": array for field, array in arrays.items() if field != "shifted"}


def _shifted(layer: Layer) -> list[str]:
    linears = {name: getattr(layer, name) for name in _LINEARS}
    return [name for name, linear in linears.items() if isinstance(linear, QuantizedLinear) and linear.shifted]


def _linear(tensors: Tensors, name: str, shifted: bool) -> Linear | QuantizedLinear:
    if f"{name}.weights_NK" in tensors:
        return _float_linear(tensors, name)
    return QuantizedLinear(
        _array(tensors, f"{name}.codes_KN", "int8"),
        _floats(tensors, f"{name}.scales_N"),
        _floats(tensors, f"{name}.bias_N"),
        _floats(tensors, f"{name}.smoothing_K"),
        shifted,
    )


def _float_linear(tensors: Tensors, name: str) -> Linear:
    return Linear(_floats(tensors, f"{name}.weights_NK"), _optional(tensors, f"{name}.bias_N"))


def _norm(tensors: Tensors, name: str) -> Norm | None:
    if f"{name}.weight_H" not in tensors:
        return None
    return Norm(_floats(tensors, f"{name}.weight_H"), _floats(tensors, f"{name}.bias_H"))


def _floats(tensors: Tensors, name: str) -> NDArray[np.float32]:
    return _array(tensors, name, "float32")


def _optional(tensors: Tensors, name: str) -> NDArray[np.float32] | None:
    return _floats(tensors, name) if name in tensors else None


def _array(tensors: Tensors, name: str, dtype: str) -> Array:
    array = tensors[name]
    if array.dtype.name != dtype:
        raise TypeError(f"{name} is {array.dtype} where {dtype} belongs")
    return array


def _value(description: Mapping[str, Any], name: str, kind: type) -> Any:
    value = description[name]
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value <= LARGEST):
        raise ValueError(f"it has {name}={value!r:.40}")
    return value


def _read_description(path: ModelPath, threads: int) -> Mapping[str, Any]:
    content = mapped_bytes(path)
    start = bytes(content[_LENGTH_BYTES : _CHECKSUM_START + len(_NO_CHECKSUM)])
    if not start.startswith(_BEFORE_CHECKSUM):
        raise ModelFormatError(f"{path} is no file of int8 weights that gte-sdk wrote; convert the model again")
    if start[len(_BEFORE_CHECKSUM) :] != _checksum(content, threads):
        raise ModelFormatError(f"{path} is damaged: it has another checksum than it records; convert the model again")
    with _explained(path):
        header, _ = split_safetensors(content)
        description: dict[str, Any] = json.loads(header["__metadata__"]["gte_int8"])
        version = description["format_version"]
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{path} has format version {version!r}; this gte-sdk reads {FORMAT_VERSION}: "
            "upgrade gte-sdk or convert the model again"
        )
    return description


def _checksum(content: memoryview, threads: int) -> bytes:
    """CRC-32C in hex: of the first block, with zeros for the checksum itself, and of the CRC-32C of all others."""
    first = bytearray(content[:_BLOCK_BYTES])
    first[_CHECKSUM_START : _CHECKSUM_START + len(_NO_CHECKSUM)] = _NO_CHECKSUM
    others = _kernels.block_checksums(content[_BLOCK_BYTES:], _BLOCK_BYTES, threads)
    everything = bytes(first) + others.astype("<u4").tobytes()
    return b"%08x" % int(_kernels.block_checksums(everything, len(everything))[0])


@contextmanager
def _explained(path: ModelPath) -> Iterator[None]:
    """Turns what a malformed description or tensor raises into one error."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{path} does not hold an int8 encoder: {error!r}; convert the model again") from error
