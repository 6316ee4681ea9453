"""Mines hard negatives: documents of the same source, or of a corpus, that rank high for a query but do not answer it.

Mining is positive-aware (NV-Retriever, arXiv 2407.15831): a document that reaches 95 % of the positive's similarity is
probably an answer too and is left out. Of the others in a window of ranks, a random sample is taken. It costs one pass
of the encoder over the source and one exact search with the runtime's kernel.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gte_sdk import top_k_cosine
from training.data.pairs import Pair, PairsError
from training.data.sources import match_files
from training.recipes.recipe import Mining

QUERIES_A_SEARCH = 4096


def mine(
    pairs: Sequence[Pair],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    mining: Mining,
    seed: int,
    corpus: Sequence[str] = (),
) -> list[Pair]:
    """The pairs with up to `mining.count` negatives each: their own first, then mined ones.

    A candidate is a document of `pairs`, or a text of `corpus`, that ranks from first_rank to last_rank for the query
    (0 is the nearest), is at most max_ratio times as similar as the query's own document, and does not belong to
    another pair with the same query. Candidates are drawn at random with `seed`. A pair without candidates keeps the
    negatives that it has.
    """
    documents = list(dict.fromkeys([*(pair.document for pair in pairs), *corpus]))
    document_vectors_MD = embed(documents)
    numbers = {document: number for number, document in enumerate(documents)}
    answers: defaultdict[str, set[int]] = defaultdict(set)
    for pair in pairs:
        answers[pair.query].add(numbers[pair.document])
    random = np.random.default_rng(seed)
    rank_count = min(mining.last_rank + 1, len(documents))
    mined = []
    for start in range(0, len(pairs), QUERIES_A_SEARCH):
        block = pairs[start : start + QUERIES_A_SEARCH]
        queries_QD = embed([pair.query for pair in block])
        scores_QK, indices_QK = top_k_cosine(queries_QD, document_vectors_MD, rank_count)
        own_QD = document_vectors_MD[[numbers[pair.document] for pair in block]]
        limit_Q = mining.max_ratio * (queries_QD * own_QD).sum(axis=1)
        for pair, limit, scores_K, indices_K in zip(block, limit_Q, scores_QK, indices_QK, strict=True):
            window = zip(scores_K[mining.first_rank :], indices_K[mining.first_rank :], strict=True)
            candidates = [int(index) for score, index in window if score <= limit and index not in answers[pair.query]]
            wanted = min(len(candidates), max(0, mining.count - len(pair.negatives)))
            chosen = random.choice(candidates, wanted, replace=False) if wanted else ()
            texts = [*pair.negatives, *(documents[index] for index in chosen)]
            negatives = tuple(dict.fromkeys(text for text in texts if text not in (pair.query, pair.document)))
            mined.append(pair._replace(negatives=negatives))
    return mined


def read_corpus(patterns: Sequence[str], data: Path | None) -> list[str]:
    """The texts of .parquet files with a column `text`, or of .jsonl files with such a field, each once."""
    texts: dict[str, None] = {}
    for path in (path for pattern in patterns for path in match_files(pattern, data)):
        try:
            if path.suffix == ".parquet":
                column = pq.read_table(path, columns=["text"])["text"].to_pylist()
            else:
                column = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise PairsError(f"{path}: a corpus needs a column `text`: {type(error).__name__}: {error}") from error
        if not all(isinstance(text, str) for text in column):
            raise PairsError(f"{path}: its column `text` holds something that is no text")
        texts.update(dict.fromkeys(column))
    return list(texts)
