"""The mixture: which pairs form the next batch, as a sequence that a seed fixes and a state resumes.

Each batch comes from one source, drawn with p_i = n_i^alpha / sum_j n_j^alpha (GTE paper, section 3.2): a negative from
another source would be too easy to tell. No text appears twice in a batch, because a duplicate is a false negative that
costs exp(1/temperature). A pair that would repeat a text waits for its source's next batches. Only a part of a batch
may wait; what is beyond it is left to the next pass, so that a frequent text costs no more with every batch.

In whole passes, a batch's source is drawn by the batches that it has left in the pass, so every pair is read once in an
epoch, and alpha plays no part.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.order import Order
from training.data.pairs import Pair, PairsError, Source

MOST_WAITING = 0.25
"""Of a batch, at least LEAST_WAITING pairs, for each source."""
LEAST_WAITING = 64
MOST_LOOKED_AT = 4
"""Times as many pairs as a batch has are looked at for it; then it stays smaller."""

OTHERS_AT_ONCE = 64


class Batch(NamedTuple):
    pairs: list[Pair]
    sources: list[str]
    """The name of each pair's source; all the same unless sources are mixed."""
    state: dict[str, Any]
    """The mixture's state after this batch."""


class Mixture:
    """An endless sequence of batches over sources.

    A batch has `batch_size` pairs, or fewer if its source has fewer without repetition, and a multiple of `multiple`
    (the number of processes). Every pass over a source has a new order.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        alpha: float,
        seed: int,
        *,
        mixed: bool = False,
        negatives: int = 0,
        random_negatives: bool = False,
        whole_passes: bool = False,
        multiple: int = 1,
    ) -> None:
        self.sources = list(sources)
        self.batch_size = batch_size
        self.seed = seed
        self.mixed = mixed
        self.negatives = negatives
        self.random_negatives = random_negatives
        self.whole_passes = whole_passes
        self.multiple = multiple
        sizes_S = np.array([len(source) for source in sources], dtype=np.float64) ** alpha
        self.probabilities_S: NDArray[np.float64] = sizes_S / sizes_S.sum()
        self._random = np.random.default_rng(seed)
        self._passes = [0] * len(sources)
        self._positions = [0] * len(sources)
        self._waiting: list[list[int]] = [[] for _ in sources]
        self._window_ends = [0] * len(sources)
        self._orders: dict[int, tuple[int, Order]] = {}

    def next_batch(self) -> Batch:
        """The next batch of the sequence. `mixed` draws a source for each pair instead of each batch.

        Raises PairsError if a source has fewer distinct pairs than `multiple`.
        """
        for _ in range(1 + 2 * len(self.sources) * self.whole_passes):  # a pass may end in too few
            source = self._draw_source()
            drawn, texts = self._draw_pairs(source)
            if drawn:
                break
        else:
            name = self.sources[source].name
            raise PairsError(f"source {name} has fewer distinct pairs than there are processes ({self.multiple})")
        others = {number: self._other_documents(number) for number in {number for number, _ in drawn}}
        pairs = [self._with_negatives(pair, texts, others[number]) for number, pair in drawn]
        return Batch(pairs, [self.sources[number].name for number, _ in drawn], self.state())

    def state(self) -> dict[str, Any]:
        """Everything that the next batch depends on, as plain values that JSON can hold."""
        return {
            "random": self._random.bit_generator.state,
            "passes": list(self._passes),
            "positions": list(self._positions),
            "waiting": [list(indices) for indices in self._waiting],
            "window_ends": list(self._window_ends),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues the sequence of a mixture with the same arguments, after the batch that had `state`."""
        if len(state["passes"]) != len(self.sources):
            raise ValueError(f"the state is of {len(state['passes'])} sources, but there are {len(self.sources)}")
        self._random.bit_generator.state = state["random"]
        self._passes = list(state["passes"])
        self._positions = list(state["positions"])
        self._waiting = [list(indices) for indices in state["waiting"]]
        self._window_ends = list(state["window_ends"])

    def _draw_source(self) -> int:
        if not self.whole_passes:
            return int(self._random.choice(len(self.sources), p=self.probabilities_S))
        left_S = np.array([self._left_of_pass(source) for source in range(len(self.sources))])
        if not left_S.any():
            self._passes = [number + 1 for number in self._passes]
            self._positions = [0] * len(self.sources)
            left_S = np.array([len(source) for source in self.sources])
        shares_S = left_S if self.mixed else np.ceil(left_S / self.batch_size)
        return int(self._random.choice(len(self.sources), p=shares_S / shares_S.sum()))

    def _left_of_pass(self, source: int) -> int:
        return len(self.sources[source]) - self._positions[source] + len(self._waiting[source])

    def _draw_pairs(self, source: int) -> tuple[list[tuple[int, Pair]], set[str]]:
        """(source, pair) of a batch without repeated texts, and its texts. Those that repeat one wait."""
        texts: set[str] = set()
        drawn: list[tuple[int, int, Pair]] = []
        left: dict[int, list[int]] = {}
        for number, index, pair in self._candidates(source):
            if pair.query in texts or pair.document in texts:
                left.setdefault(number, []).append(index)
            else:
                texts.update((pair.query, pair.document))
                drawn.append((number, index, pair))
                if len(drawn) == self.batch_size:
                    break
        while len(drawn) % self.multiple:
            number, index, pair = drawn.pop()
            texts -= {pair.query, pair.document}
            left.setdefault(number, []).append(index)
        for number, indices in left.items() if drawn else ():
            self._let_wait(number, indices)
        return [(number, pair) for number, _, pair in drawn], texts

    def _candidates(self, source: int) -> Iterator[tuple[int, int, Pair]]:
        """(source, index, pair), from `source` or, if sources are mixed, from one after another that is drawn."""
        at_once = 1 if self.mixed else self.batch_size
        of_source: dict[int, Iterator[tuple[int, Pair]]] = {}
        for _ in range(MOST_LOOKED_AT * self.batch_size):
            if source not in of_source:
                of_source[source] = self._pairs_of(source, at_once)
            if found := next(of_source[source], None):
                yield source, *found
            elif not self.mixed:
                return
            if self.mixed:
                if self.whole_passes and not any(map(self._left_of_pass, range(len(self.sources)))):
                    return
                source = self._draw_source()

    def _pairs_of(self, source: int, at_once: int) -> Iterator[tuple[int, Pair]]:
        """Pairs that wait, then new ones, each once; where the caller stops, the next batch goes on."""
        waiting = self._waiting[source]
        left = self._left_of_pass(source) if self.whole_passes else len(self.sources[source])
        for pair in self.sources[source].read(np.array(waiting, dtype=np.int64)):
            yield waiting.pop(0), pair
            left -= 1
        while left > 0:
            if self._positions[source] == len(self.sources[source]):
                self._passes[source] += 1
                self._positions[source] = 0
            start, order = self._positions[source], self._order(source)
            indices_N = order.pairs_at(start, min(start + min(left, at_once), order.window_end(start)))
            for index, pair in zip(indices_N.tolist(), self.sources[source].read(indices_N), strict=True):
                self._positions[source] += 1
                yield index, pair
            left -= len(indices_N)

    def _order(self, source: int) -> Order:
        number = self._passes[source]
        if self._orders.get(source, (-1, None))[0] != number:
            self._orders[source] = (number, self.sources[source].order([self.seed, source, number]))
        return self._orders[source][1]

    def _let_wait(self, source: int, indices: list[int]) -> None:
        """Behind those that wait already, as long as there is room, and no longer than their window is in memory."""
        end = self._order(source).window_end(self._positions[source] - 1)
        if end != self._window_ends[source] and self.sources[source].blocks.a_window:
            self._waiting[source], indices = [], []
        self._window_ends[source] = end
        room = max(LEAST_WAITING, int(self.batch_size * MOST_WAITING)) - len(self._waiting[source])
        self._waiting[source] += indices[: max(0, room)]

    def _with_negatives(self, pair: Pair, texts: set[str], others: Iterator[str]) -> Pair:
        """The pair with up to `negatives` of its hard negatives, drawn from those that are not in the batch yet.

        With `random_negatives`, those that are missing are taken from `others`.
        """
        fresh = list(dict.fromkeys(text for text in pair.negatives if text not in texts))
        if len(fresh) > self.negatives:
            chosen = self._random.choice(len(fresh), self.negatives, replace=False)
            fresh = [fresh[index] for index in sorted(chosen)]
        texts.update(fresh)
        while self.random_negatives and len(fresh) < self.negatives and (text := next(others, None)) is not None:
            if text not in texts:
                fresh.append(text)
                texts.add(text)
        return pair._replace(negatives=tuple(fresh))

    def _other_documents(self, source: int) -> Iterator[str]:
        """Documents of the source at random, each pair's once: of the window in memory, from a random place on."""
        order, size = self._order(source), len(self.sources[source])
        end = order.window_end(min(self._positions[source], size - 1))
        begin = order.window_begin(end - 1)
        place = int(self._random.integers(begin, end)) if self.random_negatives else begin
        for start, stop in ((place, end), (begin, place)):
            for at in range(start, stop, OTHERS_AT_ONCE):
                indices_N = order.pairs_at(at, min(at + OTHERS_AT_ONCE, stop))
                yield from (pair.document for pair in self.sources[source].read(indices_N))
