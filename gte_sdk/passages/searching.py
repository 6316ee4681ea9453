"""Searches a passage index by meaning, by words, or by both. The vectors stay in memory until the index has changed.

By meaning, the score is the cosine. By words, it is BM25 as a share of the most that any text could have for the same
question, so that it lies between 0 and 1 for questions of any length. By both, it is the weighted mean of the two. The
bound and the mean are those of S. Bruch, S. Gai, A. Ingber: An Analysis of Fusion Functions for Hybrid Retrieval, 2022.
docs/benchmarks.md has what we measured, with the fusion of ranks beside it.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError
from gte_sdk.passages.places import passages_in
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import PassageStore, Snapshot, WordHit
from gte_sdk.passages.text_files import EVERYTHING, Wanted
from gte_sdk.passages.words import words_of_question
from gte_sdk.search.top_k import top_k_cosine

WORDS_SHARE = 0.4
"""The weight of the words in a search by both. It was chosen on sets that docs/benchmarks.md names."""
# How many passages of each kind of search are scored by both.
_BY_MEANING, _BY_WORDS = 100, 300
# The limit of BM25 for a text that has nothing but the word, in units of the word's weight: k1 + 1 in FTS5.
_MOST_BM25 = 2.2


class Found(NamedTuple):
    """A passage, and how well it answers the question."""

    score: float
    """By meaning: the cosine of question and passage. By words: the share of the question's words that it has, each by
    its weight, 0 to 1. By both: (1 - WORDS_SHARE) * cosine + WORDS_SHARE * share of words."""
    passage: Passage


class _Words(NamedTuple):
    """What the words of a question find."""

    shares: dict[int, float]
    """By passage; 0 for every other one."""
    vector_ids: dict[int, int]
    """By passage."""
    first: frozenset[int]
    """The passages with an identifier of the question that has to come first."""


@dataclass
class _Chosen:
    """The passages of some files, in one state of the index."""

    version: tuple[int, ...]
    wanted: Wanted
    passages: dict[int, set[int]]
    """By vector."""
    snapshot: Snapshot | None = None
    """Their vectors; None until a search by meaning needs them."""


_NO_WORDS = _Words({}, {}, frozenset())


class PassageSearch:
    """Searches one open passage index, and keeps its vectors in memory between questions."""

    def __init__(self, store: PassageStore) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None
        self._chosen: _Chosen | None = None

    def find(
        self,
        query_D: NDArray[np.float32] | None,
        count: int,
        question: str | None = None,
        min_score: float = -math.inf,
        wanted: Wanted = EVERYTHING,
    ) -> list[Found]:
        """Returns the best passages, best first. Equal ones are ordered by path and line.

        A vector searches by meaning, a question by words, and both together by both. In a question, an identifier
        (`get_name`, `getName`, `E2BIG`, or a question of one word) that only one file has, or that is all of the
        question, comes first: passages with it stand before the others. An answer always comes from one state of the
        index, the newest.

        Args:
            query_D: The vector of the question, (dim,) float32, or None.
            count: The most passages to return.
            question: The question in words, or None.
            min_score: Leave out passages with less; see Found.score.
            wanted: Search only the files of the index that this takes. What it says of ignore files has no effect: the
                index has its files already. A search by meaning copies the vectors of these files, once for all
                questions about the same ones.

        Raises:
            InputError: Neither a vector nor a question, or a question for an index without words.
        """
        if query_D is None and question is None:
            raise InputError("a search needs a vector, a question, or both")
        self._store.follow()
        with self._store.unchanged():
            among = self._choose(wanted) if wanted.globs or wanted.excludes or wanted.types else None
            words = _NO_WORDS if question is None else self._find_words(question, count, among)
            scores = words.shares if query_D is None else self._cosines(query_D, count, words.vector_ids, among)
            if query_D is not None and question is not None:
                scores = {
                    id: (1 - WORDS_SHARE) * cosine + WORDS_SHARE * words.shares.get(id, 0.0)
                    for id, cosine in scores.items()
                }
            # Passages whose place in the order their paths decide have to be read, too.
            keys = {id: (id not in words.first, -score) for id, score in scores.items() if score >= min_score}
            last = sorted(keys.values())[:count][-1:]
            best = [id for id, key in keys.items() if [key] <= last]
            passages = self._store.passages(best)
        best.sort(key=lambda id: (keys[id], passages[id].path, passages[id].line))
        return [Found(scores[id], passages[id]) for id in best[:count]]

    def _choose(self, wanted: Wanted) -> _Chosen:
        """Returns the passages of the files that are wanted; read once for each state of the index."""
        version = self._store.version()
        if self._chosen is None or (self._chosen.version, self._chosen.wanted) != (version, wanted):
            self._chosen = _Chosen(version, wanted, passages_in(self._store, wanted))
        return self._chosen

    def _vectors_of(self, among: _Chosen | None) -> Snapshot:
        """Returns the vectors to search: those of `among`, or of all passages."""
        if among is not None and among.snapshot is not None:
            return among.snapshot
        if self._snapshot is None or self._snapshot.version != self._store.version():
            self._snapshot = self._store.snapshot()
        if among is None:
            return self._snapshot
        vector_ids, vectors_ND, version = self._snapshot
        rows = [row for row, id in enumerate(vector_ids) if id in among.passages]
        among.snapshot = Snapshot([vector_ids[row] for row in rows], vectors_ND[rows], version)
        return among.snapshot

    def _cosines(
        self, query_D: NDArray[np.float32], count: int, passages: dict[int, int], among: _Chosen | None
    ) -> dict[int, float]:
        """Returns the cosines of the nearest passages, and of those given with their vectors' ids, by passage.

        among: the passages to search; None for all.
        """
        vector_ids, vectors_ND, _ = self._vectors_of(among)
        if not vector_ids:
            return {}
        # Each vector has at least one passage, so the best passages are among as many best vectors.
        scores, rows = top_k_cosine(query_D, vectors_ND, min(max(count, _BY_MEANING), len(vector_ids)))
        cosine_of = dict(zip((vector_ids[row] for row in rows[0].tolist()), scores[0].tolist(), strict=True))
        nearest = (
            self._store.passages_of(list(cosine_of), count)
            if among is None
            else [(vector, passage) for vector in cosine_of for passage in among.passages[vector]]
        )
        found = {passage: cosine_of[vector] for vector, passage in nearest}
        others = sorted({vector for vector in passages.values() if vector not in cosine_of})
        if others:
            other_rows = [bisect_left(vector_ids, vector) for vector in others]
            scores, order = top_k_cosine(query_D, vectors_ND[other_rows], len(others))
            cosine_of |= dict(zip((others[row] for row in order[0].tolist()), scores[0].tolist(), strict=True))
        return found | {passage: cosine_of[vector] for passage, vector in passages.items()}

    def _find_words(self, question: str, count: int, among: _Chosen | None) -> _Words:
        store = self._store
        if not store.has_words():
            raise InputError(f"{store.path} was made without the words of its passages", remedy="update index")
        words, identifiers, has_nothing_else = words_of_question(question)
        _, passage_count = store.counts()
        counts = {word: store.count_word(word) for word in words}
        most = sum(_MOST_BM25 * _weight(of_word, passage_count) for of_word in counts.values())
        known = [word for word, of_word in counts.items() if of_word]
        telling = [word for word in known if counts[word] <= passage_count / 2] or known
        if not telling:
            return _NO_WORDS
        most_hits = max(count, _BY_WORDS)

        def find(any_of: Sequence[str]) -> list[WordHit]:
            if among is None:
                return store.find_words(any_of, most_hits)
            of_all = store.find_words(any_of, passage_count)
            return [hit for hit in of_all if hit.passage_id in among.passages.get(hit.vector_id, ())][:most_hits]

        hits = find(telling)
        first = [
            hit
            for word in identifiers
            if has_nothing_else or store.count_files_with_word(word) == 1
            for hit in find([word])
        ]
        # The first value of a passage counts the most words.
        shares = {hit.passage_id: min(1.0, hit.bm25 / most) for hit in reversed([*hits, *first])}
        vector_ids = {hit.passage_id: hit.vector_id for hit in (*hits, *first)}
        return _Words(shares, vector_ids, frozenset(hit.passage_id for hit in first))


def _weight(count: int, passage_count: int) -> float:
    """Returns the weight of a word that `count` passages have: FTS5's inverse document frequency."""
    return max(1e-6, math.log((passage_count - count + 0.5) / (count + 0.5)))
