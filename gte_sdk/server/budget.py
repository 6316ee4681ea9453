"""What requests may take of the memory: bodies are refused when it is full, what they unfold to waits for its turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gte_sdk.server.http.refusal import Refusal
from gte_sdk.server.metrics import Metrics


class Hold:
    """The bytes that one request keeps: those of its body, then those of its answer until it is sent."""

    def __init__(self, metrics: Metrics, most: int) -> None:
        self._metrics = metrics
        self._most = most
        self._bytes = 0

    def add(self, count: int) -> None:
        """Raises Refusal 429 where all requests together would keep too much."""
        if self._metrics.held_bytes + count > self._most:
            message = f"requests of {self._metrics.held_bytes} bytes are in progress; try again later"
            raise Refusal(429, message, code="bodies_full", headers={"Retry-After": "1"})
        self.change(self._bytes + count)

    def change(self, count: int) -> None:
        """From now on the request keeps `count` bytes; 0 gives them back."""
        self._metrics.held_bytes += count - self._bytes
        self._bytes = count


class Turn:
    """What one request has of a number of bytes that all share."""

    def __init__(self, turns: "Turns", count: int) -> None:
        self._turns = turns
        self.count = count
        self.passed_by = 0
        """The bytes of those that came in while this one was the first to wait."""
        self.arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def change(self, count: int) -> None:
        """From now on the request has `count` bytes."""
        self._turns.inside += count - self.count
        self.count = count
        self._turns.let_in()


class Turns:
    """Lets in at most `most` bytes at a time, in order of arrival; one that is larger goes alone.

    Who fits passes by one that does not, but only until `most` bytes have passed it. Then nobody comes in before it,
    so that many small requests never keep a large one waiting for ever.
    """

    def __init__(self, most: int) -> None:
        self.inside = 0
        self._most = most
        self._waiting: list[Turn] = []

    @contextlib.asynccontextmanager
    async def turn(self, count: int) -> AsyncIterator[Turn]:
        """Waits until `count` bytes are free, and takes them for as long as the block runs."""
        turn = Turn(self, count)
        self._waiting.append(turn)
        self.let_in()
        try:
            await turn.arrival
            yield turn
        finally:
            if turn in self._waiting:  # cancelled before it came
                self._waiting.remove(turn)
            else:
                turn.change(0)

    def let_in(self) -> None:
        first: Turn | None = None  # of those that stay outside
        for turn in tuple(self._waiting):
            if self.inside and self.inside + turn.count > self._most:
                first = first or turn
            elif first is None or first.passed_by < self._most:
                self._waiting.remove(turn)
                self.inside += turn.count
                if first is not None:
                    first.passed_by += turn.count
                if not turn.arrival.done():
                    turn.arrival.set_result(None)
