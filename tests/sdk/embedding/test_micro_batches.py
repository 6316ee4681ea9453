"""The queue before the model that asyncio callers and the server's requests share, without a model behind it."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk.embedding import micro_batches
from gte_sdk.embedding.micro_batches import BATCH_TOKENS, LANES, TURN_TOKENS, MicroBatcher


def first_ids(ids: list[list[int]]) -> NDArray[np.float32]:
    """A row of one number for each text: its first id."""
    return np.array([[row[0]] for row in ids], np.float32)


class Gate:
    """A model that waits at each batch until it is opened, and remembers what the batches held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.opened = threading.Event()

    def __call__(self, ids: list[list[int]]) -> NDArray[np.float32]:
        self.batches.append([row[0] for row in ids])
        assert self.opened.wait(60)
        return first_ids(ids)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_caller_that_comes_back_at_once_is_served(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """It wakes while the worker that answered it is ending, and must not take it for one that still serves."""
    monkeypatch.setattr(micro_batches, "LANES", lanes)

    async def caller(batcher: MicroBatcher, number: int) -> list[float]:
        return [float((await batcher.submit([[number]]))[0, 0]) for _ in range(20)]

    async def callers() -> list[list[float]]:
        batcher = MicroBatcher(first_ids, 1)
        return await asyncio.wait_for(asyncio.gather(*(caller(batcher, number) for number in range(lanes))), 60)

    assert asyncio.run(callers()) == [[float(number)] * 20 for number in range(lanes)]


def test_texts_of_many_batches_come_back_in_their_order() -> None:
    lengths = np.random.default_rng(0).integers(1, TURN_TOKENS, 200).tolist()
    batches: list[tuple[int, int]] = []

    async def caller() -> NDArray[np.float32]:
        batcher = MicroBatcher(first_ids, 1, count_batch=lambda texts, tokens: batches.append((texts, tokens)))
        vectors_ND = await batcher.submit([[number] * length for number, length in enumerate(lengths)])
        assert batcher.queued_texts == 0
        return vectors_ND

    np.testing.assert_array_equal(asyncio.run(caller())[:, 0], np.arange(200))
    assert sum(texts for texts, _ in batches) == 200
    assert sum(tokens for _, tokens in batches) == sum(lengths)
    assert max(tokens for _, tokens in batches) < BATCH_TOKENS + TURN_TOKENS


@pytest.mark.parametrize(("together", "batches"), [(True, [[0], [1], [2, 3, 4]]), (False, [[0], [1], [2], [3], [4]])])
def test_who_waits_at_the_same_time_is_embedded_together(together: bool, batches: list[list[int]]) -> None:
    model = Gate()

    async def callers() -> None:
        batcher = MicroBatcher(model, 1, together)
        answers = []
        for number in range(5):
            answers.append(batcher.submit([[number] * 3]))
            await asyncio.sleep(0)
        assert batcher.queued_texts == 3  # one is in each lane
        model.opened.set()
        await asyncio.gather(*answers)

    asyncio.run(callers())
    assert sorted(model.batches) == batches


def test_a_single_text_does_not_wait_for_a_large_request() -> None:
    """Callers take turns of TURN_TOKENS tokens: it is in the next batch, whatever the large request still has."""
    model = Gate()

    async def callers() -> None:
        batcher = MicroBatcher(model, 1)
        large = batcher.submit([[number] * TURN_TOKENS for number in range(40)])
        await asyncio.sleep(0)
        single = batcher.submit([[99]])
        await asyncio.sleep(0)
        assert batcher.queued_texts > 20  # most of the large request is still to come
        model.opened.set()
        await asyncio.gather(large, single)

    asyncio.run(callers())
    assert sum(map(len, model.batches)) == 41
    (turn,) = [number for number, batch in enumerate(model.batches) if 99 in batch]
    assert turn <= LANES  # right after the batch that each lane had begun


def test_a_cancelled_caller_gives_its_place_back() -> None:
    model = Gate()

    async def callers() -> float:
        batcher = MicroBatcher(model, 1)
        running = []
        for number in range(LANES):
            running.append(batcher.submit([[number]]))
            await asyncio.sleep(0)
        gone, kept = batcher.submit([[7]] * 5), batcher.submit([[8]])
        assert batcher.queued_texts == 6
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.queued_texts == 1  # and the batches that run have not ended
        model.opened.set()
        await asyncio.gather(*running)
        vector_1D = await kept
        assert batcher.queued_texts == 0
        return float(vector_1D[0, 0])

    assert asyncio.run(callers()) == 8
    assert [7] * 5 not in model.batches


def test_an_error_of_the_model_reaches_who_was_in_its_batch_and_nobody_after() -> None:
    calls = 0

    def model(ids: list[list[int]]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a fault")
        return first_ids(ids)

    async def callers() -> list[Any]:
        batcher = MicroBatcher(model, 1)
        first = await asyncio.gather(batcher.submit([[1]]), return_exceptions=True)
        return [*first, float((await batcher.submit([[2]]))[0, 0])]

    failed, served = asyncio.run(callers())
    assert isinstance(failed, RuntimeError)
    assert served == 2


def test_no_texts_are_no_batch() -> None:
    async def caller() -> NDArray[np.float32]:
        return await MicroBatcher(first_ids, 3).submit([])

    assert asyncio.run(caller()).shape == (0, 3)
