"""No adapter's test may reach the network, and no framework may try to report home: what is tested works offline."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gte_sdk import Embedder

from ..sdk.tiny_models import write_tiny_model

# Read by the frameworks when they are imported, which is after this file.
os.environ.update(
    {
        "ANONYMIZED_TELEMETRY": "False",
        "DO_NOT_TRACK": "1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "LANGCHAIN_TRACING_V2": "false",
        "LANGSMITH_TRACING": "false",
    }
)

# Ray and Spark are processes that talk to each other; the others have nobody to talk to.
_TALKING = {"test_beyond_one_machine", "test_ray", "test_spark"}
_guarding = False
_refused: list[str] = []


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guarding or not event.startswith("socket."):
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] in ("127.0.0.1", "::1"):
        return
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        _refused.append(f"{event}{arguments[1:] if event == 'socket.connect' else arguments}")
        raise OSError(f"the network is off in these tests: {event}")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def nothing_asks_the_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """A framework may swallow the error of its own thread, so the attempt counts too."""
    global _guarding
    _refused.clear()
    _guarding = request.path.stem not in _TALKING
    yield
    _guarding = False
    assert not _refused


@pytest.fixture(scope="session")
def gte_mini() -> Embedder:
    return Embedder()


@pytest.fixture(scope="session")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that puts other words before queries than before documents."""
    return write_tiny_model(
        tmp_path_factory.mktemp("prompted"), prompts={"query": "query : ", "document": "document : "}
    )


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that leads psycopg to a PostgreSQL with pgvector and empty databases `reviews` and `notes`."""
    server = pytest.importorskip("pgserver", reason="pgserver brings PostgreSQL up to Python 3.12").get_server(
        tmp_path / "pg"
    )
    try:
        server.psql("CREATE DATABASE reviews; CREATE DATABASE notes")
        address = urlsplit(server.get_uri())
        yield {"PGHOST": parse_qs(address.query)["host"][0], "PGUSER": address.username or ""}
    finally:
        server.cleanup()
