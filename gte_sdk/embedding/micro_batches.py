"""Micro-batching: asyncio callers that wait at the same time share a batch, which runs outside the event loop.

No timer delays a caller: an idle model starts at once, and callers that come while it runs are in the next batch.
Callers take turns of TURN_TOKENS, so that a caller with 2,048 texts does not keep a single text waiting for minutes.
Only the model runs outside the event loop, so nothing here needs a lock. Used by `Embedder.aembed` and `gte serve`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# Less than what waits under load, so that the next batch is ready when this one ends. A batch takes about a tenth of a
# second on two cores, so a single text does not wait long. Larger batches process no more tokens per second.
BATCH_TOKENS = 1024
TURN_TOKENS = 256
# Batches that run at the same time: one computes while another is read and written.
LANES = 2
# Up to this many characters are tokenized on the event loop, in less than 2 ms: a change of threads would cost more.
INLINE_CHARACTERS = 8192

EmbedTokens = Callable[[list[list[int]]], NDArray[np.float32]]
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting:
    ids: list[list[int]]
    order: list[int]
    """The texts by length, so that batches have little padding."""
    vectors: NDArray[np.float32]
    """(n, dim), filled batch by batch."""
    answer: "asyncio.Future[NDArray[np.float32]]"
    taken: int = 0
    """The texts that are in a batch or done."""
    done: int = 0


class MicroBatcher:
    """The queue of one model, for the callers of one event loop.

    together: False gives every caller its own batches. count_batch: called with the texts and tokens of each batch.
    """

    def __init__(
        self,
        embed_tokens: EmbedTokens,
        dim: int,
        together: bool = True,
        count_batch: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> None:
        self.queued_texts = 0
        """The waiting texts, without those in a running batch."""
        self._embed_tokens = embed_tokens
        self._dim = dim
        self._together = together
        self._count_batch = count_batch
        self._queue: deque[_Waiting] = deque()
        self._workers: set[asyncio.Task[None]] = set()  # an event loop itself keeps only weak references to tasks
        self._running = 0

    def submit(self, ids: list[list[int]]) -> "asyncio.Future[NDArray[np.float32]]":
        """A future of the (n, dim) float32 unit rows of n texts, given as the ids from `Embedder.tokenize`.

        Cancelling the future removes its texts from the queue at once. Call this in the event loop that awaits it.
        """
        loop = asyncio.get_running_loop()
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        waiting = _Waiting(ids, order, np.empty((len(ids), self._dim), np.float32), loop.create_future())
        if not ids:
            waiting.answer.set_result(waiting.vectors)
            return waiting.answer
        self._queue.append(waiting)
        self.queued_texts += len(ids)
        waiting.answer.add_done_callback(lambda _: self._leave(waiting))
        if self._running < LANES:
            self._running += 1
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return waiting.answer

    def _leave(self, waiting: _Waiting) -> None:
        """For a caller that is gone, or whose earlier batch failed, nothing more is computed."""
        if waiting in self._queue:
            self._queue.remove(waiting)
            self.queued_texts -= len(waiting.ids) - waiting.taken

    async def _work(self) -> None:
        try:
            await self._serve()
        finally:
            # Here and not when the task is done: a caller in between would count this worker as running.
            self._running -= 1

    async def _serve(self) -> None:
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
                # Copied: a caller that keeps one row must not keep the rows of all callers in memory.
                waiting.vectors[rows] = vectors_ND[first : first + len(rows)]
                waiting.done += len(rows)
                first += len(rows)
                if waiting.done == len(waiting.ids) and not waiting.answer.done():
                    waiting.answer.set_result(waiting.vectors)

    def _next_batch(self) -> list[tuple[_Waiting, list[int]]]:
        """The callers in the next batch, each with its texts; empty if nobody waits."""
        batch: list[tuple[_Waiting, list[int]]] = []
        room = BATCH_TOKENS
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            start = waiting.taken
            if waiting.answer.done():  # and about to leave
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
    """The result of `work`, which runs on the event loop if `here`, else in a thread."""
    return work() if here else await asyncio.to_thread(work)
