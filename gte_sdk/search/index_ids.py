"""The ids of an index: int of 64 bits or str, one type for all, none of them twice."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, InputTypeError

Id: TypeAlias = int | str
Ids: TypeAlias = Sequence[Id] | NDArray[Any]


def checked_ids(ids: Ids, count: int) -> list[Id]:
    """`ids` as `count` different plain int or str, all of one type."""
    plain: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if len(plain) != count:
        raise InputError(f"{len(plain)} ids for {count} vectors")
    seen: set[Id] = set()
    for position, id in enumerate(plain):
        if type(id) not in (int, str) or type(id) is not type(plain[0]):
            raise InputTypeError(f"ids[{position}] is {id!r}; give all ids as int, or all as str")
        if isinstance(id, int) and not -(2**63) <= id < 2**63 - 1:
            raise InputError(f"ids[{position}] is {id}; an int id has 64 bits")
        if isinstance(id, str) and not id.isascii():
            try:
                id.encode()
            except UnicodeEncodeError:
                raise InputError(f"ids[{position}] is {id!r}, which UTF-8 cannot hold") from None
        if id in seen:
            raise InputError(f"ids[{position}] is {id!r} for the second time")
        seen.add(id)
    return plain


def plain_id(id: Any) -> Id:
    plain: Id = id if isinstance(id, str) else int(id)
    return plain
