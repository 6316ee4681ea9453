"""Which rows of a source are left out: exact repetitions, and rows with a text of an evaluation set. By hash.

A row or text is 8 bytes of its BLAKE2b. Among 800 million rows, the chance that even one is taken for another is 2 %.
Whatever is compared is 8 bytes a text on disk or, of an evaluation set, in memory; rows are compared a part at a time.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS_A_PART = 2**23
"""Rows whose hashes are compared in memory at once; with their numbers and what sorting takes, 400 MB."""
_NOT_A_WORD = re.compile(r"[\W_]+")

Hashes = NDArray[np.uint64]
NOTHING: Hashes = np.zeros(0, dtype=np.uint64)


class Scanned(NamedTuple):
    hashes: Hashes
    """(n,): of each row, with all that it holds."""
    refused: NDArray[np.int64]
    """The rows with a forbidden text."""
    empty: NDArray[np.int64]
    """The rows without a query or a document."""


def to_comparable(text: str) -> str:
    """The form in which training texts are compared with evaluation texts: letters and digits in lower case."""
    return _NOT_A_WORD.sub(" ", text.casefold()).strip()


def hash_evaluation_texts(texts: Iterable[str]) -> Hashes:
    """(n,), sorted: the hashes of the comparable forms, without the empty one."""
    return np.unique(np.fromiter(map(_hash, filter(None, map(to_comparable, texts))), dtype=np.uint64))


def scan(batch: pa.RecordBatch, forbidden: Hashes) -> Scanned:
    """Reads every text of a batch with the columns query, document, negatives and label. `forbidden` is sorted."""
    hashes = np.zeros(batch.num_rows, dtype=np.uint64)
    empty, forms, owners = [], [], []
    columns = (column.to_pylist() for column in batch.columns)
    for row, (query, document, negatives, label) in enumerate(zip(*columns, strict=True)):
        texts = [query or "", document or "", *(negatives or ())]
        hashes[row] = _hash("\0".join([*texts, label or ""]))
        if not (texts[0].strip() and texts[1].strip()):
            empty.append(row)
        if len(forbidden):
            forms += [_hash(form) for form in map(to_comparable, texts)]
            owners += [row] * len(texts)
    refused = np.unique(np.array(owners, dtype=np.int64)[_are_among(np.array(forms, dtype=np.uint64), forbidden)])
    return Scanned(hashes, refused, np.array(empty, dtype=np.int64))


def find_repeated(hashes: Sequence[Hashes], rows_a_part: int = ROWS_A_PART) -> NDArray[np.int64]:
    """The rows, counted over all arrays and ascending, that have the hash of an earlier one."""
    row_count = sum(map(len, hashes))
    part_count = np.uint64(-(-row_count // rows_a_part) or 1)
    repeated = [np.zeros(0, dtype=np.int64)]
    for part in range(int(part_count)):
        first, numbers, rows = 0, [], []
        for of_one in hashes:
            own = np.flatnonzero(of_one % part_count == part)
            numbers.append(of_one[own])
            rows.append(own + first)
            first += len(of_one)
        numbers_N, rows_N = np.concatenate(numbers), np.concatenate(rows)
        order_N = np.argsort(numbers_N, kind="stable")
        sorted_N = numbers_N[order_N]
        repeated.append(rows_N[order_N[1:][sorted_N[1:] == sorted_N[:-1]]])
    return np.sort(np.concatenate(repeated))


def to_gaps(left_out: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of ascending rows that are left out, how many rows that are not stand before each. Takes the memory of a copy."""
    return left_out - np.arange(len(left_out))


def rows_of(kept_N: NDArray[np.int64], gaps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of those that are not left out, by their numbers among themselves."""
    rows_N: NDArray[np.int64] = kept_N + np.searchsorted(gaps, kept_N, side="right")
    return rows_N


def _are_among(hashes_N: Hashes, forbidden: Hashes) -> NDArray[np.bool_]:
    if not len(forbidden):
        return np.zeros(len(hashes_N), dtype=np.bool_)
    places_N = np.minimum(np.searchsorted(forbidden, hashes_N), len(forbidden) - 1)
    among_N: NDArray[np.bool_] = forbidden[places_N] == hashes_N
    return among_N


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
