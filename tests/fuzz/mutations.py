"""Damage, drawn at random: of bytes, and of JSON values. The same generator state does the same damage.

Some data is left whole, so that a format whose valid files are refused is noticed: its cases would test nothing.
"""

import copy
from random import Random
from typing import Any

# Numbers that readers take for sizes, offsets and counts, in the bytes of both ends.
_EXTREMES = [
    b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80", b"\x80" * 7 + b"\x01", b"\xff" * 4 + b"\0" * 4,
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30, 10**400, 1.5, float("nan"),
    float("inf"), -0.0, 1e308, "", "a", "\ud800", "\x1b[31m", "x" * 70_000, [], [[]], {}, {"a": 1}, ["a"], [1, 2],
    {"": None}, "../../etc/passwd", "/etc/passwd", "\0",
]  # fmt: skip
_WHOLE = 0.08  # of all data
_NAMES = ["", "x", "../a", "a/b", "\ud800", "\x1b]0;p\x07", "y" * 70_000]


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """A few changes, half of them near the start, where headers are: bits, bytes, cuts, insertions, repeats."""
    damaged = bytearray(data)
    if random.random() < _WHOLE:
        return data
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        near = min(len(damaged), 1500) if random.random() < 0.5 else len(damaged)
        place = random.randrange(near) if damaged else 0
        length = random.choice([1, 2, 4, 16, 200])
        match random.randrange(9):
            case 0 if damaged:
                damaged[place] ^= 1 << random.randrange(8)
            case 1 if damaged:
                damaged[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
            case 2:
                del damaged[place : place + length]
            case 3:
                damaged[place:place] = random.randbytes(random.choice([1, 2, 4, 9]))
            case 4:
                del damaged[place:]
            case 5:
                damaged[place : place + 8] = random.choice(_EXTREMES)
            case 6:
                start = random.randrange(len(damaged) + 1)
                damaged[place:place] = damaged[start : start + length]
            case 7:
                start = random.randrange(len(damaged) + 1)
                damaged[place : place + length] = damaged[start : start + length]
            case _:
                damaged += random.randbytes(random.choice([1, 8, 100]))
    return bytes(damaged)


def mutate_json(random: Random, value: Any) -> Any:
    """The value with some of its parts replaced, left out, renamed or doubled."""
    damaged = copy.deepcopy(value)
    if random.random() < _WHOLE:
        return damaged
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        places = [*_places(damaged)]
        if not places or random.random() < 0.02:
            return copy.deepcopy(random.choice(_VALUES))
        container, key = random.choice(places)
        match random.randrange(5):
            case 0 | 1 | 2:
                container[key] = copy.deepcopy(random.choice(_VALUES))
            case 3:
                del container[key]
            case _ if isinstance(container, dict):
                container[random.choice([*_NAMES, f"{key}0"])] = container.pop(key)
            case _:
                container.insert(key, container[key])
    return damaged


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each part of a JSON value as its container and its key; of long lists the first forty."""
    places: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(min(len(value), 40))
        for key in keys:
            places += [(value, key), *_places(value[key])]
    return places
