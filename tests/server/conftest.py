"""One live server with the bundled model for all tests that leave it as it was."""

import functools
from collections.abc import Iterator

import httpx
import pytest

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .servers import served


@pytest.fixture(autouse=True, scope="session")
def patient() -> Iterator[None]:
    """httpx gives up after 5 seconds by default, which a machine that does other things may need."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("get", "post"):
            patch.setattr(httpx, name, functools.partial(getattr(httpx, name), timeout=60))
        yield


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder(truncation="ignore")


@pytest.fixture(scope="session")
def url(embedder: Embedder) -> Iterator[str]:
    with served(embedder, Settings("gte-mini", aliases=("text-embedding-3-small",))) as address:
        yield address
