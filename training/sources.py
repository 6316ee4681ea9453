"""Which files a recipe's sources are: patterns under a data directory, single files, or files of a data set on the Hub.

A manifest.csv in the data directory says which sources may be used commercially; a recipe for shipped models names what
it admits. Everything that a run reads is recorded with its hash.
"""

import csv
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from training.docstrings import write_docstring_pairs
from training.pairs import DEFAULT_CACHE, PairsError, Source, open_source

HUB_PREFIX = "hub:"
DOCSTRINGS = "docstrings"


def open_sources(
    patterns: Sequence[str],
    data: Path | None = None,
    *,
    exclude: Sequence[str] = (),
    commercial: Sequence[str] = (),
    forbidden: Set[str] = frozenset(),
    first: int = 0,
    seed: int = 0,
    cache: Path = DEFAULT_CACHE,
) -> list[Source]:
    """The sources of all patterns in the order of their paths, each once.

    A pattern is a path under `data` with or without suffix, in which * stands for anything (`stage1/*`,
    `stage2/nli__*`), an absolute path, or `hub:OWNER/NAME/FILE` with an optional `@REVISION` after NAME, downloaded
    into the Hugging Face cache; `docstrings` are pairs made of the Python standard library. `exclude` are patterns of
    file stems. With `commercial`, only files whose manifest entry is one of its values are opened. With `first`, only
    so many are, in an order that `seed` shuffles. Raises PairsError where a pattern matches no file, or two files
    share a stem.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        if pattern == DOCSTRINGS:
            found = [write_docstring_pairs(cache.expanduser())]
        elif pattern.startswith(HUB_PREFIX):
            found = [_from_hub(pattern)]
        else:
            found = _matches(pattern, data)
        if not found:
            raise PairsError(f"source {pattern!r} matches no .parquet or .jsonl file under {data}; see --data")
        paths.update(dict.fromkeys(found))
    kept = [path for path in paths if not any(Path(path.stem).match(pattern) for pattern in exclude)]
    if commercial:
        admitted = _admitted(data, commercial)
        kept = [path for path in kept if path.stem in admitted]
    if not kept:
        raise PairsError(f"no source is left of {', '.join(patterns)} after exclude and commercial = {commercial}")
    stems = [path.stem for path in kept]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise PairsError(f"two sources are called {twice}; rename one file, the name identifies a source")
    if first:
        kept = [kept[index] for index in np.random.default_rng(seed).permutation(len(kept))[:first]]
    return [open_source(path, cache, forbidden) for path in kept]


def describe(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What is recorded of a run's data: name, SHA-256, pairs used, pairs refused."""
    return [
        {"name": source.name, "sha256": source.sha256, "pairs": len(source), "refused": source.refused}
        for source in sources
    ]


def _matches(pattern: str, data: Path | None) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_absolute():
        data, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
    if data is None:
        raise PairsError(f"source {pattern!r} is relative to a data directory; give one with --data DIR")
    candidates = [*data.glob(pattern), *data.glob(f"{pattern}.parquet"), *data.glob(f"{pattern}.jsonl")]
    return sorted({path for path in candidates if path.suffix in (".parquet", ".jsonl")})


def _from_hub(pattern: str) -> Path:
    owner, name, file = [*pattern.removeprefix(HUB_PREFIX).split("/", 2), "", ""][:3]
    if not (owner and name and file):
        raise PairsError(f"source {pattern!r} should look like hub:OWNER/NAME/FILE or hub:OWNER/NAME@REVISION/FILE")
    from huggingface_hub import hf_hub_download

    name, _, revision = name.partition("@")
    return Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset", revision=revision or None))


def _admitted(data: Path | None, commercial: Sequence[str]) -> set[str]:
    """File stems whose manifest entry has one of the values `commercial`."""
    if data is None or not (data / "manifest.csv").is_file():
        raise PairsError(f"commercial = {list(commercial)} needs a manifest.csv in the data directory ({data})")
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['category']}__{row['name']}" for row in rows if row["commercial"] in commercial}
