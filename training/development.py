"""Turns sources of pairs that a recipe leaves out into development sets.

Choose weights, lengths and learning rates on development sets, so that you look at the evaluation sets only once.

    python -m training.development 'stage1/shell__cheat*' --data DATA --output DIR
    python -m training.evaluate MODEL '*/*' --root DIR
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.data.pairs import Source
from training.data.sources import open_sources
from training.runs.command_line import run_command


def write_ranking_set(source: Source, directory: Path, query_count: int, document_count: int, seed: int) -> None:
    """Writes a ranking set of at most `query_count` queries of the source, drawn at random with `seed`.

    The corpus has at most `document_count` documents of the source, or all relevant ones if those are more. A query of
    several pairs has several relevant documents.
    """
    order = np.random.default_rng(seed).permutation(len(source))
    pairs = [source[int(row)] for row in order]
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


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
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
        "--task",
        choices=("retrieval", "code_search"),
        default="retrieval",
        help="which score: nDCG@10 or mean reciprocal rank (default: %(default)s)",
    )
    parser.add_argument("--queries", type=int, default=400, help="most queries of a source (default: %(default)s)")
    parser.add_argument(
        "--documents",
        type=int,
        default=1600,
        help="most documents of a source, if its queries have no more (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.queries, options.documents) < 1:
        parser.error(f"--queries {options.queries} --documents {options.documents}: both must be at least 1")
    for source in open_sources(options.sources, options.data):
        directory = options.output / options.task / source.name
        if directory.exists():
            parser.error(f"{directory} exists; choose another --output")
        write_ranking_set(source, directory, options.queries, options.documents, options.seed)
        print(directory)


if __name__ == "__main__":
    run_command(main)
