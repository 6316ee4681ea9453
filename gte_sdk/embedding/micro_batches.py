"""Micro-batching: the texts of asyncio callers that wait at the same time are embedded together, off the event loop.

No timer delays anybody: an idle model starts at once, and whoever comes while it runs is in the next batch. Callers
take turns of TURN_TOKENS, so that one of 2,048 texts does not keep a single text waiting for minutes. Everything but
the model's run happens on the event loop, so nothing here needs a lock. `Embedder.aembed` and `gte serve` queue here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# Smaller than what waits under load, so that the next batch is there when this one ends; and so short, about a tenth
# of a second on two cores, that a single text does not wait long. Larger batches give no more tokens a second.
BATCH_TOKENS = 1024
TURN_TOKENS = 256
# Batches that run at the same time: one computes while the other is read, written and waited for.
LANES = 2
# Texts of up to so many characters are tokenized on the event loop: below 2 ms, which a change of threads is not worth.
INLINE_CHARACTERS = 8192

EmbedTokens = Callable[[list[list[int]]], NDArray[np.float32]]
Result = TypeVar("Result")


@dataclass
class _Waiting:
    ids: list[list[int]]
    order: list[int]
    """The texts by length, so that a batch holds little padding."""
    vectors: NDArray[np.float32]
    """(n, dim), filled batch by batch."""
    answer: "asyncio.Future[NDArray[np.float32]]"
    taken: int = 0
    """Texts that are in a batch or done."""
    done: int = 0


class MicroBatcher:
    """One queue before one model, for the callers of one event loop.

    `together=False` gives every caller a batch of its own. `count_batch` is told of each batch: its texts and tokens.
    """

    def __init__(
        self,
        embed_tokens: EmbedTokens,
        dim: int,
        together: bool = True,
        count_batch: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> None:
        self.queued_texts = 0
        """Texts that wait, those of a running batch not counted."""
        self._embed_tokens = embed_tokens
        self._dim = dim
        self._together = together
        self._count_batch = count_batch
        self._queue: deque[_Waiting] = deque()
        self._workers: set[asyncio.Task[None]] = set()  # an event loop itself keeps only weak references to tasks
        self._running = 0

    def submit(self, ids: list[list[int]]) -> "asyncio.Future[NDArray[np.float32]]":
        """(n, dim) float32 unit rows of n texts, given as `Embedder.tokenize` gives them, as soon as they are there.

        A future that is cancelled gives its place back. Call it in the event loop that awaits it.
        """
        loop = asyncio.get_running_loop()
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        waiting = _Waiting(ids, order, np.empty((len(ids), self._dim), np.float32), loop.create_future())
        if not ids:
            waiting.answer.set_result(waiting.vectors)
            return waiting.answer
        self._queue.append(waiting)
        self.queued_texts += len(ids)
        if self._running < LANES:
            self._running += 1
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return waiting.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            ids = [waiting.ids[row] for waiting, rows in batch for row in rows]
            try:
                vectors_ND = await loop.run_in_executor(None, self._embed_tokens, ids)
            except Exception as error:  # the callers answer for it
                for waiting, _ in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            self._count_batch(len(ids), sum(map(len, ids)))
            first = 0
            for waiting, rows in batch:
                # Copied: a caller that keeps one row must not keep everybody's alive.
                waiting.vectors[rows] = vectors_ND[first : first + len(rows)]
                waiting.done += len(rows)
                first += len(rows)
                if waiting.done == len(waiting.ids) and not waiting.answer.done():
                    waiting.answer.set_result(waiting.vectors)
        # Here and not when the task is done: a caller that comes in between would take this worker for a running one.
        self._running -= 1

    def _next_batch(self) -> list[tuple[_Waiting, list[int]]]:
        """Who is in the next batch, with which of their texts; empty where nobody waits."""
        batch: list[tuple[_Waiting, list[int]]] = []
        room = BATCH_TOKENS
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            start = waiting.taken
            if waiting.answer.done():  # the caller is gone, or an earlier batch failed
                self.queued_texts -= len(waiting.ids) - start
                continue
            turn = min(TURN_TOKENS, room) if self._together else BATCH_TOKENS
            tokens = 0
            while waiting.taken < len(waiting.ids) and tokens < turn:
                tokens += len(waiting.ids[waiting.order[waiting.taken]])
                waiting.taken += 1
            room -= tokens
            self.queued_texts -= waiting.taken - start
            batch.append((waiting, waiting.order[start : waiting.taken]))
            if waiting.taken < len(waiting.ids):
                self._queue.append(waiting)
            if not self._together:
                break
        return batch


async def run_here_or_in_thread(here: bool, work: Callable[[], Result]) -> Result:
    """What `work` returns: on the event loop where that takes less time than a change of threads."""
    return work() if here else await asyncio.to_thread(work)
