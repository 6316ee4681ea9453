"""asyncio callers that wait at the same time share one call: the texts of all of them in one batch, off the event loop.

No timer delays the first caller: it runs at once, and whoever comes while it runs is the next batch.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

EmbedTexts = Callable[[list[str]], NDArray[np.float32]]


class _Waiting(NamedTuple):
    texts: list[str]
    vectors: "asyncio.Future[NDArray[np.float32]]"


class MicroBatches:
    """Joins the calls of one event loop; each loop that uses it has its own queue."""

    def __init__(self, embed: EmbedTexts) -> None:
        self._embed = embed
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Waiting]] = WeakKeyDictionary()
        self._workers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    async def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, dim) rows of checked texts. A caller that is cancelled leaves the others alone."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(texts, loop.create_future())
        self._queues.setdefault(loop, []).append(waiting)
        worker = self._workers.get(loop)
        if worker is None or worker.done():
            self._workers[loop] = loop.create_task(self._work(loop))
        return await waiting.vectors

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        queue = self._queues[loop]
        while queue:
            batch = [waiting for waiting in queue if not waiting.vectors.done()]
            queue.clear()
            if not await self._answer(loop, batch) and len(batch) > 1:
                for waiting in batch:  # one of them is at fault, and the others must not hear of it
                    await self._answer(loop, [waiting])

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> bool:
        """Gives every caller of the batch its rows, or a caller alone its error; False where the batch failed."""
        texts = [text for waiting in batch for text in waiting.texts]
        try:
            vectors_ND = await loop.run_in_executor(None, self._embed, texts)
        except Exception as error:
            if len(batch) == 1 and not batch[0].vectors.done():
                batch[0].vectors.set_exception(error)
            return False
        start = 0
        for waiting in batch:
            end = start + len(waiting.texts)
            if not waiting.vectors.done():
                # A copy: a caller that keeps one row must not keep everybody's alive.
                waiting.vectors.set_result(vectors_ND[start:end].copy())
            start = end
        return True
