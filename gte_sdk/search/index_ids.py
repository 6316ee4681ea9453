"""The ids of an index: int of 64 bits or str, one type for all, no two the same."""

from collections.abc import Iterable, Mapping, Sequence, Set
from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, InputTypeError

Id: TypeAlias = int | str
Ids: TypeAlias = Sequence[Id] | NDArray[Any]

# The next id, one above the highest, must fit 64 bits too.
MAX_ID = 2**63 - 2


def checked_ids(ids: Ids) -> list[Id]:
    """`ids` as different plain int or str, all of one type."""
    plain = plain_ids("ids", list_values("ids", ids))
    seen: set[Id] = set()
    for position, id in enumerate(plain):
        if type(id) is not type(plain[0]):
            raise InputTypeError(f"ids[{position}] is {id!r}; give all ids as int, or all as str")
        if isinstance(id, int) and not -(2**63) <= id <= MAX_ID:
            raise InputError(f"ids[{position}] is {id}; an int id is from -2^63 to 2^63 - 2")
        if isinstance(id, str) and not id.isascii():
            try:
                id.encode()
            except UnicodeEncodeError:
                raise InputError(f"ids[{position}] is {id!r}, which UTF-8 cannot hold") from None
        if id in seen:
            raise InputError(f"ids[{position}] is {id!r} for the second time")
        seen.add(id)
    return plain


def checked_ids_of_rows(ids: Ids, count: int) -> list[Id]:
    """`checked_ids` in the order of `count` vectors."""
    plain = checked_ids(ids_in_order(ids))
    if len(plain) != count:
        raise InputError(f"{len(plain)} ids for {count} vectors")
    return plain


def ids_in_order(ids: Ids) -> list[Id]:
    """`ids` as plain int or str. Raises InputTypeError for a set."""
    if isinstance(ids, Set):
        raise InputTypeError(f"ids is a {type(ids).__name__}, which has no order; give a list")
    return plain_ids("ids", list_values("ids", ids))


def plain_ids(name: str, values: list[Any]) -> list[Id]:
    """`values` as plain int or str, in place. Raises InputTypeError, with the position, for anything else."""
    for position, value in enumerate(values):
        if type(value) not in (int, str):
            values[position] = plain_id(value, f"{name}[{position}]")
    return values


def list_values(name: str, values: Any) -> list[Any]:
    """The values of a list, an array, a set or a column of a data frame. A str is one id, not a list of letters."""
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise InputTypeError(f"{name} is {values!r:.80}; give a list, such as [{values!r:.20}]")
    if len(shape := getattr(values, "shape", (0,))) != 1:
        raise InputTypeError(f"{name} has shape {shape}; give a list of ids")
    # Arrow's arrays iterate over values of their own.
    method = "tolist" if isinstance(values, np.ndarray) else "to_pylist"
    return list(getattr(values, method)() if hasattr(values, method) else values)


def plain_id(id: Any, name: str = "the id") -> Id:
    """`id` as a plain int or str, from numpy's too. Raises InputTypeError for anything else."""
    if isinstance(id, str):
        return str.__str__(id)
    if isinstance(id, bool | np.bool_) or not hasattr(id, "__index__"):
        raise InputTypeError(f"{name} is {id!r:.80}; give an int or a str")
    try:
        return index(id)
    except TypeError:  # an array has __index__ too
        raise InputTypeError(f"{name} is {id!r:.80}; give an int or a str") from None
