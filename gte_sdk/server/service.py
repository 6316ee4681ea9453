"""The routes that run the model: /v1/embeddings and /rerank, from a body to its answer, in bounded memory.

Small requests are parsed and tokenized on the event loop, where that takes less time than a change of threads. What is
larger goes to a thread, so that it holds nobody up, and UNFOLDED_BYTES at a time: the others wait as the bytes that
they came in. Texts are tokenized and embedded a window at a time, and the answer is made as it is read.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.micro_batches import MicroBatcher
from gte_sdk.runtime.engine import cut_rows
from gte_sdk.runtime.tokens import TokenizedTexts
from gte_sdk.search.top_k import top_k_cosine
from gte_sdk.server.answers import embeddings_json, ranking_json, streamed
from gte_sdk.server.budget import Hold, Turn, Turns
from gte_sdk.server.http.body import client_gone, read_body
from gte_sdk.server.http.gate import HOLD
from gte_sdk.server.http.refusal import Refusal, invalid
from gte_sdk.server.memory import give_back_memory
from gte_sdk.server.metrics import Metrics
from gte_sdk.server.requests import EmbeddingsRequest, RerankRequest, parse_embeddings, parse_rerank
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

# Bodies up to this size are parsed and tokenized on the event loop: below 2 ms of work.
_INLINE_BYTES = 8192
# What bodies become when they are parsed, of all requests together: texts of up to four times their bytes, token ids of
# up to ten times. That is one body of 8 MiB, or nine of 1 MiB, until it is known how large they really are.
UNFOLDED_BYTES = 96 * 2**20
_UNFOLDING = 10
_ID_BYTES = 40
# Threads that parse and tokenize, beside those that run the model.
_READERS = 4
# Texts are tokenized together up to so many characters: below half a second of the tokenizer, 10 MB of ids.
_WINDOW_CHARACTERS = 262_144
# After a body of this size was worked on, the memory that is free goes back to the system, a little later.
_GIVE_BACK_BYTES = 2**18
_GIVE_BACK_SECONDS = 1.0
# A client is watched for its going away once it has waited so long; most are answered before.
_WATCH_AFTER_SECONDS = 0.5

Result = TypeVar("Result")
Tokenize = Callable[[slice], TokenizedTexts]


class Embedded(NamedTuple):
    vectors: NDArray[np.float32]
    """(n, dim)"""
    left_out: list[int]
    """How many tokens of each text the model did not read."""
    token_count: int


class _Model(NamedTuple):
    name: str
    """In answers, whatever alias a request has."""
    embedder: Embedder
    batcher: MicroBatcher


class Service:
    """The models, each behind a queue of its own. What is bounded is bounded for all of them together."""

    def __init__(self, embedders: Mapping[str, Embedder], settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, _Model] = {}
        for name, embedder in embedders.items():
            count = partial(metrics.count_batch, name)
            batcher = MicroBatcher(embedder.embed_tokens, embedder.dim, settings.micro_batching, count)
            self._models[name] = _Model(name, embedder, batcher)
        self._queues = [model.batcher for model in self._models.values()]
        self._models |= dict.fromkeys(settings.aliases, self._models[settings.model_name])
        self._dims_of = {name: model.embedder.dims for name, model in self._models.items()}
        self._readers = ThreadPoolExecutor(_READERS, "gte-reader")
        self._gives_back = False
        self._turns = Turns(UNFOLDED_BYTES)
        self._not_yet_queued = 0

    @property
    def queued_texts(self) -> int:
        """Texts that wait for the model."""
        return sum(queue.queued_texts for queue in self._queues) + self._not_yet_queued

    async def embeddings(self, request: "Request") -> "ASGIApp":
        """POST /v1/embeddings"""
        body, hold = await self._read(request)
        return await _unless_gone(request, self._embeddings(body, hold))

    async def rerank(self, request: "Request") -> "ASGIApp":
        """POST /rerank: documents by the cosine of their vectors to the query's."""
        body, hold = await self._read(request)
        return await _unless_gone(request, self._rerank(body, hold))

    async def _read(self, request: "Request") -> tuple[bytearray, Hold]:
        hold: Hold = request.scope[HOLD]
        return await read_body(request, self._settings, hold), hold

    async def _embeddings(self, body: bytearray, hold: Hold) -> "ASGIApp":
        async with self._unfolding(len(body), hold) as turn:
            parsed = await self._run(turn, lambda: parse_embeddings(body, self._settings, self._dims_of))
            model = self._models[parsed.model]
            if turn is not None:
                turn.change(sum(map(sys.getsizeof, parsed.texts)) + _ID_BYTES * sum(map(len, parsed.token_ids)))
            if parsed.token_ids:
                sizes, tokenize = list(map(len, parsed.token_ids)), _framed(model, parsed)
            else:
                sizes, tokenize = list(map(len, parsed.texts)), _tokenized(model, parsed.texts, parsed.kind)
            embedded = await self._embedded(model, sizes, tokenize, turn)
            headers = self._truncation_headers(model, embedded.left_out, "input")
            vectors_ND = embedded.vectors
            if parsed.dim < model.embedder.dim:
                vectors_ND = cut_rows(vectors_ND, parsed.dim)
            hold.change(vectors_ND.nbytes)
        return streamed(embeddings_json(vectors_ND, parsed.as_base64, model.name, embedded.token_count), headers)

    async def _rerank(self, body: bytearray, hold: Hold) -> "ASGIApp":
        async with self._unfolding(len(body), hold) as turn:
            parsed = await self._run(turn, lambda: parse_rerank(body, self._settings, list(self._models)))
            model = self._models[parsed.model]
            if turn is not None:
                turn.change(sum(map(sys.getsizeof, (parsed.query, *parsed.documents))))
            sizes = list(map(len, (parsed.query, *parsed.documents)))
            embedded = await self._embedded(model, sizes, _tokenized_ranking(model, parsed), turn)
            headers = self._truncation_headers(model, embedded.left_out[:1], "query")
            headers |= self._truncation_headers(model, embedded.left_out[1:], "documents")
            vectors_ND = embedded.vectors
            scores, indices = top_k_cosine(vectors_ND[:1], vectors_ND[1:], parsed.top_n)
            documents = parsed.documents if parsed.with_documents else []
            hold.change(scores.nbytes + indices.nbytes + 4 * sum(map(len, documents)))
        pieces = ranking_json(scores[0].tolist(), indices[0].tolist(), documents, model.name, embedded.token_count)
        return streamed(pieces, headers)

    @contextlib.asynccontextmanager
    async def _unfolding(self, size: int, hold: Hold) -> AsyncIterator[Turn | None]:
        """A turn to parse a body of this size and to embed what is in it. None: it is so small that it needs none."""
        if size <= _INLINE_BYTES:
            yield None
            return
        async with self._turns.turn(size * _UNFOLDING) as turn:
            hold.change(0)
            try:
                yield turn
            finally:
                if size >= _GIVE_BACK_BYTES and not self._gives_back:
                    self._gives_back = True
                    asyncio.get_running_loop().call_later(_GIVE_BACK_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._gives_back = False
        self._readers.submit(give_back_memory)

    async def _run(self, turn: Turn | None, work: Callable[[], Result]) -> Result:
        """What `work` returns: of a request without a turn here, of a larger one in a thread."""
        if turn is None:
            return work()

        def without_frames() -> Result | Refusal:
            try:
                return work()
            except Refusal as refusal:  # whose frames would keep what was read so far, until cycles are collected
                return refusal.with_traceback(None)

        result = await asyncio.get_running_loop().run_in_executor(self._readers, without_frames)
        if isinstance(result, Refusal):
            raise result
        return result

    def _truncation_headers(self, model: _Model, left_out: list[int], param: str) -> dict[str, str]:
        cut = [index for index, count in enumerate(left_out) if count]
        if not cut:
            return {}
        self._metrics.truncated_texts += len(cut)
        if not self._settings.truncate:
            raise invalid(
                f"text {cut[0]} of {param} has more tokens than the {model.embedder.max_tokens} that the model reads, "
                f"at least {left_out[cut[0]]} too many; send it in pieces",
                param,
                "too_long",
            )
        return {f"x-gte-truncated-{param}": ",".join(map(str, cut[:100])) + (",..." if len(cut) > 100 else "")}

    async def _embedded(self, model: _Model, sizes: Sequence[int], tokenize: Tokenize, turn: Turn | None) -> Embedded:
        """The vectors of inputs with so many characters or ids; who is cancelled gives the place in the queue back."""
        waiting, queued, most = len(sizes), self.queued_texts, self._settings.max_queued_texts
        if queued and queued + waiting > most:  # an empty queue has room for any request
            message = f"{queued} texts are waiting and {waiting} more exceed {most}; try again later"
            raise Refusal(429, message, code="queue_full", headers={"Retry-After": "1"})
        vectors_ND = np.empty((len(sizes), model.embedder.dim), np.float32)
        left_out: list[int] = []
        token_count = 0
        self._not_yet_queued += waiting
        try:
            for window in _windows(sizes):
                tokenized = await self._run(turn, lambda: tokenize(window))  # noqa: B023 - awaited here
                left_out += tokenized.left_out
                token_count += sum(map(len, tokenized.ids))
                answer = model.batcher.submit(tokenized.ids)
                self._not_yet_queued -= len(tokenized.ids)
                waiting -= len(tokenized.ids)
                vectors_ND[window] = await answer
        finally:
            self._not_yet_queued -= waiting
        if not np.isfinite(vectors_ND).all():
            raise RuntimeError(f"the model gave NaN or infinity for {len(vectors_ND)} texts")
        return Embedded(vectors_ND, left_out, token_count)


def _tokenized(model: _Model, texts: Sequence[str], kind: str) -> Tokenize:
    prompt = model.embedder.prompt_for(kind)
    return lambda window: model.embedder.tokenize(texts[window], prompt=prompt)


def _tokenized_ranking(model: _Model, parsed: RerankRequest) -> Tokenize:
    """The query is text 0, the documents follow."""
    query, documents = _tokenized(model, [parsed.query], "query"), _tokenized(model, parsed.documents, "document")

    def tokenized(window: slice) -> TokenizedTexts:
        first = query(window)
        ids, left_out = documents(slice(max(window.start - 1, 0), window.stop - 1))
        return TokenizedTexts(first.ids + ids, first.left_out + left_out)

    return tokenized


def _framed(model: _Model, parsed: EmbeddingsRequest) -> Tokenize:
    """Ids of the model's own tokenizer with the special tokens around them, cut like texts."""
    before, after = model.embedder.special_tokens
    room = model.embedder.max_tokens - len(before) - len(after)
    known = model.embedder.vocabulary_size

    def framed(window: slice) -> TokenizedTexts:
        ids, left_out = [], []
        for index in range(*window.indices(len(parsed.token_ids))):
            row = parsed.token_ids[index]
            if min(row) < 0 or max(row) >= known:
                least, most = (str(id)[:20] for id in (min(row), max(row)))
                raise invalid(
                    f"input {index} has the token ids {least} to {most}, and {model.name} knows 0 to {known - 1}; "
                    "these are another model's tokens: send the text itself "
                    "(LangChain: check_embedding_ctx_length=False)",
                    "input",
                    "unknown_token",
                )
            own = _without_special_tokens(row, before, after)
            ids.append([*before, *own[:room], *after])
            left_out.append(max(0, len(own) - room))
        return TokenizedTexts(ids, left_out)

    return framed


def _without_special_tokens(row: list[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
    first, last = len(before), len(row) - len(after)
    has_both = first <= last and row[:first] == list(before) and row[last:] == list(after)
    return row[first:last] if has_both else row


def _windows(sizes: Sequence[int]) -> Iterator[slice]:
    """Slices of the inputs with up to _WINDOW_CHARACTERS each, or one input that has more."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if total and total + size > _WINDOW_CHARACTERS:
            yield slice(start, index)
            start, total = index, 0
        total += size
    yield slice(start, len(sizes))


async def _unless_gone(request: "Request", work: Coroutine[None, None, Result]) -> Result:
    """What `work` gives; cancels it and raises Refusal 499 where the client goes away before."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=_WATCH_AFTER_SECONDS)
        if not task.done():
            gone = asyncio.ensure_future(request.receive())
            try:
                await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
        if not task.done():
            raise client_gone()
        return task.result()
    finally:
        task.cancel()
