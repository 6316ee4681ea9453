"""Vectors as other libraries hand them over: arrays, tensors of any device, lists of these. And their cosines.

PyTorch is needed only by who asks for tensors or gives them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError
from gte_sdk.runtime.engine import cut_rows


def cosines(first: Any, second: Any) -> Any:
    """The cosine of each of n vectors with each of m: (n, m) float32, a tensor if one was given.

    Raises InputError for different numbers of dimensions.
    """
    first_ND, second_MD = _unit_rows("embeddings1", first), _unit_rows("embeddings2", second)
    if first_ND.shape[1] != second_MD.shape[1]:
        raise InputError(
            f"embeddings1 have {first_ND.shape[1]} dimensions, embeddings2 {second_MD.shape[1]}; embed both with one "
            "model"
        )
    return like_given(first_ND @ second_MD.T, first, second)


def paired_cosines(first: Any, second: Any) -> Any:
    """The cosine of each of n vectors with the vector in the same place: (n,). Raises InputError for unequal shapes."""
    first_ND, second_ND = _unit_rows("embeddings1", first), _unit_rows("embeddings2", second)
    if first_ND.shape != second_ND.shape:
        raise InputError(f"embeddings1 have shape {first_ND.shape}, embeddings2 {second_ND.shape}; give pairs")
    cosines_N: NDArray[np.float32] = np.einsum("nd,nd->n", first_ND, second_ND)
    return like_given(cosines_N, first, second)


def as_rows(name: str, vectors: Any) -> NDArray[np.float32]:
    """Vectors as a float32 matrix, one vector as one row. Raises InputError for more than two axes."""
    rows_ND = np.atleast_2d(_as_array(vectors).astype(np.float32))
    if rows_ND.ndim != 2:
        raise InputError(f"{name} has shape {rows_ND.shape}; give a matrix with one vector in each row")
    return rows_ND


def like_given(array: NDArray[Any], *given: Any) -> Any:
    """A tensor if one of what was given is one, or begins with one; else the array."""
    return as_tensor(array) if any(map(_holds_tensors, given)) else array


def as_tensor(array: NDArray[Any]) -> Any:
    """The array as a tensor on the CPU, with the same memory. Raises InputError if PyTorch is not installed."""
    try:
        import torch
    except ImportError as error:
        raise InputError("tensors need PyTorch, which is not installed; leave convert_to_tensor out") from error
    return torch.from_numpy(array)


def _unit_rows(name: str, vectors: Any) -> NDArray[np.float32]:
    rows_ND = as_rows(name, vectors)
    return cut_rows(rows_ND, rows_ND.shape[1])


def _holds_tensors(values: Any) -> bool:
    """Whether these are a tensor, or a list that begins with one."""
    first = values[0] if isinstance(values, list | tuple) and values else values
    return type(first).__module__.partition(".")[0] == "torch"


def _as_array(values: Any) -> NDArray[Any]:
    """A tensor of any device, or a list of arrays or tensors, as one array."""
    if isinstance(values, list | tuple):
        return np.array([_as_array(value) for value in values])
    return np.asarray(values.detach().cpu().numpy() if _holds_tensors(values) else values)
