"""The order of a pass over a source, computed from a position, so that no list of rows is kept or resumed.

A Feistel network with a key permutes the numbers 0 to n - 1 (Luby and Rackoff 1988; numbers that leave the range go
through it again, Black and Rogaway 2002). A source whose rows can be read one by one is permuted as a whole. One that
is read by the block is permuted in windows: blocks in a permuted order, some of them at a time in memory, and the pairs
of these permuted. So a pass reads every block once, and whoever continues reads only the window it stopped in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8


class Order(NamedTuple):
    """The order of one pass."""

    keys: NDArray[np.uint64]
    """(rounds,)"""
    blocks: NDArray[np.int64]
    """(b,): the blocks in their order in this pass."""
    ends: NDArray[np.int64]
    """(b + 1,): how many pairs come before each of them, and how many there are."""
    firsts: NDArray[np.int64]
    """(b,): the first pair of each."""
    windows: NDArray[np.int64]
    """(w + 1,): the positions at which windows begin, and how many pairs there are."""

    def window_end(self, position: int) -> int:
        """Where the window of a position ends."""
        return int(self.windows[np.searchsorted(self.windows, position, side="right")])

    def window_begin(self, position: int) -> int:
        """Where the window of a position begins."""
        return int(self.windows[np.searchsorted(self.windows, position, side="right") - 1])

    def pairs_at(self, start: int, stop: int) -> NDArray[np.int64]:
        """The pairs at positions of one window: start <= position < stop <= window_end(start)."""
        end = self.window_end(start)
        begin = self.window_begin(start)
        places_N = begin + permute(np.arange(start - begin, stop - begin), end - begin, self.keys ^ np.uint64(begin))
        blocks_N = np.searchsorted(self.ends, places_N, side="right") - 1
        pairs_N: NDArray[np.int64] = self.firsts[blocks_N] + places_N - self.ends[blocks_N]
        return pairs_N


def make_order(block_sizes: Sequence[int] | NDArray[np.int64], blocks_a_window: int, seed: Sequence[int]) -> Order:
    """The order of a pass that `seed` names, over blocks of these numbers of pairs, 0 included.

    `blocks_a_window` blocks are in memory at a time; 0: all, so the order is that of one permutation of all pairs.
    """
    sizes_B = np.asarray(block_sizes, dtype=np.int64)
    keys = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    firsts_B = np.cumsum(sizes_B) - sizes_B
    blocks_B = (
        permute(np.arange(len(sizes_B)), len(sizes_B), keys[::-1]) if blocks_a_window else np.arange(len(sizes_B))
    )
    ends = np.concatenate([[0], np.cumsum(sizes_B[blocks_B])]).astype(np.int64)
    windows = np.unique(np.append(ends[:: blocks_a_window or len(sizes_B)], ends[-1]))
    return Order(keys, blocks_B, ends, firsts_B[blocks_B], windows)


def permute(numbers_N: NDArray[np.int64], count: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The image of each number, 0 <= number < count, under the permutation of range(count) that the keys choose."""
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    values_N = numbers_N.astype(np.uint64)
    outside = np.arange(len(values_N))
    while len(outside):
        left, right = values_N[outside] >> half, values_N[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        values_N[outside] = (left << half) | right
        outside = outside[values_N[outside] >= count]
    return values_N.astype(np.int64)


def _mix(values_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits that depend on all bits of the value (the end of SplitMix64)."""
    values_N = (values_N ^ (values_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values_N = (values_N ^ (values_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_N: NDArray[np.uint64] = values_N ^ (values_N >> np.uint64(31))
    return mixed_N
