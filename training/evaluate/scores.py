"""Scores models on evaluation sets, averages the scores, and finds the sets and their texts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.data.left_out import Hashes, hash_evaluation_texts
from training.evaluate.protocols import PROTOCOLS, Embed, SetError, join_title, read_rows


def evaluate(sets: Sequence[Path], embed: Embed, embed_query: Embed | None = None) -> dict[str, float]:
    """The main score of each set in percent, by `task/name`. `embed_query` embeds queries; the default is `embed`."""
    return {
        f"{path.parent.name}/{path.name}": 100 * PROTOCOLS[path.parent.name](path, embed, embed_query or embed)
        for path in sets
    }


def summarize(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean of each task type, the mean over all sets, and the mean over task types."""
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for name, score in scores.items():
        by_task[name.partition("/")[0]].append(score)
    means = {task: float(np.mean(values)) for task, values in by_task.items()}
    return {
        **means,
        "mean_of_tasks": float(np.mean(list(scores.values()))),
        "mean_of_task_types": float(np.mean(list(means.values()))),
    }


def find_sets(patterns: Sequence[str], root: Path | None = None) -> list[Path]:
    """The directories TASK/NAME that the patterns (`sts/*`, a path) match. Raises SetError if one matches none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        within, relative = (Path(path.anchor), path.relative_to(path.anchor)) if path.is_absolute() else (root, path)
        directories = [path] if path.is_dir() else sorted((within or Path()).glob(str(relative)))
        nested = [
            directory
            for parent in directories
            for directory in ([parent] if parent.parent.name in PROTOCOLS else sorted(parent.glob("*/*")))
            if directory.is_dir() and directory.parent.name in PROTOCOLS
        ]
        if path.is_dir() and path.name in PROTOCOLS and not nested:
            nested = sorted(directory for directory in path.iterdir() if directory.is_dir())
        if not nested:
            raise SetError(
                f"{pattern} is not an evaluation set, a directory TASK/NAME; TASK is one of {', '.join(PROTOCOLS)}"
            )
        found.update(dict.fromkeys(nested))
    return list(found)


def hash_texts_of_sets(sets: Sequence[Path]) -> Hashes:
    """(n,), sorted: the hashes of every text of the sets, without the training splits beside them."""
    return hash_evaluation_texts(_read_texts(sets))


def _read_texts(sets: Sequence[Path]) -> Iterator[str]:
    for path in sets:
        for name in ("test.jsonl", "queries.jsonl", "corpus.jsonl"):
            for row in read_rows(path / name) if (path / name).is_file() else ():
                if "title" in row:
                    yield join_title(row)
                yield from (*row.get("positive", ()), *row.get("negative", ()))
                yield from (*row.get("human_summaries", ()), *row.get("machine_summaries", ()))
                yield from (row[key] for key in ("a", "b", "text", "query", "document") if key in row)
