"""What `Index.search(where=...)` takes: a mask, ids, or a function of an id."""

from collections.abc import Callable, Collection, Set
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, InputTypeError
from gte_sdk.search.index_ids import Id, list_values, plain_ids

Where: TypeAlias = NDArray[np.bool_] | Collection[Any] | Callable[[Any], bool]


def mask_or_ids(where: Any) -> NDArray[np.bool_] | list[Id]:
    """A mask for an ordered collection of booleans of any library; ids for a collection of int or str.

    Raises InputTypeError for anything else, above all where booleans could be taken for the ids 0 and 1.
    """
    if isinstance(where, np.ndarray) and where.dtype == np.bool_:
        return where
    values = list_values("where", where)
    are_bool = [isinstance(value, bool | np.bool_) for value in values]
    if not any(are_bool):
        ids = plain_ids("where", values)
        if len(ids) > len(set(ids)) and set(ids) <= {0, 1}:
            raise InputTypeError(
                f"where is {where!r:.80}, which looks like a mask of 0 and 1; give booleans, or each id once"
            )
        return ids
    if isinstance(where, Set):
        raise InputTypeError(f"where is {where!r:.80}; booleans need an order, give them as a list")
    if not all(are_bool):
        position = are_bool.index(not are_bool[0])
        raise InputTypeError(
            f"where[0] is {values[0]!r} and where[{position}] {values[position]!r}; give a mask or ids"
        )
    return np.array(values, np.bool_)


def check_mask(mask: NDArray[np.bool_], count: int) -> None:
    """Raises InputError if the mask has another shape than an index of `count` vectors."""
    if mask.shape != (count,):
        raise InputError(f"where has shape {mask.shape}; a mask of this index has shape ({count},)")


def check_id_type(ids: list[Id], id_dtype: np.dtype[Any]) -> None:
    """Raises InputTypeError for int where the index has str, and the other way round: none of them could match."""
    own = str if id_dtype.hasobject else int
    for position, id in enumerate(ids):
        if not isinstance(id, own):
            raise InputTypeError(f"where[{position}] is {id!r}; the ids of this index are {own.__name__}")
