"""The routes that run the model: /v1/embeddings and /rerank, from a checked request to the bytes of its answer.

Small requests are tokenized and written on the event loop, where that takes less time than a change of threads; large
ones in a thread, so that they hold nobody up.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.micro_batches import MicroBatcher, run_here_or_in_thread
from gte_sdk.runtime.engine import cut_rows
from gte_sdk.runtime.tokens import TokenizedTexts
from gte_sdk.search.top_k import top_k_cosine
from gte_sdk.server.gate import read_body
from gte_sdk.server.metrics import Metrics
from gte_sdk.server.refusal import Refusal, invalid
from gte_sdk.server.requests import parse_embeddings, parse_rerank
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

# Bodies up to this size are parsed and tokenized, and so many vectors written, on the event loop: below 2 ms of work.
_INLINE_BYTES = 8192
_INLINE_VECTORS = 8
# A client is watched for its going away once it has waited so long; most are answered before.
_WATCH_AFTER_SECONDS = 0.5


class Service:
    """One model behind one queue."""

    def __init__(self, embedder: Embedder, settings: Settings, metrics: Metrics) -> None:
        self._embedder = embedder
        self._settings = settings
        self._metrics = metrics
        self._special_tokens = embedder.special_tokens
        self._vocabulary_size = embedder.vocabulary_size
        self._batcher = MicroBatcher(embedder.embed_tokens, embedder.dim, settings.micro_batching, metrics.count_batch)

    @property
    def queued_texts(self) -> int:
        """Texts that wait for the model."""
        return self._batcher.queued_texts

    async def embeddings(self, request: "Request") -> "Response":
        """POST /v1/embeddings"""
        async with self._body(request) as body:
            inline = len(body) <= _INLINE_BYTES
            parsed = await run_here_or_in_thread(
                inline, lambda: parse_embeddings(body, self._settings, self._embedder.dims)
            )
            if parsed.token_ids:
                tokenized = self._framed(parsed.token_ids)
            else:
                tokenized = await run_here_or_in_thread(inline, lambda: self._tokenized(parsed.texts, parsed.kind))
            headers = self._truncation_headers(tokenized.left_out, "input")
            vectors_ND = await self._embedded(tokenized.ids, request)
            if parsed.dim < self._embedder.dim:
                vectors_ND = cut_rows(vectors_ND, parsed.dim)
            token_count = sum(map(len, tokenized.ids))
            write = base64_rows if parsed.as_base64 else float_rows
            content = await run_here_or_in_thread(
                len(vectors_ND) <= _INLINE_VECTORS,
                lambda: embeddings_json(write(vectors_ND), self._settings.model_name, token_count),
            )
            return _json_response(content, headers)

    async def rerank(self, request: "Request") -> "Response":
        """POST /rerank: documents by the cosine of their vectors to the query's."""
        async with self._body(request) as body:
            inline = len(body) <= _INLINE_BYTES
            parsed = await run_here_or_in_thread(inline, lambda: parse_rerank(body, self._settings))
            query = await run_here_or_in_thread(inline, lambda: self._tokenized([parsed.query], "query"))
            documents = await run_here_or_in_thread(inline, lambda: self._tokenized(parsed.documents, "document"))
            headers = self._truncation_headers(query.left_out, "query")
            headers |= self._truncation_headers(documents.left_out, "documents")
            vectors_ND = await self._embedded(query.ids + documents.ids, request)
            scores, indices = top_k_cosine(vectors_ND[:1], vectors_ND[1:], parsed.top_n)
            results: list[dict[str, Any]] = []
            for index, score in zip(indices[0].tolist(), scores[0].tolist(), strict=True):
                result: dict[str, Any] = {"index": index, "relevance_score": score}
                if parsed.with_documents:
                    result["document"] = {"text": parsed.documents[index]}
                results.append(result)
            token_count = sum(map(len, query.ids + documents.ids))
            answer = {"object": "list", "model": self._settings.model_name, "results": results}
            return _json_response(json.dumps({**answer, "usage": _usage(token_count)}).encode("ascii"), headers)

    @contextlib.asynccontextmanager
    async def _body(self, request: "Request") -> AsyncIterator[bytes]:
        """The request's body, whose bytes count as held until its answer is made."""
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            held += count
            self._metrics.held_bytes += count

        try:
            yield await read_body(request, self._settings, self._metrics, hold)
        finally:
            self._metrics.held_bytes -= held

    def _tokenized(self, texts: list[str], kind: str) -> TokenizedTexts:
        return self._embedder.tokenize(texts, prompt=self._embedder.prompt_for(kind))

    def _framed(self, rows: list[list[int]]) -> TokenizedTexts:
        """Ids of the model's own tokenizer with the special tokens around them, cut like texts."""
        before, after = self._special_tokens
        room = self._embedder.max_tokens - len(before) - len(after)
        ids, left_out = [], []
        for index, row in enumerate(rows):
            if min(row) < 0 or max(row) >= self._vocabulary_size:
                raise invalid(
                    f"input {index} has the token ids {min(row)} to {max(row)}, and {self._settings.model_name} knows "
                    f"0 to {self._vocabulary_size - 1}; these are another model's tokens: send the text itself "
                    "(LangChain: check_embedding_ctx_length=False)",
                    "input",
                    "unknown_token",
                )
            if (
                len(row) >= len(before) + len(after)
                and row[: len(before)] == before
                and row[len(row) - len(after) :] == after
            ):
                row = row[len(before) : len(row) - len(after)]
            ids.append([*before, *row[:room], *after])
            left_out.append(max(0, len(row) - room))
        return TokenizedTexts(ids, left_out)

    def _truncation_headers(self, left_out: list[int], param: str) -> dict[str, str]:
        cut = [index for index, count in enumerate(left_out) if count]
        if not cut:
            return {}
        self._metrics.truncated_texts += len(cut)
        if not self._settings.truncate:
            raise invalid(
                f"text {cut[0]} of {param} has {left_out[cut[0]]} tokens more than the {self._embedder.max_tokens} "
                "that the model reads; send it in pieces",
                param,
                "too_long",
            )
        return {f"x-gte-truncated-{param}": ",".join(map(str, cut[:100])) + (",..." if len(cut) > 100 else "")}

    async def _embedded(self, ids: list[list[int]], request: "Request") -> NDArray[np.float32]:
        """The vectors; texts of a client that went away give their place in the queue back."""
        most, queued = self._settings.max_queued_texts, self.queued_texts
        if queued and queued + len(ids) > most:  # an empty queue has room for any request
            message = f"{queued} texts are waiting and {len(ids)} more exceed {most}; try again later"
            raise Refusal(429, message, code="queue_full", headers={"Retry-After": "1"})
        answer = self._batcher.submit(ids)
        try:
            await asyncio.wait((answer,), timeout=_WATCH_AFTER_SECONDS)
            if not answer.done():
                await _answered_or_gone(answer, request)
            vectors_ND = answer.result()
        finally:
            answer.cancel()
        if not np.isfinite(vectors_ND).all():
            raise RuntimeError(f"the model gave NaN or infinity for {len(ids)} texts")
        return vectors_ND


async def _answered_or_gone(answer: "asyncio.Future[NDArray[np.float32]]", request: "Request") -> None:
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not answer.done():
        raise Refusal(499, "the client closed the connection", code="client_gone")


def float_rows(vectors_ND: NDArray[np.float32]) -> list[str]:
    """Each row as a JSON list. Nine significant digits are enough to read the same float32 back."""
    row_format = "[" + ",".join(["%.9g"] * vectors_ND.shape[1]) + "]"
    return [row_format % tuple(row) for row in vectors_ND.tolist()]


def base64_rows(vectors_ND: NDArray[np.float32]) -> list[str]:
    """Each row as a JSON string: base64 of its float32 values, little-endian."""
    return [f'"{base64.b64encode(row.tobytes()).decode("ascii")}"' for row in vectors_ND.astype("<f4", copy=False)]


def embeddings_json(rows: list[str], model: str, token_count: int) -> bytes:
    data = ",".join(f'{{"object":"embedding","index":{index},"embedding":{row}}}' for index, row in enumerate(rows))
    tail = f'"model":{json.dumps(model)},"usage":{json.dumps(_usage(token_count))}'
    return f'{{"object":"list","data":[{data}],{tail}}}'.encode("ascii")


def _usage(token_count: int) -> dict[str, int]:
    return {"prompt_tokens": token_count, "total_tokens": token_count}


def _json_response(content: bytes, headers: dict[str, str]) -> "Response":
    from starlette.responses import Response

    return Response(content, media_type="application/json", headers=headers)
