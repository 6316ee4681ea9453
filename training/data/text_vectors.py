"""Vectors of texts on disk, found by the text itself: what a teacher says of each, computed once for any run.

A directory holds vectors.json (whose vectors) and shards of two NumPy files: NNNNNN.vectors.npy, (n, d) float16 rows of
unit length, and NNNNNN.keys.npy, (n, 2) uint64, the 128-bit BLAKE2b of each text. The keys are written last, so a shard
is there whole or not at all. Vectors stay on disk, memory-mapped; memory holds 24 bytes a text.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.atomic_file import replace_whole
from training.data.pairs import PairsError, Source

VECTORS_JSON = "vectors.json"
FORMAT_VERSION = 1
TEXTS_A_SHARD = 4096
PAIRS_A_TURN = 32


@dataclass(frozen=True)
class TextVectors:
    """The vectors of one directory."""

    directory: Path
    teacher: str
    """What computed them."""
    max_tokens: int
    """What was read of each text."""
    dim: int
    keys: NDArray[np.uint64]
    """(k, 2): sorted by their first word."""
    rows: NDArray[np.int64]
    """(k,): the row of each key, counted over all shards."""
    starts: NDArray[np.int64]
    """(shards + 1,): the first row of each shard, and how many there are."""
    shards: list[NDArray[np.float16]]

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,): the row of each text, -1 where it has none."""
        return self.find_keys(hash_texts(texts))

    def find_keys(self, keys_N2: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n,): the row of each hash, (n, 2) from `hash_texts`, -1 where it has none."""
        if not len(self):
            return np.full(len(keys_N2), -1, dtype=np.int64)
        # One place is looked at: of two texts with the same first 64 bits (one chance in 10 million among two million
        # texts) one counts as missing.
        places_N = np.minimum(np.searchsorted(self.keys[:, 0], keys_N2[:, 0]), len(self) - 1)
        found_N = (self.keys[places_N] == keys_N2).all(axis=1)
        rows_N: NDArray[np.int64] = np.where(found_N, self.rows[places_N], -1)
        return rows_N

    def read(self, rows_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, d): the unit vectors of rows that `find` gave."""
        assert (rows_N >= 0).all(), "find says which texts have none"
        numbers_N = np.searchsorted(self.starts, rows_N, side="right") - 1
        vectors_ND = np.empty((len(rows_N), self.dim), dtype=np.float32)
        for index, (number, row) in enumerate(zip(numbers_N, rows_N, strict=True)):
            vectors_ND[index] = self.shards[number][row - self.starts[number]]
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND


def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n, 2): the 128-bit BLAKE2b of each text's UTF-8, as two little-endian words."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def open_text_vectors(directory: Path) -> TextVectors:
    """Raises PairsError for a directory without vectors.json or with a shard that is not whole."""
    header = _read_header(directory)
    paths = _key_files(directory)
    keys = [np.load(path) for path in paths]
    shards = [_open_shard(path, len(of_shard), header["dim"]) for path, of_shard in zip(paths, keys, strict=True)]
    keys_K2 = np.concatenate(keys) if keys else np.zeros((0, 2), dtype=np.uint64)
    order_K = np.argsort(keys_K2[:, 0], kind="stable")
    starts = np.concatenate([[0], np.cumsum([len(of_shard) for of_shard in keys], dtype=np.int64)])
    return TextVectors(
        directory,
        header["teacher"],
        header["max_tokens"],
        header["dim"],
        keys_K2[order_K],
        order_K.astype(np.int64),
        starts.astype(np.int64),
        shards,
    )


def write_text_vectors(
    directory: Path,
    texts: Iterable[str],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    *,
    teacher: str,
    max_tokens: int,
    texts_a_shard: int = TEXTS_A_SHARD,
) -> Iterator[int]:
    """Embeds the texts that the directory does not have yet, shard by shard; yields how many it has after each.

    Killed at any moment, the same call goes on after the last whole shard. `max_tokens` and `teacher` are recorded;
    `embed` is what reads no more. Raises PairsError for a directory that another teacher or limit began.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / VECTORS_JSON
    if path.is_file():
        header = _read_header(directory)
        if (header["teacher"], header["max_tokens"]) != (teacher, max_tokens):
            raise PairsError(
                f"{directory} holds vectors of {header['teacher']} on {header['max_tokens']} tokens, not of {teacher} "
                f"on {max_tokens}; name another directory"
            )
    paths = _key_files(directory)
    known = {key.tobytes() for key_file in paths for key in np.load(key_file)}
    number = int(paths[-1].name[:6]) + 1 if paths else 0
    waiting: dict[bytes, str] = {}

    def write() -> None:
        vectors_ND = embed(list(waiting.values()))
        if not np.isfinite(vectors_ND).all():
            raise PairsError(f"{teacher} gave a vector that is not finite; nothing of shard {number} was written")
        if not path.is_file():
            _write_header(directory, teacher, max_tokens, vectors_ND.shape[1])
        _write_shard(directory, number, np.frombuffer(b"".join(waiting), dtype=np.uint64).reshape(-1, 2), vectors_ND)

    for text in texts:
        key = hash_texts([text]).tobytes()
        if key not in known:
            known.add(key)
            waiting[key] = text
        if len(waiting) == texts_a_shard:
            write()
            yield len(known)
            waiting, number = {}, number + 1
    if waiting:
        write()
        yield len(known)


def write_keyed_vectors(
    directory: Path,
    blocks: Iterable[tuple[NDArray[np.uint64], NDArray[np.float32]]],
    *,
    teacher: str,
    max_tokens: int,
    dim: int,
) -> None:
    """Writes a directory of vectors that are known already: blocks of (n, 2) hashes of texts and (n, dim) unit rows."""
    directory.mkdir(parents=True)
    _write_header(directory, teacher, max_tokens, dim)
    for number, (keys_N2, vectors_ND) in enumerate(blocks):
        _write_shard(directory, number, keys_N2, vectors_ND)


def iterate_texts(sources: Sequence[Source], alpha: float, seed: int) -> Iterator[str]:
    """All queries and documents of the sources, a pair's one after the other. No teacher is asked for negatives.

    Sources take turns of PAIRS_A_TURN pairs in proportion to size^alpha, as in a mixture, so that wherever the
    sequence is cut off, what came before is a sample of every source.
    """
    random = np.random.default_rng(seed)
    orders = [np.random.default_rng([seed, number]).permutation(len(source)) for number, source in enumerate(sources)]
    weights_S = np.array([len(source) for source in sources], dtype=np.float64) ** alpha
    positions = [0] * len(sources)
    while weights_S.any():
        number = int(random.choice(len(sources), p=weights_S / weights_S.sum()))
        for row in orders[number][positions[number] :][:PAIRS_A_TURN]:
            pair = sources[number][int(row)]
            yield from (pair.query, pair.document)
        positions[number] += PAIRS_A_TURN
        if positions[number] >= len(sources[number]):
            weights_S[number] = 0


def find_rows_with_vectors(source: Source, vectors: TextVectors, texts: str) -> NDArray[np.int64]:
    """Those of `source.rows` whose texts all have vectors; `texts` is queries, documents or both."""
    has_all = np.ones(len(source), dtype=bool)
    for start in range(0, len(source), TEXTS_A_SHARD):
        pairs = [source[index] for index in range(start, min(start + TEXTS_A_SHARD, len(source)))]
        block = slice(start, start + len(pairs))
        if texts != "documents":
            has_all[block] &= vectors.find([pair.query for pair in pairs]) >= 0
        if texts != "queries":
            has_all[block] &= vectors.find([pair.document for pair in pairs]) >= 0
    return source.rows[has_all]


def _write_header(directory: Path, teacher: str, max_tokens: int, dim: int) -> None:
    fields = {"format_version": FORMAT_VERSION, "teacher": teacher, "max_tokens": max_tokens, "dim": dim}
    with replace_whole(directory / VECTORS_JSON) as file:
        file.write((json.dumps(fields, indent=1) + "\n").encode())


def _write_shard(directory: Path, number: int, keys_N2: NDArray[np.uint64], vectors_ND: NDArray[np.float32]) -> None:
    for name, array in (("vectors", vectors_ND.astype(np.float16)), ("keys", keys_N2)):
        with replace_whole(directory / f"{number:06d}.{name}.npy") as file:
            np.save(file, array)


def _read_header(directory: Path) -> dict[str, Any]:
    path = directory / VECTORS_JSON
    if not path.is_file():
        raise PairsError(f"{path} is missing; python -m training.runs.teaching.teacher_vectors writes such a directory")
    try:
        header: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = header["format_version"]
        fields = {"teacher": str, "max_tokens": int, "dim": int}
        wrong = [name for name, kind in fields.items() if not isinstance(header[name], kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise PairsError(f"{path} is damaged: {error!r}") from error
    if version != FORMAT_VERSION or wrong:
        raise PairsError(f"{path} is of format {version}, or damaged; this version reads format {FORMAT_VERSION}")
    return header


def _key_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*.keys.npy"))


def _open_shard(keys: Path, count: int, dim: int) -> NDArray[np.float16]:
    path = keys.with_name(keys.name.replace(".keys.", ".vectors."))
    try:
        shard: NDArray[np.float16] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise PairsError(
            f"{path} is not readable ({error}); delete it and {keys.name} to compute them again"
        ) from error
    if shard.shape != (count, dim) or shard.dtype != np.float16:
        raise PairsError(
            f"{path} is {shard.dtype} {shard.shape}, not float16 {(count, dim)}; delete it and {keys.name}"
        )
    return shard
