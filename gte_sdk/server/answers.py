"""The bytes of an answer, made piece by piece as the client reads them: a large one is never in memory as a whole."""

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# About what one write takes, and what is made on the event loop at a time: below 2 ms of work.
_BLOCK_BYTES = 65_536
# A text is written in pieces of so many characters.
_PIECE_CHARACTERS = 16_384


def embeddings_json(vectors_ND: NDArray[np.float32], as_base64: bool, model: str, token_count: int) -> Iterator[str]:
    """OpenAI's list of embeddings."""
    write = _base64 if as_base64 else _decimals
    yield '{"object":"list","data":['
    for index, vector_D in enumerate(vectors_ND):
        comma = "," if index else ""
        yield f'{comma}{{"object":"embedding","index":{index},"embedding":{write(vector_D)}}}'
    yield f'],"model":{json.dumps(model)},{_usage(token_count)}}}'


def ranking_json(
    scores: Sequence[float], indices: Sequence[int], documents: Sequence[str], model: str, token_count: int
) -> Iterator[str]:
    """The ranking, best first. documents: all of them, or none where they are not to be returned."""
    yield f'{{"object":"list","model":{json.dumps(model)},"results":['
    for place, (score, index) in enumerate(zip(scores, indices, strict=True)):
        comma = "," if place else ""
        yield f'{comma}{{"index":{index},"relevance_score":{score!r}'
        if documents:
            yield ',"document":{"text":"'
            text = documents[index]
            for start in range(0, len(text), _PIECE_CHARACTERS):
                yield json.dumps(text[start : start + _PIECE_CHARACTERS])[1:-1]
            yield '"}'
        yield "}"
    yield f"],{_usage(token_count)}}}"


def streamed(pieces: Iterable[str], headers: Mapping[str, str]) -> "ASGIApp":
    """An answer of these pieces. One that is small, or for a client of HTTP/1.0, is sent as a whole."""

    async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
        blocks = _blocks(pieces)
        block, next_block = next(blocks), next(blocks, None)
        if scope["http_version"] == "1.0":
            block, next_block = b"".join(filter(None, (block, next_block, *blocks))), None
        head: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        head += [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        if next_block is None:
            head.append((b"content-length", b"%d" % len(block)))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        while next_block is not None:
            await send({"type": "http.response.body", "body": block, "more_body": True})
            await asyncio.sleep(0)  # others are served in between, however fast this client reads
            block, next_block = next_block, next(blocks, None)
        await send({"type": "http.response.body", "body": block})

    return answer


def _blocks(pieces: Iterable[str]) -> Iterator[bytes]:
    block: list[str] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= _BLOCK_BYTES:
            yield "".join(block).encode("ascii")
            block, size = [], 0
    yield "".join(block).encode("ascii")


def _decimals(vector_D: NDArray[np.float32]) -> str:
    """A JSON list. Nine significant digits are enough to read the same float32 back."""
    return ("[" + ",".join(["%.9g"] * len(vector_D)) + "]") % tuple(vector_D.tolist())


def _base64(vector_D: NDArray[np.float32]) -> str:
    """A JSON string: the float32 values, little-endian."""
    return f'"{base64.b64encode(vector_D.astype("<f4", copy=False).tobytes()).decode("ascii")}"'


def _usage(token_count: int) -> str:
    usage: dict[str, Any] = {"prompt_tokens": token_count, "total_tokens": token_count}
    return f'"usage":{json.dumps(usage)}'
