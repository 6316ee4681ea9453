"""Measures what quantization costs in quality, as Spearman's correlation with human judgements on pairs of texts.

The set is JSON Lines with two texts and their similarity as people judged it: {"a": "...", "b": "...", "score": 3.8}.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.parity.measure import PYTORCH, Run
from gte_sdk.errors import InputError
from gte_sdk.runtime.tokens import tokenize
from training.evaluate.protocols import spearman


class StsSet(NamedTuple):
    name: str
    first: list[list[int]]
    """Token ids of each pair's first text."""
    second: list[list[int]]
    scores: NDArray[np.float64]


def read_sts(path: Path, tokenizer: Tokenizer, max_tokens: int) -> StsSet:
    """Reads a set. Raises InputError for a line that is not a pair, and for a set whose scores are all equal."""
    first, second, scores = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts, score = (row["a"], row["b"]), float(row["score"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path}, line {number} is not {{"a": ..., "b": ..., "score": ...}}: {error!r}') from error
        if not all(isinstance(text, str) for text in texts) or not np.isfinite(score):
            raise InputError(f"{path}, line {number}: a and b must be texts and score a finite number, not {row!r}")
        first.append(texts[0])
        second.append(texts[1])
        scores.append(score)
    if len(set(scores)) < 2:
        raise InputError(f"{path} has {len(scores)} pairs with {len(set(scores))} different scores: nothing to rank")
    ids = [tokenize(tokenizer, texts, max_tokens).ids for texts in (first, second)]
    return StsSet(path.name, ids[0], ids[1], np.array(scores))


def measure_sts(runs: Mapping[str, Run], sts: StsSet) -> dict[str, Any]:
    """Spearman's correlation of cosine and score for each run, and its difference from PyTorch's."""
    correlations = {}
    for name, run in runs.items():
        vectors = run([*sts.first, *sts.second])
        count = len(sts.first)
        correlations[name] = spearman(np.einsum("nd,nd->n", vectors[:count], vectors[count:]), sts.scores)
    reference = correlations[PYTORCH]
    changes = {name: value - reference for name, value in correlations.items() if name != PYTORCH}
    return {"set": sts.name, "pairs": len(sts.first), "spearman": correlations, "change": changes}
