"""Which web pages may read the answers: none by default, else those of --cors-origin."""

import httpx
import pytest

from gte_sdk import Embedder, InputError
from gte_sdk.server import Settings

from .servers import gte_serve, served

BODY = {"model": "gte-mini", "input": "red"}
PAGE = "https://app.example.com"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}


def cors_headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith(("access-control", "vary"))}


def test_no_page_may_read_by_default(url: str) -> None:
    answer = httpx.post(f"{url}/v1/embeddings", json=BODY, headers={"origin": PAGE})
    assert (answer.status_code, cors_headers(answer)) == (200, {})
    answer = httpx.options(f"{url}/v1/embeddings", headers={"origin": PAGE, **ASKS})
    assert (answer.status_code, cors_headers(answer)) == (405, {})


def test_pages_of_the_named_origins_may_read() -> None:
    with gte_serve("--cors-origin", PAGE, "--cors-origin", "http://localhost:5173") as server:
        url = f"{server.url}/v1/embeddings"
        for origin in (PAGE, "http://localhost:5173"):
            for answer in (
                httpx.post(url, json=BODY, headers={"origin": origin}),
                httpx.post(url, json={}, headers={"origin": origin}),  # what is wrong with it has to be readable too
            ):
                assert answer.headers["access-control-allow-origin"] == origin
                assert "x-gte-truncated-input" in answer.headers["access-control-expose-headers"]
                assert answer.headers["vary"] == "origin"
        for origin in ("https://example.com", "http://app.example.com", f"{PAGE}:444", f"{PAGE}.evil.example", "null"):
            answer = httpx.post(url, json=BODY, headers={"origin": origin})
            assert cors_headers(answer) == {"vary": "origin"}
        assert cors_headers(httpx.post(url, json=BODY)) == {"vary": "origin"}


def test_a_preflight_needs_no_key_and_opens_nothing(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini", api_key="sesame", cors_origins=(PAGE,))) as url:
        answer = httpx.options(f"{url}/v1/embeddings", headers={"origin": PAGE, **ASKS})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert httpx.post(f"{url}/v1/embeddings", json=BODY, headers={"origin": PAGE}).status_code == 401
        assert httpx.options(f"{url}/v1/embeddings", headers={"origin": PAGE}).status_code == 401
        strange = [(name, value) for name, value in {"origin": PAGE, **ASKS}.items() if "headers" not in name]
        pairs = [(name.encode(), value.encode()) for name, value in strange]
        pairs.append((b"access-control-request-headers", b"a\x80b"))
        answer = httpx.options(f"{url}/v1/embeddings", headers=pairs)
        assert "access-control-allow-headers" not in answer.headers


def test_any_page_may_read_where_that_is_asked_for_but_only_of_this_machine(embedder: Embedder) -> None:
    with served(embedder, Settings("gte-mini", cors_origins=("*",))) as url:
        answer = httpx.post(f"{url}/v1/embeddings", json=BODY, headers={"origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == "*"
        answer = httpx.options(f"{url}/v1/embeddings", headers={"origin": PAGE, "host": "evil.example", **ASKS})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin", ["example.com", "https://example.com/", "https://example.com/a", "https://a b", "", "null"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(InputError, match="not the origin of a web page"):
        Settings("gte-mini", cors_origins=(origin,))
