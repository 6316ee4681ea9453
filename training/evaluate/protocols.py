"""MTEB's protocols for each kind of evaluation set, over any function from texts to vectors.

A set is a directory TASK/NAME with JSON lines. Reading and scoring a ranking set do not depend on how it was ranked, so
that BM25, which has no vectors, is measured the same way. Vectors are ranked with the kernel that ships.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import top_k_cosine
from gte_sdk.runtime.engine import cut_rows

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SAMPLES_A_LABEL = 16
DRAWS = 5
CLUSTERINGS = 10
RANKED_DOCUMENTS = 1000
CANDIDATES = 1000
SEED = 42


class SetError(ValueError):
    """An evaluation set that is missing or has another layout. The message names the path."""


class RankingSet(NamedTuple):
    documents: list[str]
    """Title and text."""
    queries: list[str]
    """Those that have a relevant document."""
    grades: list[dict[int, int]]
    """For each query, the grade of each judged document by its index."""


def sts(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Spearman's correlation of cosine and human score. STS is symmetric, so `embed_query` is not used."""
    rows = list(read_rows(path / "test.jsonl"))
    return spearman(_cosines(rows, embed), np.array([row["score"] for row in rows]))


def spearman(values: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> float:
    """The correlation of the ranks of two (n,) arrays; equal values share the mean of their ranks.

    It is NaN if a value is NaN, or if all values of an array are equal.
    """
    if any(np.isnan(array).any() or np.ptp(array) == 0 for array in (values, others)):
        return float("nan")
    return float(np.corrcoef(_ranks(values), _ranks(others))[0, 1])


def _ranks(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def pair_classification(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Average precision of the pairs ranked by cosine."""
    from sklearn.metrics import average_precision_score

    rows = list(read_rows(path / "test.jsonl"))
    return float(average_precision_score([row["label"] for row in rows], _cosines(rows, embed)))


def retrieval(path: Path, embed: Embed, embed_query: Embed) -> float:
    """nDCG@10 with gain 2^grade - 1, as the mean over queries that have a relevant document."""
    return score_ranking_set(path, embed, embed_query)["ndcg@10"]


def code_search(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Mean reciprocal rank of the first relevant document (0 beyond the first thousand)."""
    return score_ranking_set(path, embed, embed_query)["mrr"]


def score_ranking_set(path: Path, embed: Embed, embed_query: Embed) -> dict[str, float]:
    """The measures of score_ranking for documents ranked by cosine."""
    ranking = read_ranking_set(path)
    documents_MD, queries_QD = embed(ranking.documents), embed_query(ranking.queries)
    _, ranked_QK = top_k_cosine(queries_QD, documents_MD, min(RANKED_DOCUMENTS, len(ranking.documents)))
    return score_ranking(ranked_QK, ranking.grades)


def read_ranking_set(path: Path) -> RankingSet:
    """Reads corpus.jsonl, queries.jsonl and qrels.tsv. Raises SetError for a judged document that is missing."""
    documents = list(read_rows(path / "corpus.jsonl"))
    numbers = {str(document["id"]): number for number, document in enumerate(documents)}
    grades = _read_qrels(path / "qrels.tsv")
    if missing := {document for of_query in grades.values() for document in of_query} - numbers.keys():
        raise SetError(f"{path / 'qrels.tsv'} judges {min(missing)!r}, which is not in corpus.jsonl")
    queries = [row for row in read_rows(path / "queries.jsonl") if any(grades[str(row["id"])].values())]
    return RankingSet(
        [join_title(document) for document in documents],
        [row["text"] for row in queries],
        [{numbers.get(document, -1): grade for document, grade in grades[str(row["id"])].items()} for row in queries],
    )


def score_ranking(ranked_QK: NDArray[np.int64], grades: Sequence[Mapping[int, int]]) -> dict[str, float]:
    """ndcg@10, recall@100 and mrr of document indices, best first. A document that is not among them counts 0."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for ranked_K, of_query in zip(ranked_QK, grades, strict=True):
        gains_K = np.array([of_query.get(int(index), 0) for index in ranked_K])
        ideal = sorted(of_query.values(), reverse=True)
        scores["ndcg@10"].append(_dcg(gains_K[:10]) / _dcg(np.array(ideal[:10])))
        relevant = sum(grade > 0 for grade in ideal)
        scores["recall@100"].append(float((gains_K[:100] > 0).sum()) / relevant)
        hits = np.flatnonzero(gains_K > 0)
        scores["mrr"].append(1.0 / (hits[0] + 1) if len(hits) else 0.0)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def reranking(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Mean average precision over queries, each of which has its own candidates."""
    rows = list(read_rows(path / "test.jsonl"))
    candidates = list(dict.fromkeys(text for row in rows for text in (*row["positive"], *row["negative"])))
    numbers = {text: number for number, text in enumerate(candidates)}
    vectors_MD = embed(candidates)
    scores = []
    for row, query_D in zip(rows, embed_query([row["query"] for row in rows]), strict=True):
        scores.append(vectors_MD[[numbers[text] for text in (*row["positive"], *row["negative"])]] @ query_D)
    return mean_average_precision(rows, scores)


def mean_average_precision(rows: Sequence[Mapping[str, Any]], scores: Sequence[NDArray[np.float32]]) -> float:
    """Mean average precision. `scores` are those of each row's positives, then its negatives."""
    from sklearn.metrics import average_precision_score

    return float(
        np.mean(
            [
                average_precision_score([1] * len(row["positive"]) + [0] * len(row["negative"]), of_row)
                for row, of_row in zip(rows, scores, strict=True)
            ]
        )
    )


def classification(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Accuracy of a logistic regression on 16 training samples of each label, as the mean of 5 draws."""
    from sklearn.linear_model import LogisticRegression

    train, test = list(read_rows(path / "train.jsonl")), list(read_rows(path / "test.jsonl"))
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
    """V-measure of mini-batch k-means with as many clusters as labels, as the mean of 10 seeds.

    One seed is not enough: SearchSnippets moved by nine points between fp32 and int8 of the same weights.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    rows = list(read_rows(path / "test.jsonl"))
    labels = [str(row["label"]) for row in rows]
    vectors_ND = embed([row["text"] for row in rows])
    scores = []
    for number in range(CLUSTERINGS):
        model = MiniBatchKMeans(len(set(labels)), batch_size=500, n_init="auto", random_state=SEED + number)
        scores.append(v_measure_score(labels, model.fit_predict(vectors_ND)))
    return float(np.mean(scores))


def code_search_net(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Mean reciprocal rank of each query's own document among those of CANDIDATES pairs, the protocol of CodeSearchNet.

    The pairs of the file are taken CANDIDATES at a time, as they stand there; a shorter rest is left out unless it is
    all there is (arXiv 1909.09436, section 4.1). Of equal similarities, the query's own counts as the last.
    """
    rows = list(read_rows(path / "test.jsonl"))
    rows = rows[: len(rows) // CANDIDATES * CANDIDATES] or rows
    ranks: list[NDArray[np.int64]] = []
    for start in range(0, len(rows), CANDIDATES):
        block = rows[start : start + CANDIDATES]
        queries_QD = unit_rows(embed_query([row["query"] for row in block]))
        similarities_QQ = queries_QD @ unit_rows(embed([row["document"] for row in block])).T
        ranks.append((similarities_QQ >= np.diagonal(similarities_QQ)[:, None]).sum(axis=1))
    return float(np.mean(1 / np.concatenate(ranks)))


def summarization(path: Path, embed: Embed, embed_query: Embed) -> float:
    """SummEval: Spearman's correlation of a machine's summaries with the judges' `relevance`, as the mean over texts.

    A summary's score is its largest cosine with a human summary of the text. Texts whose scores, or judgements, are all
    equal have no correlation and are left out, as in MTEB.
    """
    correlations = []
    for row in read_rows(path / "test.jsonl"):
        human_HD, machine_MD = unit_rows(embed(row["human_summaries"])), unit_rows(embed(row["machine_summaries"]))
        correlations.append(spearman((machine_MD @ human_HD.T).max(axis=1), np.array(row["relevance"], dtype=float)))
    return float(np.nanmean(correlations))


def zero_shot(path: Path, embed: Embed, embed_query: Embed) -> float:
    """Accuracy of the label whose description, in labels.jsonl, is nearest to the text: SST-2 in the GTE paper."""
    labels, rows = list(read_rows(path / "labels.jsonl")), list(read_rows(path / "test.jsonl"))
    texts_ND = unit_rows(embed([row["text"] for row in rows]))
    nearest_N = (texts_ND @ unit_rows(embed([label["text"] for label in labels])).T).argmax(axis=1)
    names = [str(label["label"]) for label in labels]
    return float(np.mean([names[index] == str(row["label"]) for index, row in zip(nearest_N, rows, strict=True)]))


PROTOCOLS: Mapping[str, Callable[[Path, Embed, Embed], float]] = {
    "sts": sts,
    "retrieval": retrieval,
    "code_search": code_search,
    "reranking": reranking,
    "pair_classification": pair_classification,
    "classification": classification,
    "clustering": clustering,
    "code_search_net": code_search_net,
    "summarization": summarization,
    "zero_shot": zero_shot,
}


def _cosines(rows: Sequence[dict[str, Any]], embed: Embed) -> NDArray[np.float32]:
    left_ND, right_ND = embed([row["a"] for row in rows]), embed([row["b"] for row in rows])
    lengths_N = np.linalg.norm(left_ND, axis=1) * np.linalg.norm(right_ND, axis=1)
    cosines_N: NDArray[np.float32] = (left_ND * right_ND).sum(axis=1) / np.maximum(lengths_N, np.float32(1e-12))
    return cosines_N


def unit_rows(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length, and of length zero where there were such."""
    return cut_rows(vectors_ND, vectors_ND.shape[1])


def _sample(rows: Sequence[dict[str, Any]], random: np.random.Generator) -> list[int]:
    """Indices of at most SAMPLES_A_LABEL random rows of each label."""
    counts: defaultdict[str, int] = defaultdict(int)
    chosen = []
    for index in random.permutation(len(rows)):
        label = str(rows[index]["label"])
        counts[label] += 1
        if counts[label] <= SAMPLES_A_LABEL:
            chosen.append(int(index))
    return chosen


def _dcg(grades_K: NDArray[Any]) -> float:
    return float(((2.0**grades_K - 1) / np.log2(np.arange(2, len(grades_K) + 2))).sum())


def join_title(row: Mapping[str, Any]) -> str:
    return f"{row.get('title', '')} {row['text']}".strip()


def _read_qrels(path: Path) -> defaultdict[str, dict[str, int]]:
    grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
    if not path.is_file():
        raise SetError(f"{path} is missing")
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades[query][document] = int(grade)
    return grades


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise SetError(f"{path} is missing")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
