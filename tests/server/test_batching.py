"""The queue before the model, without a server around it."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk.server import batching
from gte_sdk.server.batching import MicroBatcher
from gte_sdk.server.metrics import Metrics


def embed_tokens(ids: list[list[int]]) -> NDArray[np.float32]:
    """A row of one number for each text: its first id."""
    return np.array([[row[0]] for row in ids], np.float32)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_caller_that_comes_back_at_once_is_served(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """It wakes while the worker that answered it is ending, and must not take it for one that still serves."""
    monkeypatch.setattr(batching, "LANES", lanes)

    async def caller(batcher: MicroBatcher, number: int) -> list[float]:
        return [float((await batcher.embed([[number]]))[0, 0]) for _ in range(20)]

    async def callers() -> list[list[float]]:
        batcher = MicroBatcher(embed_tokens, 1, 100, Metrics("tiny", "sha256:0", "0"))
        try:
            return await asyncio.wait_for(asyncio.gather(*(caller(batcher, number) for number in range(lanes))), 10)
        finally:
            batcher.close()

    assert asyncio.run(callers()) == [[float(number)] * 20 for number in range(lanes)]
