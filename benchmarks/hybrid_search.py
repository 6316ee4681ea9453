"""nDCG@10 of a passage index searched by words, by meaning and by both, and by reciprocal ranks for comparison.

    python -m benchmarks.hybrid_search 'DATA/eval/retrieval/*' 'DATA/eval/code_search/*' --vectors CACHE
    python -m benchmarks.hybrid_search --questions benchmarks/search_questions.json --indexes build

The first form takes ranking sets (training/evaluate/protocols.py), each document as a passage of its own. The second
asks the questions of the file about this repository and about Python's standard library, in an index of each that it
makes or updates. There, files are ranked by their best passages, and every file that answers counts the same.
"""

import argparse
import hashlib
import json
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import Embedder
from gte_sdk.passages.searching import Found, PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, FileState, PassageStore, Settings
from gte_sdk.passages.updating import update_index
from training.evaluate.protocols import read_ranking_set, score_ranking
from training.evaluate.scores import find_sets

MODES = ("words", "meaning", "hybrid", "ranks")
BEST, FUSED, RANK_CONSTANT = 10, 100, 60
PLACES = {
    "repository": (Path(__file__).resolve().parent.parent, ("gte_sdk", "csrc", "docs", "export", "training")),
    "standard library": (Path(sysconfig.get_path("stdlib")), (".",)),
}
NOT_ASKED_ABOUT = (
    "test", "tests", "site-packages", "idlelib", "lib2to3", "pydoc_data", "turtledemo", "distutils", "encodings",
    "tkinter", "ensurepip", "models", "*.txt",
)  # fmt: skip


class Question(NamedTuple):
    text: str
    vector_D: NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description="nDCG@10 of searching by words, by meaning, and by both.")
    parser.add_argument("sets", nargs="*", help="ranking sets, or patterns of them")
    parser.add_argument("--model", default="gte-mini")
    parser.add_argument("--vectors", type=Path, help="a folder that keeps vectors between runs")
    parser.add_argument("--questions", type=Path, help="a JSON list of {question, in, answers}")
    parser.add_argument("--in", dest="places", choices=PLACES, action="append", help="with --questions: where; both")
    parser.add_argument("--indexes", type=Path, default=Path(), help="with --questions: the folder of the indexes")
    arguments = parser.parse_args()
    embedder = Embedder(arguments.model, truncation="ignore")
    scores = {}
    for path in find_sets(arguments.sets) if arguments.sets else ():
        scores[f"{path.parent.name}/{path.name}"] = score_set(path, embedder, arguments.vectors)
        show(f"{path.parent.name}/{path.name}", scores[f"{path.parent.name}/{path.name}"])
    if arguments.questions:
        for place in arguments.places or PLACES:
            index = arguments.indexes / f"{place}.index"
            scores[f"questions/{place}"] = score_questions(arguments.questions, place, index, embedder)
            show(f"questions/{place}", scores[f"questions/{place}"])
    means = {mode: float(np.mean([of_set[mode] for of_set in scores.values()])) for mode in MODES}
    show("mean", means)


def show(name: str, of_set: Mapping[str, float]) -> None:
    gain = of_set["hybrid"] - max(of_set["words"], of_set["meaning"])
    scores = [f"{mode} {of_set[mode]:6.2f}" for mode in MODES]
    print(f"{name:40}", *scores, f"hybrid - better part {gain:+.2f}", sep="  ", flush=True)


def score_set(path: Path, embedder: Embedder, cache: Path | None) -> dict[str, float]:
    ranking = read_ranking_set(path)
    documents_MD = embed(ranking.documents, embedder.embed_documents, embedder.fingerprint, cache)
    queries_QD = embed(ranking.queries, embedder.embed_query, embedder.fingerprint, cache)
    settings = Settings(embedder.fingerprint, embedder.fingerprint, embedder.dim, ())
    with PassageStore(None, settings) as store:
        hashes = [hashlib.sha256(text.encode()).digest() for text in ranking.documents]
        store.add_vectors(hashes, documents_MD)
        store.put_files(
            FilePassages(f"d{number}", FileState("", b""), [(Passage("", 1, "", text), text_hash)])
            for number, (text, text_hash) in enumerate(zip(ranking.documents, hashes, strict=True))
        )
        questions = [Question(text, vector_D) for text, vector_D in zip(ranking.queries, queries_QD, strict=True)]
        ranked = rank_all(PassageSearch(store), questions, lambda found: int(found.passage.path[1:]))
    return {mode: 100 * score_ranking(of_mode, ranking.grades)["ndcg@10"] for mode, of_mode in ranked.items()}


def score_questions(path: Path, place: str, index: Path, embedder: Embedder) -> dict[str, float]:
    rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row["in"] == place]
    root, folders = PLACES[place]
    paths = tuple(str(root / folder) for folder in folders)
    settings = Settings(embedder.fingerprint, embedder.fingerprint, embedder.dim, paths, excludes=NOT_ASKED_ABOUT)
    with PassageStore(index, settings) as store:
        update_index(store, embedder, lambda notice: None, lambda done, total: None)
        numbers = {name: number for number, name in enumerate(store.files())}
        queries_QD = embedder.embed_query([row["question"] for row in rows])
        questions = [Question(row["question"], vector_D) for row, vector_D in zip(rows, queries_QD, strict=True)]
        ranked = rank_all(PassageSearch(store), questions, lambda found: numbers[found.passage.path])
    grades = [{numbers[str(root / answer)]: 1 for answer in row["answers"]} for row in rows]
    return {mode: 100 * score_ranking(of_mode, grades)["ndcg@10"] for mode, of_mode in ranked.items()}


def rank_all(
    search: PassageSearch, questions: Sequence[Question], number_of: Callable[[Found], int]
) -> dict[str, NDArray[np.int64]]:
    """(Q, BEST) of each mode: the numbers of what it found, each once, best first; -1 where it found less."""
    ranked: dict[str, list[list[int]]] = {mode: [] for mode in MODES}
    for text, vector_D in questions:
        found = {
            "words": search.find(None, FUSED, text),
            "meaning": search.find(vector_D, FUSED),
            "hybrid": search.find(vector_D, FUSED, text),
        }
        lists = {mode: list(dict.fromkeys(map(number_of, hits))) for mode, hits in found.items()}
        lists["ranks"] = fuse_ranks(lists["words"], lists["meaning"])
        for mode, numbers in lists.items():
            ranked[mode].append([*numbers, *[-1] * BEST][:BEST])
    return {mode: np.array(rows) for mode, rows in ranked.items()}


def fuse_ranks(*lists: Sequence[int]) -> list[int]:
    """Reciprocal rank fusion. Cormack, Clarke, Büttcher 2009, with their constant."""
    scores: dict[int, float] = {}
    for numbers in lists:
        for rank, number in enumerate(numbers, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda number: -scores[number])


def embed(
    texts: Sequence[str],
    embed_texts: Callable[[Sequence[str]], NDArray[np.float32]],
    fingerprint: str,
    cache: Path | None,
) -> NDArray[np.float32]:
    if cache is None:
        return embed_texts(texts)
    digest = hashlib.sha256(json.dumps([fingerprint, *texts]).encode()).hexdigest()[:32]
    path = cache / f"{digest}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, embed_texts(texts))
    vectors: NDArray[np.float32] = np.load(path)
    return vectors


if __name__ == "__main__":
    main()
