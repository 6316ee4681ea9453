"""The mixture: which pairs form the next batch, as a sequence that a seed fixes and a state resumes.

Each batch comes from one source, drawn with p_i = n_i^alpha / sum_j n_j^alpha (GTE paper, section 3.2): a negative from
another source would be too easy to tell. No text appears twice in a batch, because a duplicate is a false negative that
costs exp(1/temperature). A pair that would repeat a text waits for its source's next batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.pairs import Pair, PairsError, Source


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
        multiple: int = 1,
    ) -> None:
        self.sources = list(sources)
        self.batch_size = batch_size
        self.seed = seed
        self.mixed = mixed
        self.negatives = negatives
        self.multiple = multiple
        sizes_S = np.array([len(source) for source in sources], dtype=np.float64) ** alpha
        self.probabilities_S: NDArray[np.float64] = sizes_S / sizes_S.sum()
        self._random = np.random.default_rng(seed)
        self._passes = [0] * len(sources)
        self._positions = [0] * len(sources)
        self._waiting: list[list[int]] = [[] for _ in sources]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def next_batch(self) -> Batch:
        """The next batch of the sequence. `mixed` draws a source for each pair instead of each batch.

        Raises PairsError if a source has fewer distinct pairs than `multiple`.
        """
        source = self._draw_source()
        retry, self._waiting = self._waiting, [[] for _ in self.sources]
        candidates = sum(map(len, self.sources)) if self.mixed else len(self.sources[source])
        texts: set[str] = set()
        drawn: list[tuple[int, int, Pair]] = []
        for _ in range(candidates):
            if len(drawn) == self.batch_size:
                break
            index = retry[source].pop(0) if retry[source] else self._next_index(source)
            pair = self.sources[source][index]
            if pair.query in texts or pair.document in texts:
                self._waiting[source].append(index)
            else:
                texts.update((pair.query, pair.document))
                drawn.append((source, index, pair))
            if self.mixed:
                source = self._draw_source()
        while len(drawn) % self.multiple:
            source, index, pair = drawn.pop()
            texts -= {pair.query, pair.document}
            self._waiting[source].append(index)
        if not drawn:
            name = self.sources[source].name
            raise PairsError(f"source {name} has fewer distinct pairs than there are processes ({self.multiple})")
        self._waiting = [left + new for left, new in zip(retry, self._waiting, strict=True)]
        pairs = [self._with_negatives(pair, texts) for _, _, pair in drawn]
        return Batch(pairs, [self.sources[source].name for source, _, _ in drawn], self.state())

    def state(self) -> dict[str, Any]:
        """Everything that the next batch depends on, as plain values that JSON can hold."""
        return {
            "random": self._random.bit_generator.state,
            "passes": list(self._passes),
            "positions": list(self._positions),
            "waiting": [list(indices) for indices in self._waiting],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues the sequence of a mixture with the same arguments, after the batch that had `state`."""
        if len(state["passes"]) != len(self.sources):
            raise ValueError(f"the state is of {len(state['passes'])} sources, but there are {len(self.sources)}")
        self._random.bit_generator.state = state["random"]
        self._passes = list(state["passes"])
        self._positions = list(state["positions"])
        self._waiting = [list(indices) for indices in state["waiting"]]

    def _draw_source(self) -> int:
        return int(self._random.choice(len(self.sources), p=self.probabilities_S))

    def _next_index(self, source: int) -> int:
        """The next row of the source in this pass's order. After the last one a new pass begins."""
        if self._positions[source] == len(self.sources[source]):
            self._passes[source] += 1
            self._positions[source] = 0
        number = self._passes[source]
        if self._orders.get(source, (-1, None))[0] != number:
            random = np.random.default_rng([self.seed, source, number])
            self._orders[source] = (number, random.permutation(len(self.sources[source])))
        self._positions[source] += 1
        return int(self._orders[source][1][self._positions[source] - 1])

    def _with_negatives(self, pair: Pair, texts: set[str]) -> Pair:
        """The pair with up to `negatives` of its hard negatives, drawn from those that are not in the batch yet."""
        fresh = list(dict.fromkeys(text for text in pair.negatives if text not in texts))
        if len(fresh) > self.negatives:
            chosen = self._random.choice(len(fresh), self.negatives, replace=False)
            fresh = [fresh[index] for index in sorted(chosen)]
        texts.update(fresh)
        return pair._replace(negatives=tuple(fresh))
