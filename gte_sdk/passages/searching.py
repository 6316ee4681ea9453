"""Searches a passage index. The vectors stay in memory and are read again when the index has changed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import PassageStore, Snapshot
from gte_sdk.search.top_k import top_k_cosine


class Found(NamedTuple):
    """A passage, and how near it is to the question."""

    score: float
    """Cosine of question and passage."""
    passage: Passage


class PassageSearch:
    """Searches one open passage index, and keeps its vectors in memory between questions."""

    def __init__(self, store: PassageStore) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None

    def find(self, query_D: NDArray[np.float32], count: int) -> list[Found]:
        """Returns the passages with the highest cosine.

        Equal texts are ordered by path and line. An answer always comes from one state of the index, the newest.

        Args:
            query_D: The vector of the question, (dim,) float32.
            count: The most passages to return.
        """
        self._store.follow()
        with self._store.unchanged():
            if self._snapshot is None or self._snapshot.version != self._store.version():
                self._snapshot = self._store.snapshot()
            vector_ids, vectors_ND, _ = self._snapshot
            if not vector_ids:
                return []
            # Each vector has at least one passage, so the best `count` passages are among the best `count` vectors.
            scores, rows = top_k_cosine(query_D, vectors_ND, min(count, len(vector_ids)))
            best_ids = [vector_ids[row] for row in rows[0].tolist()]
            passages = self._store.passages_of(best_ids, count)
        found = [
            Found(score, part) for score, id in zip(scores[0].tolist(), best_ids, strict=True) for part in passages[id]
        ]
        return found[:count]
