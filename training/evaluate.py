"""The MTEB protocols for a directory of evaluation sets, over any function from texts to vectors: one ruler for all.

A set is a directory TASK/NAME with JSON lines; the task's folder says the protocol. Checkpoints, exported fp32 and int8
models and rivals are all measured through here, and ranked with the kernel that ships.

    python -m training.evaluate MODEL SETS... [--output scores.json]
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk import Embedder, top_k_cosine
from gte_sdk.model_dir import GTE_JSON, bundled_models
from gte_sdk.tokens import load_tokenizer
from training.embed import embed_texts
from training.encoder import load_encoder
from training.encoder_files import resolve_directory
from training.pairs import comparable

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SAMPLES_A_LABEL = 16
DRAWS = 5
RANKED_DOCUMENTS = 1000
SEED = 42


class SetError(ValueError):
    """An evaluation set that is not there or not in the layout; the message names the path."""


def evaluate(sets: Sequence[Path], embed: Embed, embed_query: Embed | None = None) -> dict[str, float]:
    """The main score of each set in percent, by `task/name`. `embed_query` is used for queries where it is given."""
    return {
        f"{path.parent.name}/{path.name}": 100 * PROTOCOLS[path.parent.name](path, embed, embed_query or embed)
        for path in sets
    }


def summarize(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean of each task type, the mean over tasks and the mean over task types."""
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
    """Directories TASK/NAME that the patterns match (`sts/*`, a path), in order. Raises SetError where one has none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        directories = [path] if path.is_dir() else sorted((root or Path()).glob(pattern))
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
                f"{pattern} is no evaluation set; one is a directory TASK/NAME, TASK of {', '.join(PROTOCOLS)}"
            )
        found.update(dict.fromkeys(nested))
    return list(found)


def evaluation_texts(sets: Sequence[Path]) -> set[str]:
    """Every text that is measured on, in its `comparable` form; the training splits beside them are not."""
    texts: set[str] = set()
    for path in sets:
        for name in ("test.jsonl", "queries.jsonl", "corpus.jsonl"):
            for row in _rows(path / name) if (path / name).is_file() else ():
                values = [
                    _with_title(row) if "title" in row else "",
                    *row.get("positive", ()),
                    *row.get("negative", ()),
                ]
                values += [row[key] for key in ("a", "b", "text", "query") if key in row]
                texts.update(comparable(value) for value in values)
    texts.discard("")
    return texts


def sts(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Spearman's correlation of cosine and human score. STS is symmetric: the query function is not used."""
    from scipy.stats import spearmanr

    rows = list(_rows(path / "test.jsonl"))
    cosines = _cosines(rows, embed)
    return float(spearmanr(cosines, [row["score"] for row in rows]).statistic)


def pair_classification(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Average precision of the cosine."""
    from sklearn.metrics import average_precision_score

    rows = list(_rows(path / "test.jsonl"))
    return float(average_precision_score([row["label"] for row in rows], _cosines(rows, embed)))


def retrieval(path: Path, embed: Embed, embed_query: Embed) -> float:
    """nDCG@10 with linear gain, the mean over queries that have a relevant document."""
    return ranking_scores(path, embed, embed_query)["ndcg@10"]


def code_search(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Mean reciprocal rank of the first relevant document (0 beyond the first thousand)."""
    return ranking_scores(path, embed, embed_query)["mrr"]


def ranking_scores(path: Path, embed: Embed, embed_query: Embed) -> dict[str, float]:
    """ndcg@10, recall@100 and mrr of a set with corpus, queries and qrels."""
    documents = list(_rows(path / "corpus.jsonl"))
    grades = _read_qrels(path / "qrels.tsv")
    queries = [row for row in _rows(path / "queries.jsonl") if any(grades[str(row["id"])].values())]
    document_vectors_MD = embed([_with_title(row) for row in documents])
    query_vectors_QD = embed_query([row["text"] for row in queries])
    _, ranked_QK = top_k_cosine(query_vectors_QD, document_vectors_MD, min(RANKED_DOCUMENTS, len(documents)))
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for query, ranked_K in zip(queries, ranked_QK, strict=True):
        of_query = grades[str(query["id"])]
        gains_K = np.array([of_query.get(str(documents[index]["id"]), 0) for index in ranked_K])
        ideal = sorted(of_query.values(), reverse=True)
        scores["ndcg@10"].append(_dcg(gains_K[:10]) / _dcg(np.array(ideal[:10])))
        relevant = sum(grade > 0 for grade in ideal)
        scores["recall@100"].append(float((gains_K[:100] > 0).sum()) / relevant)
        hits = np.flatnonzero(gains_K > 0)
        scores["mrr"].append(1.0 / (hits[0] + 1) if len(hits) else 0.0)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def reranking(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Mean average precision over queries, each with its own candidates."""
    from sklearn.metrics import average_precision_score

    rows = list(_rows(path / "test.jsonl"))
    candidates = list(dict.fromkeys(text for row in rows for text in (*row["positive"], *row["negative"])))
    numbers = {text: number for number, text in enumerate(candidates)}
    candidate_vectors_MD = embed(candidates)
    precisions = []
    for row, query_D in zip(rows, embed_query([row["query"] for row in rows]), strict=True):
        own = [numbers[text] for text in (*row["positive"], *row["negative"])]
        relevant = [1] * len(row["positive"]) + [0] * len(row["negative"])
        precisions.append(average_precision_score(relevant, candidate_vectors_MD[own] @ query_D))
    return float(np.mean(precisions))


def classification(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Accuracy of a logistic regression on 16 training samples a label, the mean of 5 draws."""
    from sklearn.linear_model import LogisticRegression

    train, test = list(_rows(path / "train.jsonl")), list(_rows(path / "test.jsonl"))
    test_vectors_TD = embed([row["text"] for row in test])
    test_labels = [str(row["label"]) for row in test]
    draws = [_sample(train, np.random.default_rng([SEED, draw])) for draw in range(DRAWS)]
    chosen = sorted({index for draw in draws for index in draw})
    vectors = dict(zip(chosen, embed([train[index]["text"] for index in chosen]), strict=True))
    accuracies = []
    for draw in draws:
        classifier = LogisticRegression(max_iter=1000, random_state=SEED)
        classifier.fit(np.stack([vectors[index] for index in draw]), [str(train[index]["label"]) for index in draw])
        accuracies.append(float(np.mean(classifier.predict(test_vectors_TD) == np.array(test_labels))))
    return float(np.mean(accuracies))


def clustering(path: Path, embed: Embed, embed_query: Embed) -> float:
    """V-measure of mini-batch k-means with as many clusters as labels."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    rows = list(_rows(path / "test.jsonl"))
    labels = [str(row["label"]) for row in rows]
    model = MiniBatchKMeans(n_clusters=len(set(labels)), batch_size=500, n_init="auto", random_state=SEED)
    return float(v_measure_score(labels, model.fit_predict(embed([row["text"] for row in rows]))))


PROTOCOLS: Mapping[str, Callable[[Path, Embed, Embed], float]] = {
    "sts": sts,
    "retrieval": retrieval,
    "code_search": code_search,
    "reranking": reranking,
    "pair_classification": pair_classification,
    "classification": classification,
    "clustering": clustering,
}


def _cosines(rows: Sequence[dict[str, Any]], embed: Embed) -> NDArray[np.float32]:
    left_ND, right_ND = embed([row["a"] for row in rows]), embed([row["b"] for row in rows])
    lengths_N = np.linalg.norm(left_ND, axis=1) * np.linalg.norm(right_ND, axis=1)
    cosines_N: NDArray[np.float32] = (left_ND * right_ND).sum(axis=1) / lengths_N
    return cosines_N


def _sample(rows: Sequence[dict[str, Any]], random: np.random.Generator) -> list[int]:
    """Indices of at most SAMPLES_A_LABEL rows of each label, at random."""
    counts: defaultdict[str, int] = defaultdict(int)
    chosen = []
    for index in random.permutation(len(rows)):
        label = str(rows[index]["label"])
        counts[label] += 1
        if counts[label] <= SAMPLES_A_LABEL:
            chosen.append(int(index))
    return chosen


def _dcg(gains_K: NDArray[Any]) -> float:
    return float((gains_K / np.log2(np.arange(2, len(gains_K) + 2))).sum())


def _with_title(row: Mapping[str, Any]) -> str:
    return f"{row.get('title', '')} {row['text']}".strip()


def _read_qrels(path: Path) -> defaultdict[str, dict[str, int]]:
    grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
    if not path.is_file():
        raise SetError(f"{path} is missing")
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades[query][document] = int(grade)
    return grades


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise SetError(f"{path} is missing")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("model", help="a checkpoint, a Hub name (run by torch in fp32), or an exported model directory")
    parser.add_argument("sets", nargs="+", help="directories TASK/NAME, or of them; patterns under --root")
    parser.add_argument("--root", type=Path, help="what the patterns are relative to")
    parser.add_argument("--variant", choices=("fp32", "int8"), help="run the exported graph instead of torch")
    parser.add_argument("--max-tokens", type=int, help="instead of the model's own limit")
    parser.add_argument("--dim", type=int, help="cut the vectors to this many dimensions (Matryoshka)")
    parser.add_argument("--output", type=Path, help="write the scores as JSON")
    options = parser.parse_args(arguments)
    if options.variant and options.max_tokens:
        parser.error("--max-tokens is for torch; an exported graph reads what gte.json says")

    sets = find_sets(options.sets, options.root)
    embed, embed_query = _embed_functions(options.model, options.variant, options.max_tokens)
    if options.dim:
        embed, embed_query = _cut(embed, options.dim), _cut(embed_query, options.dim)
    scores: dict[str, float] = {}
    for path in sets:
        scores |= evaluate([path], embed, embed_query)
        name, score = list(scores.items())[-1]
        print(f"{score:7.2f}  {name}", flush=True)
    summary = summarize(scores)
    for name, score in summary.items():
        print(f"{score:7.2f}  mean of {name}" if name in PROTOCOLS else f"{score:7.2f}  {name}")
    if options.output:
        report = {
            "model": str(options.model),
            "variant": options.variant or "torch",
            "summary": summary,
            "scores": scores,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _embed_functions(model: str, variant: str | None, max_tokens: int | None) -> tuple[Embed, Embed]:
    exported = model in bundled_models() or (Path(model) / GTE_JSON).is_file()
    if variant or exported:
        embedder = Embedder(model, variant=variant or "auto", truncation="ignore")
        return embedder.embed_documents, embedder.embed_query
    directory = resolve_directory(model)
    encoder, tokenizer = load_encoder(directory, max_tokens), load_tokenizer(directory / "tokenizer.json")

    def embed_with(prompt: str) -> Embed:
        return lambda texts: embed_texts(encoder, tokenizer, texts, encoder.max_tokens, prompt=prompt)

    return embed_with(encoder.prompts.get("document", "")), embed_with(encoder.prompts.get("query", ""))


def _cut(embed: Embed, dim: int) -> Embed:
    """Cosines do not need unit length here, but the kernels and classifiers are fed what a user would have."""

    def cut(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors_ND = embed(texts)[:, :dim]
        unit_ND: NDArray[np.float32] = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return unit_ND

    return cut


if __name__ == "__main__":
    main()
