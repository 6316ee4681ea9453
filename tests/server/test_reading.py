"""How bodies are read: as json.loads reads them, whatever their size, and in turns that nobody can lose."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gte_sdk.server.budget import Turns
from gte_sdk.server.http import json_body
from gte_sdk.server.http.refusal import Refusal

CHARACTERS = st.characters() | st.sampled_from('"\\\n\x00\ud83d\ude00\U0001f600é中u/')
TEXTS = st.text(CHARACTERS, max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every body were large, and texts were cut after a few bytes."""
    monkeypatch.setattr(json_body, "SMALL_BYTES", 0)
    monkeypatch.setattr(json_body, "PIECE_BYTES", 8)


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_a_large_body_is_read_as_json_loads_reads_it(value: Any, escaped: bool, indent: Any) -> None:
    encoded = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    body = bytearray(encoded)
    assert json_body.read_json(body, 1000) == json.loads(encoded.decode("utf-8", "surrogatepass"))
    assert not body


@given(st.lists(st.sampled_from([b'"', b"\\", b'\\"', b"[", b"]", b"{", b"}", b",", b"1", b"a", b"\n", b"\xff"])))
def test_what_is_no_json_to_json_loads_is_none_here(pieces: list[bytes]) -> None:
    encoded = b"".join(pieces)
    try:
        expected = json.loads(encoded.decode("utf-8", "surrogatepass"))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            json_body.read_json(bytearray(encoded), 1000)
    else:
        assert json_body.read_json(bytearray(encoded), 1000) == expected


@pytest.mark.parametrize(
    "body", [b'["a"' + b',"a"' * 200 + b"]", b"[[]" + b",[]" * 200 + b"]", b"[" + b"1," * (2**19 + 200) + b"1]"]
)
def test_too_many_values_are_refused_before_they_are_made(body: bytes) -> None:
    with pytest.raises(Refusal, match="has more than"):
        json_body.read_json(bytearray(body), 10)


@pytest.mark.parametrize("when", ["while it waits", "as it comes in", "inside"])
def test_who_is_cancelled_gives_the_turn_on(when: str) -> None:
    async def play() -> list[str]:
        turns, came = Turns(10), list[str]()

        async def enter(name: str, count: int, wait: Callable[[], Any]) -> None:
            async with turns.turn(count):
                came.append(name)
                await wait()

        leave = asyncio.Event()
        first = asyncio.create_task(enter("first", 10, leave.wait))
        await asyncio.sleep(0)
        second = asyncio.create_task(enter("second", 10, asyncio.Event().wait))
        third = asyncio.create_task(enter("third", 10, lambda: asyncio.sleep(0)))
        await asyncio.sleep(0)
        if when == "while it waits":
            second.cancel()
        leave.set()
        await first
        if when == "as it comes in":
            second.cancel()
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait_for(third, 60)
        assert turns.inside == 0
        return came

    came = asyncio.run(play())
    assert (came[0], came[-1]) == ("first", "third")


def test_who_fits_does_not_wait_for_one_that_does_not() -> None:
    async def play() -> None:
        turns = Turns(10)
        async with turns.turn(8):
            large = asyncio.create_task(turns.turn(5).__aenter__())
            await asyncio.sleep(0)
            async with turns.turn(2):
                assert not large.done()
            async with turns.turn(2) as turn:
                turn.change(1)
        assert (await large).count == 5
        async with Turns(10).turn(1000):  # alone
            pass

    asyncio.run(play())


def test_a_large_one_is_passed_by_some_and_not_for_ever() -> None:
    """Small ones come without a pause, each before the last one left; the bound on bytes is 10."""

    async def play() -> list[str]:
        turns, came = Turns(10), list[str]()
        leave: list[asyncio.Event] = []

        async def enter(name: str, count: int) -> None:
            stay = asyncio.Event()
            async with turns.turn(count):
                came.append(name)
                leave.append(stay)
                await stay.wait()

        tasks = [asyncio.create_task(enter("first", 4))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(enter("large", 9)))
        for number in range(20):
            tasks.append(asyncio.create_task(enter(f"small {number}", 4)))
            await asyncio.sleep(0)
            if leave:
                leave.pop(0).set()
            await asyncio.sleep(0)
        while not all(task.done() for task in tasks):
            for stay in leave:
                stay.set()
            await asyncio.sleep(0)
        assert turns.inside == 0
        return came

    came = asyncio.run(play())
    assert came[:5] == ["first", "small 0", "small 1", "small 2", "large"]
    assert len(came) == 22
