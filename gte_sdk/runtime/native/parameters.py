"""The parameters of a checkpoint by the names that transformers gives them, and the layers that they form.

Whatever a file has other than the architecture needs is a NotCoveredError with the name and the shapes. Arrays are
views of the mapped file until a layer is put together; `give_back_pages` then takes them out of memory.
"""

import mmap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.runtime.native.description import Linear, Norm, NotCoveredError
from gte_sdk.runtime.native.safetensors_file import as_floats

# What checkpoints that began in TensorFlow call the weight and the bias of a normalization.
_OLD_NAMES = {"weight": "gamma", "bias": "beta"}


class Parameters(NamedTuple):
    tensors: Mapping[str, NDArray[Any]]
    prefix: str
    """What stands before the names of the encoder itself, such as "bert."."""


def find_prefix(tensors: Mapping[str, NDArray[Any]], table: str) -> str:
    """What stands before `table`, the name of the token embeddings, which have to be there once."""
    prefixes = [name.removesuffix(table) for name in tensors if name == table or name.endswith(f".{table}")]
    if len(prefixes) != 1:
        raise NotCoveredError(f"it has {len(prefixes) or 'no'} parameters that end in {table}")
    return prefixes[0]


def has(parameters: Parameters, name: str) -> bool:
    return _find(parameters, name) is not None


def read_array(parameters: Parameters, name: str, *shape: int) -> NDArray[np.float32]:
    """A parameter as float32. shape: what it has to be, -1 for any size."""
    array = _find(parameters, name)
    if array is None:
        raise NotCoveredError(f"it has no parameter {parameters.prefix}{name}")
    if len(shape) != array.ndim or any(size not in (-1, own) for size, own in zip(shape, array.shape, strict=True)):
        raise NotCoveredError(f"{parameters.prefix}{name} has the shape {array.shape} where config.json says {shape}")
    try:
        return as_floats(array)
    except ValueError as error:
        raise NotCoveredError(f"{parameters.prefix}{name}: {error}") from error


def read_linear(parameters: Parameters, name: str, outputs: int, inputs: int, bias: bool = True) -> Linear:
    weights_NK = read_finite(parameters, f"{name}.weight", outputs, inputs)
    return Linear(weights_NK, read_finite(parameters, f"{name}.bias", outputs) if bias else None)


def read_finite(parameters: Parameters, name: str, *shape: int) -> NDArray[np.float32]:
    """As `read_array`, for what a softmax may hide: a NaN in a query's weights would end as a vector that is finite."""
    array = read_array(parameters, name, *shape)
    with np.errstate(all="ignore"):
        if not np.isfinite(array.sum()):
            raise NotCoveredError(f"{parameters.prefix}{name} has NaN or infinity: the weights are damaged")
    return array


def join(layers: list[Linear]) -> Linear:
    """One layer that has the outputs of all, one after the other."""
    biases = [layer.bias_N for layer in layers if layer.bias_N is not None]
    return Linear(np.concatenate([layer.weights_NK for layer in layers]), np.concatenate(biases) if biases else None)


def read_norm(parameters: Parameters, name: str, width: int, bias: bool = True) -> Norm:
    weight_H = read_finite(parameters, f"{name}.weight", width)
    return Norm(weight_H, read_finite(parameters, f"{name}.bias", width) if bias else np.zeros_like(weight_H))


def give_back_pages(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Takes the mapped files out of memory, until they are read again, where the system can do that."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for mapping in {id(found): found for found in map(_mapping_of, tensors.values()) if found is not None}.values():
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else None
    return owner if isinstance(owner, mmap.mmap) else None


def _find(parameters: Parameters, name: str) -> NDArray[Any] | None:
    full = parameters.prefix + name
    stem, _, last = full.rpartition(".")
    found = parameters.tensors.get(full)
    return parameters.tensors.get(f"{stem}.{_OLD_NAMES[last]}") if found is None and last in _OLD_NAMES else found
