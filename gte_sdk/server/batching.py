"""Micro-batching: the texts of requests that wait at the same time are embedded together, a batch after the other.

No timer delays anybody: an idle model starts at once, and whoever comes while it runs is in the next batch. Requests
take turns of TURN_TOKENS, so that one of 2,048 texts does not keep a single text waiting for minutes. Everything but
the model's run happens on the event loop, so nothing here needs a lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gte_sdk.server.metrics import Metrics
from gte_sdk.server.refusal import Refusal

# Smaller than what waits under load, so that the next batch is there when this one ends; and so short, about a tenth
# of a second on two cores, that a single text does not wait long. Larger batches give no more tokens a second.
BATCH_TOKENS = 1024
TURN_TOKENS = 256
# Batches that run at the same time: one computes while the other is read, written and waited for.
LANES = 2

EmbedTokens = Callable[[list[list[int]]], NDArray[np.float32]]


@dataclass
class _Waiting:
    ids: list[list[int]]
    vectors: NDArray[np.float32]
    """(n, dim), filled batch by batch."""
    answer: "asyncio.Future[NDArray[np.float32]]"
    taken: int = 0
    """Texts that are in a batch or done."""
    done: int = 0


class MicroBatcher:
    """One queue before one model. `together=False` gives every request a batch of its own."""

    def __init__(
        self, embed_tokens: EmbedTokens, dim: int, max_queued_texts: int, metrics: Metrics, together: bool = True
    ) -> None:
        self._embed_tokens = embed_tokens
        self._dim = dim
        self._max_queued_texts = max_queued_texts
        self._metrics = metrics
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._workers: set[asyncio.Task[None]] = set()  # an event loop itself keeps only weak references to tasks
        self._running = 0
        self._threads = ThreadPoolExecutor(LANES, thread_name_prefix="gte-model")

    async def embed(self, ids: list[list[int]]) -> NDArray[np.float32]:
        """(n, dim) float32 unit rows of n texts, given as `Embedder.tokenize` gives them.

        A caller that is cancelled gives its place back. Raises Refusal (429) where the queue has no room; an empty
        queue has room for any request.
        """
        if self._metrics.queued_texts + len(ids) > self._max_queued_texts and self._queue:
            raise Refusal(
                429,
                f"{self._metrics.queued_texts} texts are waiting and {len(ids)} more exceed {self._max_queued_texts}; "
                "try again later",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ids, np.empty((len(ids), self._dim), np.float32), loop.create_future())
        self._queue.append(waiting)
        self._metrics.queued_texts += len(ids)
        if self._running < LANES:
            self._running += 1
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await waiting.answer

    def close(self) -> None:
        """Ends the threads after the batches that run."""
        self._threads.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            ids = [row for waiting, start, end in batch for row in waiting.ids[start:end]]
            try:
                vectors_ND = await loop.run_in_executor(self._threads, self._embed_tokens, ids)
            except Exception as error:  # the callers answer for it, each to its client
                for waiting, _, _ in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            self._metrics.count_batch(len(ids), sum(map(len, ids)))
            first = 0
            for waiting, start, end in batch:
                waiting.vectors[start:end] = vectors_ND[first : first + end - start]
                waiting.done += end - start
                first += end - start
                if waiting.done == len(waiting.ids) and not waiting.answer.done():
                    waiting.answer.set_result(waiting.vectors)
        # Here and not when the task is done: a caller that comes in between would take this worker for a running one.
        self._running -= 1

    def _next_batch(self) -> list[tuple[_Waiting, int, int]]:
        """Who is in the next batch, with the first and the end of their texts; empty where nobody waits."""
        batch: list[tuple[_Waiting, int, int]] = []
        room = BATCH_TOKENS
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            start = waiting.taken
            if waiting.answer.done():  # the client is gone, or an earlier batch failed
                self._metrics.queued_texts -= len(waiting.ids) - start
                continue
            turn = min(TURN_TOKENS, room) if self._together else BATCH_TOKENS
            tokens = 0
            while waiting.taken < len(waiting.ids) and tokens < turn:
                tokens += len(waiting.ids[waiting.taken])
                waiting.taken += 1
            room -= tokens
            self._metrics.queued_texts -= waiting.taken - start
            batch.append((waiting, start, waiting.taken))
            if waiting.taken < len(waiting.ids):
                self._queue.append(waiting)
            if not self._together:
                break
        return batch
