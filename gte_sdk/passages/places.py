"""What a passage index has of some files: the passage at a line, the text of some lines, the vector of a passage.

A file is read from the index and never from the disk, so nothing can be read that was not indexed.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import IndexFormatError
from gte_sdk.passages.database import damaged
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import PassageStore
from gte_sdk.passages.text_files import Wanted, is_wanted_below
from gte_sdk.passages.updating import hash_of


class Lines(NamedTuple):
    """Some consecutive lines of a file."""

    first: int
    """Counted from 1."""
    last: int
    """`first - 1` if there are none."""
    text: str
    """The lines, joined by "\\n". Lines that are blank in the file are empty."""
    is_cut: bool
    """Whether `last` is not the last line that was asked for, or its end is missing."""


def passage_at(passages: Sequence[Passage], line: int) -> Passage | None:
    """Returns the last passage that begins at or before a line; the first one for a line before all of them."""
    before = [passage for passage in passages if passage.line <= line]
    return before[-1] if before else passages[0] if passages else None


def lines_of(passages: Sequence[Passage], first: int, count: int, most_characters: int) -> Lines:
    """Returns lines of a file from its passages, up to the end of the last one.

    Args:
        passages: All passages of the file, in the order of lines.
        first: The first line, from 1.
        count: The most lines.
        most_characters: The most characters. Whole lines are returned up to there, or the start of the first one.
    """
    text_of = {
        number: line
        for passage in passages
        for number, line in enumerate(passage.text.split("\n"), passage.line)
        if first <= number < first + count
    }
    last = max(text_of, default=first - 1)
    lines: list[str] = []
    room = most_characters
    for number in range(first, last + 1):
        line = text_of.get(number, "")
        room -= len(line) + 1
        if room < -1:
            if not lines:
                return Lines(first, first, line[:most_characters], True)
            return Lines(first, number - 1, "\n".join(lines), True)
        lines.append(line)
    return Lines(first, last, "\n".join(lines), False)


def last_line_of(passages: Sequence[Passage]) -> int:
    """Returns the last line that is not blank; 0 without passages."""
    return max((passage.line + passage.text.count("\n") for passage in passages), default=0)


def passages_in(store: PassageStore, wanted: Wanted) -> dict[int, set[int]]:
    """Returns the ids of the passages of the files that are wanted, by the ids of their vectors.

    A file's path is taken below the folder of the index that it lies in; one that was named itself has its name only.
    """
    folders = [Path(folder) for folder in store.settings.paths]

    def is_wanted(file: Path) -> bool:
        below = [file.relative_to(folder) for folder in folders if folder in file.parents]
        return any(is_wanted_below(path, wanted) for path in below or [Path(file.name)])

    files = store.rows("SELECT id, path FROM files", (int, bytes))
    chosen = {id for id, path in files if is_wanted(Path(os.fsdecode(path)))}
    rows = store.rows("SELECT id, vector_id, file_id FROM passages", (int, int, int))
    passages: dict[int, set[int]] = {}
    for id, vector_id, file_id in rows:
        if file_id in chosen:
            passages.setdefault(vector_id, set()).add(id)
    return passages


def vector_of(store: PassageStore, passage: Passage) -> NDArray[np.float32]:
    """Returns the vector of a passage of the index, (dim,) float32.

    Raises:
        IndexFormatError: The index is damaged.
    """
    rows = store.rows("SELECT vector FROM vectors WHERE text_sha256 = ?", (bytes,), (hash_of(passage),))
    if not rows or len(rows[0][0]) != 4 * store.settings.dim:
        raise _without_vector(store)
    vector_D = np.frombuffer(rows[0][0], "<f4").astype(np.float32)
    if not np.isfinite(vector_D).all():
        raise _without_vector(store)
    return vector_D


def _without_vector(store: PassageStore) -> IndexFormatError:
    return damaged(store.path, "a passage has no vector")
