"""Which web pages may read the answers, none by default: https://fetch.spec.whatwg.org/#http-cors-protocol."""

import re
from collections.abc import Mapping, Sequence

# What a page may read besides the body. What it may send is not restricted: the key decides that, and OpenAI's client
# for browsers adds headers of its own.
_EXPOSED = b"x-gte-truncated-input, x-gte-truncated-query, x-gte-truncated-documents, retry-after"
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9_-]+(?: *, *[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/?#@,]+")

Headers = list[tuple[bytes, bytes]]


def is_origin(origin: str) -> bool:
    """Whether a text is what browsers send as Origin (scheme, host, and a port that is not the default), or "*"."""
    return origin.isascii() and _ORIGIN.fullmatch(origin) is not None


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks, without a key, if it may send a request."""
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def headers_for(headers: Mapping[bytes, bytes], allowed: Sequence[str]) -> Headers:
    """What an answer to a request with these headers carries; nothing where no origin is allowed."""
    if not allowed:
        return []
    origin = headers.get(b"origin", b"")
    vary = (b"vary", b"origin")
    if "*" in allowed:
        return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
    if origin.decode("latin-1") not in allowed:
        return [vary]  # a cache must not hand this answer to a page that may read it
    return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), vary]


def preflight_headers(headers: Mapping[bytes, bytes]) -> Headers:
    """What the answer to a preflight carries besides."""
    wanted = headers.get(b"access-control-request-headers", b"")
    answer = [(b"access-control-allow-methods", b"GET, POST"), (b"access-control-max-age", b"600")]
    return [*answer, (b"access-control-allow-headers", wanted)] if _HEADER_NAMES.fullmatch(wanted) else answer
