"""Finds the files of a recipe's sources: patterns below a data directory, single files, or data sets on the Hub.

A manifest.csv in the data directory says which sources may be used commercially; a recipe for shipped models names the
values that it admits. A run records the hash of everything it reads.
"""

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from gte_sdk.model_files.hub.hub_errors import explain_failure
from training.data.docstrings import write_docstring_pairs
from training.data.left_out import NOTHING, Hashes
from training.data.pairs import DEFAULT_CACHE, PairsError, Source, label_by_links, open_source
from training.data.shards import open_shards
from training.recipes.recipe import RecipeError, Shards

HUB_PREFIX = "hub:"
_HUB_FILE = re.compile(
    r"hub:(?P<owner>[^/@]+)/(?P<name>[^/@]+)(@(?P<revision>refs/(convert|pr)/[^/]+|[^/]+))?/(?P<file>.+)"
)
DOCSTRINGS = "docstrings"


def open_sources(
    patterns: Sequence[str],
    data: Path | None = None,
    *,
    exclude: Sequence[str] = (),
    commercial: Sequence[str] = (),
    forbidden: Hashes = NOTHING,
    first: int = 0,
    seed: int = 0,
    shards: Mapping[str, Shards] | None = None,
    workers: int = 0,
    cache: Path = DEFAULT_CACHE,
) -> list[Source]:
    """The sources that the patterns match, in their order, each once, and those of many files, `shards`.

    A pattern is one of these:
    - a path below `data`, with or without suffix, in which * matches anything: `stage1/*`, `stage2/nli__*`
    - an absolute path
    - `hub:OWNER/NAME/FILE` or `hub:OWNER/NAME@REVISION/FILE`, downloaded into the Hugging Face cache
    - `docstrings`, pairs from Python's standard library, or `docstrings:PACKAGE`, from an installed package

    The name of a source is its file's stem, or NAME__STEM if it comes from the Hub. `exclude` are patterns of names.
    `commercial` admits only files whose manifest entry has one of these values, and docstrings, which no manifest
    lists. `first` opens only that many of the files, in an order that `seed` shuffles. `shards` are opened with
    `workers` processes. Raises PairsError if a pattern matches no file, or if two sources have the same name.
    """
    names: dict[Path, str] = {}
    made: set[Path] = set()
    for pattern in patterns:
        if pattern.partition(":")[0] == DOCSTRINGS:
            found = [_write_docstrings(pattern, cache.expanduser())]
            made.update(found)
        elif pattern.startswith(HUB_PREFIX):
            found = [_fetch_from_hub(pattern)]
        else:
            found = match_files(pattern, data)
        repository = f"{_parse_hub_file(pattern)['name']}__" if pattern.startswith(HUB_PREFIX) else ""
        names.update({path: f"{repository}{path.stem}" for path in found})
    kept = [path for path, name in names.items() if not any(Path(name).match(pattern) for pattern in exclude)]
    if commercial:
        admitted = _read_admitted_names(data, commercial)
        kept = [path for path in kept if path in made or names[path] in admitted]
    shards = shards or {}
    if not kept and not shards:
        raise PairsError(f"no source is left of {', '.join(patterns)} after exclude and commercial = {commercial}")
    of_kept = [*(names[path] for path in kept), *shards]
    if len(set(of_kept)) < len(of_kept):
        twice = next(name for name in of_kept if of_kept.count(name) > 1)
        both = " and ".join([*(str(path) for path in kept if names[path] == twice), *{twice} & shards.keys()])
        raise PairsError(f"two sources have the name {twice} ({both}); rename one of the files")
    if first:
        kept = [kept[index] for index in np.random.default_rng(seed).permutation(len(kept))[:first]]
    return [
        *(dataclasses.replace(open_source(path, cache, forbidden), name=names[path]) for path in kept),
        *(
            open_shards(
                name, of_one.files, of_one.columns, data=data, forbidden=forbidden, workers=workers, cache=cache
            )
            for name, of_one in shards.items()
        ),
    ]


def choose_sources(sources: Sequence[Source], patterns: Sequence[str], key: str) -> set[str]:
    """The names of sources that the patterns of a recipe's `key` match. RecipeError for a pattern that matches none."""
    names = [source.name for source in sources]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecipeError(f"{key}: {pattern!r} matches none of the stage's sources {', '.join(names)}")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def label_sources(sources: Sequence[Source], patterns: Sequence[str], key: str) -> list[Source]:
    """The sources, with labels by label_by_links where a name matches. RecipeError for a pattern that matches none."""
    chosen = choose_sources(sources, patterns, key)
    return [label_by_links(source) if source.name in chosen else source for source in sources]


class Survey(NamedTuple):
    """A source that a run would read."""

    name: str
    where: str
    columns: dict[str, tuple[str, ...]]
    """What its files call the columns, where they have other names."""
    rows: int | None
    """None: not known without reading it."""
    exact: bool
    """Whether the rows were counted, not stated in the recipe."""


def survey_sources(
    patterns: Sequence[str], data: Path | None, exclude: Sequence[str], shards: Mapping[str, Shards]
) -> list[Survey]:
    """What open_sources would read, without a download. Rows are counted in files of this disk only."""
    surveys = []
    for pattern in patterns:
        if pattern.startswith(HUB_PREFIX) or pattern.partition(":")[0] == DOCSTRINGS:
            surveys.append(Survey(Path(pattern).stem, pattern, {}, None, False))
            continue
        found = match_files(pattern, data)
        kept = [path for path in found if not any(Path(path.stem).match(of_one) for of_one in exclude)]
        surveys.extend(Survey(path.stem, str(path), {}, _count_rows(path), True) for path in kept)
    for name, of_one in shards.items():
        columns = {role: (of,) if isinstance(of, str) else of for role, of in of_one.columns.items()}
        rows = _count_shards(of_one.files, data)
        surveys.append(Survey(name, ", ".join(of_one.files), columns, rows or of_one.rows or None, rows is not None))
    return surveys


def _count_shards(patterns: Sequence[str], data: Path | None) -> int | None:
    """The rows of shards that are uncompressed files of this disk; None for others."""
    try:
        paths = [path for pattern in patterns for path in match_files(pattern, data) if "://" not in pattern]
    except PairsError:
        return None
    return sum(map(_count_rows, paths)) or None


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pq.ParquetFile(path).metadata.num_rows)
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def describe_sources(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What run.json records of each source: name, SHA-256, pairs used, and how many were left out for what reason."""
    return [
        {
            "name": source.name,
            "sha256": source.sha256,
            "pairs": len(source),
            "refused": source.refused,
            "repeated": source.repeated,
            "empty": source.empty,
        }
        for source in sources
    ]


def match_files(pattern: str, data: Path | None) -> list[Path]:
    """The .parquet and .jsonl files that a pattern below `data`, or an absolute one, matches. PairsError if none."""
    path = Path(pattern).expanduser()
    if path.is_absolute():
        data, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
    if data is None:
        raise PairsError(f"source {pattern!r} is relative to a data directory; give one with --data DIR")
    candidates = [*data.glob(pattern), *data.glob(f"{pattern}.parquet"), *data.glob(f"{pattern}.jsonl")]
    found = sorted({path for path in candidates if path.suffix in (".parquet", ".jsonl")})
    if not found:
        raise PairsError(f"source {pattern!r} matches no .parquet or .jsonl file under {data}")
    return found


def _write_docstrings(pattern: str, cache: Path) -> Path:
    try:
        return write_docstring_pairs(cache, pattern.partition(":")[2])
    except LookupError as error:
        raise PairsError(f"source {pattern!r}: {error}") from error


def _fetch_from_hub(pattern: str) -> Path:
    from huggingface_hub import hf_hub_download

    at = _parse_hub_file(pattern)
    repository = f"{at['owner']}/{at['name']}"
    try:
        return Path(hf_hub_download(repository, at["file"], repo_type="dataset", revision=at["revision"]))
    except Exception as error:  # HTTP, connection, time-out, disk and validation errors share no base
        raise PairsError(f"source {pattern!r} {explain_failure(error, f'datasets/{repository}')}") from error


def _parse_hub_file(pattern: str) -> re.Match[str]:
    at = _HUB_FILE.fullmatch(pattern)
    if at is None:
        raise PairsError(f"source {pattern!r} must have the form hub:OWNER/NAME/FILE or hub:OWNER/NAME@REVISION/FILE")
    return at


def _read_admitted_names(data: Path | None, commercial: Sequence[str]) -> set[str]:
    """The stems of files whose manifest entry has one of the values `commercial`."""
    if data is None or not (data / "manifest.csv").is_file():
        raise PairsError(f"commercial = {list(commercial)} needs a manifest.csv in the data directory ({data})")
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['category']}__{row['name']}" for row in rows if row["commercial"] in commercial}
