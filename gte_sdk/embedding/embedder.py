"""Texts in, unit vectors out.

Texts pass through in windows. Each window is tokenized and passed to the engine, which splits it into batches and
returns the vectors in the same order. Memory depends on the window and the batch, not on the number or length of the
texts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import (
    check_collection,
    check_count,
    check_iterable,
    check_list,
    check_out,
    check_seconds,
    check_texts,
    check_token_ids,
)
from gte_sdk.embedding.chunks import Chunk, late_vectors, split_text
from gte_sdk.embedding.progress import progress_bar
from gte_sdk.embedding.report import EmbedderReport
from gte_sdk.embedding.truncation import TRUNCATION_MODES, report_truncation
from gte_sdk.embedding.vector_types import VECTOR_DTYPES, check_dtype, convert_rows, row_width
from gte_sdk.errors import InputError
from gte_sdk.model_files.directory import TOKENIZER_JSON, checked_file, fingerprint_of_files, read_model_dir
from gte_sdk.model_files.locate import locate_model
from gte_sdk.runtime.engine import Engine, EngineSettings, cut_engine, cut_rows, refuse_closed
from gte_sdk.runtime.opening import open_engine
from gte_sdk.runtime.text_tokenizer import TextTokenizer
from gte_sdk.runtime.tokens import SpecialTokens, TokenizedTexts, load_tokenizer
from gte_sdk.threads import available_threads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from gte_sdk.embedding.micro_batches import MicroBatcher

DEFAULT_MODEL = "gte-mini"
# Measured on 2 cores: 1,024 to 8,192 are equally fast. Resident memory grows with the budget (190 to 530 MB).
DEFAULT_MAX_BATCH_TOKENS = 2048
# Texts that are tokenized and sorted together. Larger windows need less padding, but a few thousand texts are enough.
WINDOW_TEXTS = 2048


class Embedder:
    """An embedding model, ready to use. Safe to share between threads.

    model: a bundled name ("gte-mini"), a model directory, or a Hub name ("thenlper/gte-small").
    device: "cpu", "cuda", or "auto": CUDA if onnxruntime offers it and the graph is a float graph, else the CPU. A
        named device that cannot run the model raises DeviceError.
    threads: the threads that one call uses; by default as many as CPU affinity and cgroup quota allow.
    revision: the branch, tag or commit of a Hub model.
    offline: True never opens a socket. None lets HF_HUB_OFFLINE decide. Only Hub names need a network at all.
    variant: "fp32", "fp16", "int8", or "auto": on a CPU the int8 graph, if our export compared it with fp32 and the
        directory records the result, else fp32.
    max_tokens: reads fewer tokens of each text than the model could.
    dim: shortens the vectors to this many dimensions, for models trained for it (see `dims`): the first numbers of
        each vector, scaled to unit length again.
    max_batch_tokens: the most padded tokens of one batch in onnxruntime (rows times the longest row). It limits memory.
    truncation: what to do with a text of more than max_tokens tokens: "warn", "error" or "ignore".
    engine: "native" (our C++ encoder for int8 graphs of our export on a CPU; a text's vector has the same bits in any
        batch and on any CPU), "onnxruntime", or "auto": native where it can run the graph.
    unload_after: frees the graph and the weights after this many seconds without a call. The tokenizer stays. The next
        call opens them again and returns the same vectors. None keeps them.

    If this machine does not reproduce a graph's golden vectors, another variant is used, with a warning. close() or a
    with-block frees the memory early (about 60 MB for gte-mini). Raises ModelFormatError, HubError, DeviceError or
    InputError, each with the value and the remedy.
    """

    def __init__(
        self,
        model: str | PathLike[str] = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        revision: str | None = None,
        offline: bool | None = None,
        variant: str = "auto",
        max_tokens: int | None = None,
        dim: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        truncation: str = "warn",
        engine: str = "auto",
        unload_after: float | None = None,
    ) -> None:
        if truncation not in TRUNCATION_MODES:
            raise InputError(f"truncation={truncation!r}; one of {TRUNCATION_MODES} is supported")
        threads = available_threads() if threads is None else check_count("threads", threads)
        max_batch_tokens = check_count("max_batch_tokens", max_batch_tokens)
        settings = EngineSettings(threads, max_batch_tokens, check_seconds("unload_after", unload_after))
        self._truncation = truncation
        self._description = read_model_dir(locate_model(model, variant, revision, offline))
        self._tokenizer = TextTokenizer(load_tokenizer(checked_file(self._description, TOKENIZER_JSON)))
        self._max_tokens = self._tokenizer.check_limit(max_tokens, self._description.max_tokens)
        opened = open_engine(self._description, device, variant, engine, settings, self._tokenizer.tokenizer)
        self._engine: Engine = (
            opened if dim is None else cut_engine(opened, self._description.matryoshka_dims, check_count("dim", dim))
        )
        self._micro_batchers: WeakKeyDictionary[AbstractEventLoop, MicroBatcher] = WeakKeyDictionary()

    @property
    def dim(self) -> int:
        """The number of dimensions of the vectors."""
        return self._engine.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of dimensions that the vectors can be shortened to, `dim` first.

        Only models trained for it (Matryoshka) have more than one.
        """
        return (self.dim, *(dim for dim in self._description.matryoshka_dims if dim < self.dim))

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that the model reads, including special tokens."""
        return self._max_tokens

    @property
    def device(self) -> str:
        """The device that the graph runs on: "cpu" or "cuda"."""
        return self._engine.device

    @property
    def variant(self) -> str:
        """The variant of the model that runs: "fp32", "fp16" or "int8"."""
        return self._engine.variant

    @property
    def engine(self) -> str:
        """The engine that runs the model: "native" or "onnxruntime"."""
        return self._engine.name

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the vector space. All variants of one export have the same fingerprint."""
        return fingerprint_of_files(self._description, self._engine.graph_name)

    @property
    def prompts(self) -> Mapping[str, str]:
        """The text to put before an input, by kind ("query", "document", ...).

        Empty for models trained without prompts, such as GTE.
        """
        return dict(self._description.prompts)

    def prompt_for(self, kind: str) -> str:
        """The text to put before texts of this kind ("query", "document", ...).

        Empty for "plain", and if the model has no prompt for the kind.
        """
        return "" if kind == "plain" else self._description.prompts.get(kind, "")

    @property
    def special_tokens(self) -> SpecialTokens:
        """The ids that stand before and after the tokens of every text, such as those of [CLS] and [SEP]."""
        return self._tokenizer.special_tokens

    def report(self) -> EmbedderReport:
        """What really runs: engine, device, variant, instruction set, threads, graph and golden vectors."""
        engine = self._engine
        return EmbedderReport(
            engine=engine.name,
            device=engine.device,
            variant=engine.variant,
            instruction_set=engine.instruction_set,
            threads=engine.threads,
            graph=self._description.path / engine.graph_name,
            golden=engine.golden,
        )

    @overload
    def embed(self, texts: str | Iterable[str], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]: ...
    @overload
    def embed(self, texts: str | Iterable[str], *, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def embed(
        self, texts: str | Iterable[str], *, dtype: str = "float32", out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Embeds texts without a prompt.

        A list (or any other ordered iterable) of n texts returns an (n, dim) float32 array of unit rows in the same
        order. A single str returns (dim,). An empty text gets the vector of a text without words. A lone surrogate is
        read as U+FFFD. The tokenizer handles all other characters, including NUL. A text of more than max_tokens
        tokens is cut, with a TruncationWarning that says how many tokens were left out.

        dtype: "float32", "float16", "int8", "uint8" or "binary". "binary" packs one bit for each dimension into uint8
            (n, dim / 8). The model directory stores the range for int8 and uint8, so a text always gets the same
            bytes. The formula is in gte_sdk.embedding.vector_types.convert_rows.
        out: an array or memmap of shape (n, dim) and this dtype, for a list of texts. The vectors are written into
            it, and it is returned.

        Raises InputTypeError with the index of an item that is not a str, and InputError for a dtype without a range.
        """
        return self._embed(texts, "", dtype=dtype, out=out)

    async def aembed(self, texts: str | Iterable[str], *, prompt: str = "") -> NDArray[np.float32]:
        """Embeds texts as `embed` does, outside the event loop. Callers that wait at the same time share a batch.

        prompt: put before each text, such as `prompt_for("query")`.
        """
        checked = [texts] if isinstance(texts, str) else check_texts(list(check_iterable(texts)), 0)
        vectors_ND = np.empty((len(checked), self.dim), np.float32)
        for start in range(0, len(checked), WINDOW_TEXTS):
            end = start + WINDOW_TEXTS
            vectors_ND[start:end] = await self._aembed_window(checked[start:end], prompt, start)
        return vectors_ND[0] if isinstance(texts, str) else vectors_ND

    def close(self) -> None:
        """Frees the model's memory. Running calls finish; later calls raise InputError."""
        opened, self._engine = self._engine, self._engine._replace(run=refuse_closed, token_states=refuse_closed)
        opened.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @overload
    def embed_query(
        self, texts: str | Iterable[str], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def embed_query(
        self, texts: str | Iterable[str], *, dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]: ...
    def embed_query(
        self, texts: str | Iterable[str], *, dtype: str = "float32", out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Embeds texts as `embed` does, with the model's query prompt if it has one."""
        return self._embed(texts, self.prompt_for("query"), dtype=dtype, out=out)

    @overload
    def embed_documents(
        self, texts: str | Iterable[str], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def embed_documents(
        self, texts: str | Iterable[str], *, dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]: ...
    def embed_documents(
        self, texts: str | Iterable[str], *, dtype: str = "float32", out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Embeds texts as `embed` does, with the model's document prompt if it has one."""
        return self._embed(texts, self.prompt_for("document"), dtype=dtype, out=out)

    def embed_iter(self, texts: Iterable[str], *, prompt: str = "") -> Iterator[NDArray[np.float32]]:
        """Yields one (dim,) unit vector for each text, in order. Reads at most 2,048 texts ahead."""
        return self._embed_windows(iter(check_collection(texts)), prompt)

    def _embed_windows(self, remaining: Iterator[str], prompt: str) -> Iterator[NDArray[np.float32]]:
        start = 0
        while window := list(islice(remaining, WINDOW_TEXTS)):
            check_texts(window, start)
            yield from self._embed_window(window, prompt, start)
            start += len(window)

    def tokenize(self, texts: Sequence[str], *, prompt: str = "") -> TokenizedTexts:
        """Returns the token ids of each text, including special tokens, and how many tokens were left out."""
        return self._tokenize(check_list(texts), prompt)

    def embed_tokens(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeds n texts, given as the token ids from `tokenize`. Returns the rows that `embed` returns: (n, dim).

        Raises InputError with the number of a text that has no tokens, more than max_tokens, or an unknown id.
        """
        return self._engine.run(check_token_ids(ids, self._max_tokens, self.vocabulary_size), None)

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens that the tokenizer knows. Ids run from 0 to one less."""
        size: int = self._tokenizer.tokenizer.get_vocab_size()
        return size

    def embed_chunks(
        self, text: str, max_tokens: int | None = None, overlap: int = 0, *, late: bool = False
    ) -> list[Chunk]:
        """Splits a long text between words into chunks of at most `max_tokens` tokens and embeds each.

        Neighbouring chunks share about `overlap` tokens, 0 <= overlap < max_tokens. An empty text has no chunks.

        late: late chunking. The model reads as many chunks at once as fit into `Embedder.max_tokens`, and a chunk's
            vector is the mean of its own token states, which have seen the surrounding chunks. Raises InputError for
            a model without token states to average: one with another pooling, or a token table, which has no context.
        """
        room = self._tokenizer.check_limit(max_tokens, self._max_tokens) - self._tokenizer.special_token_count
        text, spans_with_ids = split_text(self._tokenizer, text, room, overlap)
        if late:
            reads = self._max_tokens - self._tokenizer.special_token_count
            spans, whole_ND = late_vectors(spans_with_ids, self.special_tokens, reads, self._engine.token_states)
            pieces, vectors_ND = [text[span.start : span.end] for span in spans], cut_rows(whole_ND, self.dim)
        else:
            spans = [span for span, _ in spans_with_ids]
            pieces = [text[span.start : span.end] for span in spans]
            vectors_ND = self._embed(pieces, "")
        return [
            Chunk(span.start, span.end, piece, vector_D)
            for span, piece, vector_D in zip(spans, pieces, vectors_ND, strict=True)
        ]

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        normalize_embeddings: bool = True,
        precision: str = "float32",
    ) -> NDArray[Any]:
        """Embeds texts as `embed` does, with sentence-transformers' name and arguments.

        prompt_name: one of the names in `prompts`. prompt: the prompt itself.
        batch_size: the most texts of a batch, in addition to the token limit.
        normalize_embeddings: the vectors always have unit length, so False raises InputError.
        precision: `dtype` of `embed`.
        """
        if not normalize_embeddings:
            raise InputError("normalize_embeddings=False; the vectors of gte_sdk always have unit length")
        if prompt is None:
            if prompt_name is not None and prompt_name not in self._description.prompts:
                raise InputError(f"prompt_name={prompt_name!r}; the model has {sorted(self._description.prompts)}")
            prompt = self._description.prompts[prompt_name] if prompt_name is not None else ""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        return self._embed(sentences, prompt, batch_size, show_progress_bar, precision)

    def encode_query(self, sentences: str | Iterable[str], *, show_progress_bar: bool = False) -> NDArray[np.float32]:
        """Embeds queries as `embed_query` does, under sentence-transformers' name."""
        return self._embed(sentences, self.prompt_for("query"), None, show_progress_bar)

    def encode_document(
        self, sentences: str | Iterable[str], *, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        """Embeds documents as `embed_documents` does, under sentence-transformers' name."""
        return self._embed(sentences, self.prompt_for("document"), None, show_progress_bar)

    def _embed(
        self,
        texts: str | Iterable[str],
        prompt: str,
        max_rows: int | None = None,
        show_progress_bar: bool = False,
        dtype: str = "float32",
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        limits = self._description.int8_limits
        check_dtype(dtype, self.dim, limits)
        if isinstance(texts, str):
            if out is not None:
                raise InputError("out= takes the vectors of a list; give [text] instead of one str")
            vector_D: NDArray[Any] = convert_rows(self._embed_window([texts], prompt, 0, max_rows), dtype, limits)[0]
            return vector_D
        shape = (len(checked := check_texts(list(check_iterable(texts)), 0)), row_width(dtype, self.dim))
        numpy_dtype = VECTOR_DTYPES[dtype]
        vectors_ND = np.empty(shape, numpy_dtype) if out is None else check_out(out, *shape, numpy_dtype)
        windows: Iterable[int] = range(0, len(checked), WINDOW_TEXTS)
        if show_progress_bar:
            windows = progress_bar(windows, WINDOW_TEXTS)
        for start in windows:
            window = checked[start : start + WINDOW_TEXTS]
            rows = convert_rows(self._embed_window(window, prompt, start, max_rows), dtype, limits)
            vectors_ND[start : start + len(window)] = rows
        return vectors_ND

    def _embed_window(
        self, texts: Sequence[str], prompt: str, first_index: int, max_rows: int | None = None
    ) -> NDArray[np.float32]:
        ids, left_out = self._tokenize(texts, prompt)
        report_truncation(left_out, first_index, self._max_tokens, self._truncation)
        return self._engine.run(ids, max_rows)

    async def _aembed_window(self, texts: Sequence[str], prompt: str, first_index: int) -> NDArray[np.float32]:
        import asyncio  # takes longer than numpy to import

        from gte_sdk.embedding.micro_batches import INLINE_CHARACTERS, MicroBatcher, run_here_or_in_thread

        is_short = sum(map(len, texts)) <= INLINE_CHARACTERS
        ids, left_out = await run_here_or_in_thread(is_short, lambda: self._tokenize(texts, prompt))
        report_truncation(left_out, first_index, self._max_tokens, self._truncation)
        loop = asyncio.get_running_loop()
        batcher = self._micro_batchers.get(loop)
        if batcher is None:
            batcher = self._micro_batchers[loop] = MicroBatcher(lambda ids: self._engine.run(ids, None), self.dim)
        return await batcher.submit(ids)

    def _tokenize(self, texts: Sequence[str], prompt: str) -> TokenizedTexts:
        return self._tokenizer.tokenize(texts, self._max_tokens, prompt, self._engine.threads)
