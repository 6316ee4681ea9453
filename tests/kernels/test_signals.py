"""A long call ends when a signal's handler raises. Each would run for minutes and more."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gte_sdk import _kernels

from .test_hostile_arguments import HIDDEN, encoder

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")


class Interrupted(Exception):  # noqa: N818 - an event
    pass


def search_without_end(threads: int) -> None:
    row = np.ones((1, 4096), np.uint8)
    _kernels.search(np.ones((1, 1024), np.float32), np.broadcast_to(row, (2**31, 4096)), 1, threads=threads)


def candidates_without_end(threads: int) -> None:
    queries, candidates = np.ones((4000, 1024), np.float32), np.tile(np.arange(50_000, dtype=np.uint32), (4000, 1))
    rows = np.broadcast_to(np.ones((1, 4096), np.uint8), (50_000, 4096))
    _kernels.search_candidates(queries, rows, 1, "float32", candidates, threads, "scalar")


def encoding_without_end(threads: int) -> None:
    texts = 40_000
    out = np.empty((texts, HIDDEN), np.float32)
    encoder(wide=65536).encode(np.ones(texts, np.int32), np.arange(texts + 1), out, 1, threads, "scalar")


def tokenizing_without_end(threads: int) -> None:
    pieces = _kernels.WordPieces({"a": 1, "[UNK]": 0}, "##", "[UNK]", 100, True, False, [])
    pieces.encode(["a " * 100_000] * 1_000_000, 1, threads)


@pytest.fixture
def timer() -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "call", [search_without_end, candidates_without_end, encoding_without_end, tokenizing_without_end]
)
@pytest.mark.usefixtures("timer")
def test_a_signal_ends_a_long_call(call: Callable[[int], None], threads: int) -> None:
    with pytest.raises(Interrupted):
        call(threads)
