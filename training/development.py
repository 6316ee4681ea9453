"""Turns sources of pairs that a recipe leaves out into development sets.

Choose weights, lengths and learning rates on development sets, so that you look at the evaluation sets only once. A run
whose recipe names them under `evaluation.sets` refuses every pair that has a text of theirs.

    python -m training.development 'stage1/shell__cheat*' --data DATA --output DIR
    python -m training.evaluate MODEL '*/*' --root DIR

retrieval, code_search: each query among the documents of its source. pair_classification: a pair's document against
its negatives. sts: 2 for the document, 1 for a negative, 0 for another pair's document. classification, clustering:
texts by the column `label`, or by what --label finds at the start of a query and takes away from it.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.pairs import Pair, PairsError, Source
from training.data.sources import open_sources
from training.evaluate.protocols import SAMPLES_A_LABEL
from training.runs.command_line import run_command

TASKS = ("retrieval", "code_search", "pair_classification", "sts", "classification", "clustering")


def write_ranking_set(source: Source, directory: Path, query_count: int, document_count: int, seed: int) -> None:
    """Writes a ranking set of at most `query_count` queries of the source, drawn at random with `seed`.

    The corpus has at most `document_count` documents of the source, or all relevant ones if those are more. A query of
    several pairs has several relevant documents.
    """
    pairs = _shuffle(source, seed)
    queries = dict.fromkeys(pair.query for pair in pairs[:query_count])
    relevant = [pair for pair in pairs if pair.query in queries]
    documents = list(dict.fromkeys(pair.document for pair in (*relevant, *pairs)))
    documents = documents[: max(document_count, len({pair.document for pair in relevant}))]
    query_ids = {text: f"q{number}" for number, text in enumerate(queries)}
    document_ids = {text: f"d{number}" for number, text in enumerate(documents)}

    directory.mkdir(parents=True)
    _write_rows(directory / "queries.jsonl", ({"id": id_, "text": text} for text, id_ in query_ids.items()))
    _write_rows(directory / "corpus.jsonl", ({"id": id_, "text": text} for text, id_ in document_ids.items()))
    judged = dict.fromkeys((query_ids[pair.query], document_ids[pair.document]) for pair in relevant)
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in judged)]
    (directory / "qrels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_pair_set(source: Source, directory: Path, query_count: int, seed: int, graded: bool) -> None:
    """Writes pairs of texts of at most `query_count` pairs that have negatives: {"a", "b"} and a label of 1 or 0.

    `graded` writes a score of 2, 1 or 0 instead: of the document, of a negative, of the next pair's document.
    """
    pairs = [pair for pair in _shuffle(source, seed) if pair.negatives][:query_count]
    if len(pairs) < 2:
        raise PairsError(f"{source.path}: {len(pairs)} pairs have negatives; a set of pairs needs 2 at least")
    rows: list[dict[str, Any]] = []
    for pair, other in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        if graded:
            scored = [(pair.document, 2), (pair.negatives[0], 1), (other.document, 0)]
            rows.extend({"a": pair.query, "b": text, "score": score} for text, score in scored)
        else:
            labelled = [(pair.document, 1), *((text, 0) for text in pair.negatives)]
            rows.extend({"a": pair.query, "b": text, "label": label} for text, label in labelled)
    directory.mkdir(parents=True)
    _write_rows(directory / "test.jsonl", rows)


def write_labelled_set(
    source: Source, directory: Path, text_count: int, seed: int, pattern: str | None, train: bool
) -> None:
    """Writes at most `text_count` queries with their labels, half of each label's to train.jsonl with `train`.

    Labels with fewer than 2 * SAMPLES_A_LABEL texts are left out. `pattern` is a regular expression; its first group is
    the label, and what it matches is no part of the text.
    """
    texts: dict[str, str] = {}
    for pair in _shuffle(source, seed):
        text, label = (pair.query, pair.label) if pattern is None else _cut_label(pair.query, pattern)
        if text and label:
            texts.setdefault(text, label)
    counts = Counter(texts.values())
    rows = [{"text": text, "label": label} for text, label in texts.items() if counts[label] >= 2 * SAMPLES_A_LABEL][
        :text_count
    ]
    if len({row["label"] for row in rows}) < 2:
        raise PairsError(
            f"{source.path}: no two labels have {2 * SAMPLES_A_LABEL} texts each, of {len(counts)} labels in all; "
            "labels come from the column `label` or from --label REGEX"
        )
    directory.mkdir(parents=True)
    if train:
        seen: Counter[str] = Counter()
        parts: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
        for row in rows:
            parts[seen[row["label"]] % 2].append(row)
            seen[row["label"]] += 1
        _write_rows(directory / "train.jsonl", parts[0])
        rows = parts[1]
    _write_rows(directory / "test.jsonl", rows)


def _shuffle(source: Source, seed: int) -> list[Pair]:
    return [source[int(row)] for row in np.random.default_rng(seed).permutation(len(source))]


def _cut_label(query: str, pattern: str) -> tuple[str, str]:
    """(text, label), both empty where the pattern does not match."""
    match = re.match(pattern, query)
    return (query[match.end() :].strip(), match[1]) if match else ("", "")


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.development", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sources", nargs="+", help="as in a recipe: patterns below --data, paths, or hub:OWNER/NAME/FILE"
    )
    parser.add_argument("--data", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--output", type=Path, required=True, help="directory for the sets, TASK/NAME for each source")
    parser.add_argument(
        "--task", choices=TASKS, default="retrieval", help="kind of set, which says its score (default: %(default)s)"
    )
    parser.add_argument(
        "--queries", type=int, default=400, help="most queries, or pairs, of a source (default: %(default)s)"
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=1600,
        help="most documents of a source, if its queries have no more, or texts with labels (default: %(default)s)",
    )
    parser.add_argument("--label", metavar="REGEX", help="finds the label at the start of a query, as its first group")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.queries, options.documents) < 1:
        parser.error(f"--queries {options.queries} --documents {options.documents}: both must be at least 1")
    if options.label and (options.task not in ("classification", "clustering") or not _has_a_group(options.label)):
        parser.error(f"--label {options.label} must be an expression with a group, for classification or clustering")
    write = _choose_writer(options)
    for source in open_sources(options.sources, options.data):
        directory = options.output / options.task / source.name
        if directory.exists():
            parser.error(f"{directory} exists; choose another --output")
        write(source, directory)
        print(directory)


def _choose_writer(options: argparse.Namespace) -> Callable[[Source, Path], None]:
    seed, task = options.seed, options.task
    if task in ("pair_classification", "sts"):
        return lambda source, path: write_pair_set(source, path, options.queries, seed, graded=task == "sts")
    if task in ("classification", "clustering"):
        train = task == "classification"
        return lambda source, path: write_labelled_set(source, path, options.documents, seed, options.label, train)
    return lambda source, path: write_ranking_set(source, path, options.queries, options.documents, seed)


def _has_a_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups > 0
    except re.error:
        return False


if __name__ == "__main__":
    run_command(main)
