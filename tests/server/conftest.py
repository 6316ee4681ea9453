"""One live server with the bundled model for all tests that leave it as it was."""

from collections.abc import Iterator

import pytest

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .servers import served


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder(truncation="ignore")


@pytest.fixture(scope="session")
def url(embedder: Embedder) -> Iterator[str]:
    with served(embedder, Settings("gte-mini", aliases=("text-embedding-3-small",))) as address:
        yield address
