"""Texts in, unit vectors out.

Texts pass through in windows: a window is tokenized and handed to the engine (gte_sdk/runtime), which runs it in
batches and keeps the order. Memory depends on window and batch, not on the number or length of the texts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_count, check_iterable, check_out, check_seconds, check_texts, check_token_ids
from gte_sdk.embedding.chunks import Chunk, late_vectors, split_text
from gte_sdk.embedding.truncation import TRUNCATION_MODES, report_truncation
from gte_sdk.embedding.vector_types import DTYPES, check_dtype, convert_rows, row_width
from gte_sdk.errors import InputError
from gte_sdk.model_files.directory import TOKENIZER_JSON, checked_file, fingerprint_of_files, read_model_dir
from gte_sdk.model_files.locate import locate_model
from gte_sdk.progress import progress_bar
from gte_sdk.runtime import tokens
from gte_sdk.runtime.engine import Engine, EngineSettings, cut_engine, cut_rows, refuse_closed
from gte_sdk.runtime.opening import open_engine
from gte_sdk.runtime.word_pieces import WordPieces, word_pieces_of
from gte_sdk.threads import available_threads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from gte_sdk.embedding.micro_batches import MicroBatcher

DEFAULT_MODEL = "gte-mini"
# Measured on 2 cores: 1,024 to 8,192 are equally fast, and resident memory grows with the budget (190 to 530 MB).
DEFAULT_MAX_BATCH_TOKENS = 2048
# Texts that are tokenized and sorted together. Larger windows pad less; the gain is gone beyond a few thousand.
WINDOW_TEXTS = 2048
# From so many texts on it is worth having the tokenizer in C++ too, which takes 10 ms to make.
WORD_PIECES_TEXTS = 16


class Embedder:
    """One embedding model, ready to run. Safe to share between threads.

    model: a bundled name ("gte-mini"), a model directory, or a Hub name ("thenlper/gte-small").
    device: "cpu", "cuda", or "auto" (CUDA where onnxruntime offers it and the graph is a float one, else the CPU). A
        device that is named and cannot run raises DeviceError.
    threads: how many threads one call uses; by default what CPU affinity and cgroup quota allow.
    revision: branch, tag or commit of a Hub model.
    offline: True never opens a socket; None leaves it to HF_HUB_OFFLINE. Only a Hub name ever needs one.
    variant: "fp32", "fp16", "int8", or "auto": the int8 graph that our export proved against fp32 where the directory
        records one and the device is a CPU, else fp32.
    max_tokens: reads fewer tokens of each text than the model could.
    dim: shorter vectors, of a model that was trained for it (`dims` names the widths): the first numbers of each,
        scaled to unit length again.
    max_batch_tokens: the budget of one batch in onnxruntime, rows times the longest row. It bounds memory.
    truncation: what to do with a text of more than max_tokens tokens: "warn", "error", or "ignore".
    engine: "native" (our C++ encoder, for int8 graphs of our export on a CPU: a text's vector has the same bits in
        any batch, on any CPU), "onnxruntime", or "auto": native where it can.
    unload_after: seconds without a call after which graph and weights are given back (the tokenizer stays); the next
        call opens them again, with the same vectors. None keeps them.

    A graph that this machine does not compute as its golden vectors say is left for a variant that it does, with a
    warning. close() or a with-block gives the memory back early (about 60 MB for gte-mini). Raises ModelFormatError,
    HubError, DeviceError or InputError, each with the value and the remedy.
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
        self._model_dir = read_model_dir(locate_model(model, variant, revision, offline))
        self._tokenizer = tokens.load_tokenizer(checked_file(self._model_dir, TOKENIZER_JSON))
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(False)
        self._max_tokens = self._check_token_limit(max_tokens, self._model_dir.max_tokens)
        opened = open_engine(self._model_dir, device, variant, engine, settings, self._tokenizer)
        self._engine: Engine = (
            opened if dim is None else cut_engine(opened, self._model_dir.matryoshka_dims, check_count("dim", dim))
        )
        self._micro_batchers: WeakKeyDictionary[AbstractEventLoop, MicroBatcher] = WeakKeyDictionary()

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._engine.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths that vectors of this one's can be had in, `dim` first; others only of a model trained for it."""
        return (self.dim, *(dim for dim in self._model_dir.matryoshka_dims if dim < self.dim))

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that are read, special tokens included."""
        return self._max_tokens

    @property
    def device(self) -> str:
        """Where the graph really runs: "cpu" or "cuda"."""
        return self._engine.device

    @property
    def variant(self) -> str:
        """Which graph of the model runs: "fp32", "fp16" or "int8"."""
        return self._engine.variant

    @property
    def engine(self) -> str:
        """What runs it: "native" or "onnxruntime"."""
        return self._engine.name

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the vector space; equal for all variants of one export."""
        return fingerprint_of_files(self._model_dir, self._engine.graph_name)

    @property
    def prompts(self) -> Mapping[str, str]:
        """Text put before an input by kind ("query", "document", ...); empty for models trained without, as GTE is."""
        return dict(self._model_dir.prompts)

    @overload
    def embed(self, texts: str | Iterable[str], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]: ...
    @overload
    def embed(self, texts: str | Iterable[str], *, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def embed(
        self, texts: str | Iterable[str], *, dtype: str = "float32", out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Embeds texts as they are, without a prompt.

        A list (or any other ordered iterable) of n texts gives (n, dim) float32 of unit rows in the same order, one
        str gives (dim,). An empty text is embedded as no words at all. A lone surrogate is read as U+FFFD; other
        characters, NUL included, are the tokenizer's business. Longer texts than max_tokens are cut with a
        TruncationWarning that says how many tokens were left out. `out`, an array or memmap (n, dim) of float32, takes
        the vectors of a list where it is given, and is what is returned.

        dtype: "float32", "float16", "int8", "uint8" or "binary", a bit for each dimension, packed into uint8
        (n, dim / 8). int8 and uint8 have the range that the model directory fixes (vector_types.convert_rows has the
        formula), so a text has the same bytes in any company.

        Raises InputTypeError naming the index of what is not a str, InputError for a dtype without a range.
        """
        return self._embed(texts, "", dtype=dtype, out=out)

    async def aembed(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """`embed` for asyncio, off the event loop. Callers that wait at the same time are embedded together."""
        checked = [texts] if isinstance(texts, str) else check_texts(list(check_iterable(texts)), 0)
        vectors_ND = np.empty((len(checked), self.dim), np.float32)
        for start in range(0, len(checked), WINDOW_TEXTS):
            end = start + WINDOW_TEXTS
            vectors_ND[start:end] = await self._aembed_window(checked[start:end], start)
        return vectors_ND[0] if isinstance(texts, str) else vectors_ND

    def close(self) -> None:
        """Gives the model's memory back; later calls raise InputError. Calls that are running end as they would."""
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
        """As `embed`, with the model's query prompt where it has one."""
        return self._embed(texts, self._model_dir.prompts.get("query", ""), dtype=dtype, out=out)

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
        """As `embed`, with the model's document prompt where it has one."""
        return self._embed(texts, self._model_dir.prompts.get("document", ""), dtype=dtype, out=out)

    def embed_iter(self, texts: Iterable[str], *, prompt: str = "") -> Iterator[NDArray[np.float32]]:
        """Yields one (dim,) unit vector a text, in order, reading at most WINDOW_TEXTS texts ahead."""
        check_iterable(texts)
        start = 0
        remaining = iter(texts)
        while window := list(islice(remaining, WINDOW_TEXTS)):
            check_texts(window, start)
            yield from self._embed_window(window, prompt, start)
            start += len(window)

    def tokenize(self, texts: Sequence[str], *, prompt: str = "") -> tokens.TokenizedTexts:
        """What the model reads of each text: ids, special tokens in place, and how many tokens were left out."""
        return self._tokenize(check_texts(list(texts), 0), prompt)

    def embed_tokens(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(n, dim) float32 unit rows of n texts in the ids that `tokenize` gives; those are the rows of `embed`.

        Raises InputError naming the text that has no tokens, more than max_tokens, or an unknown id.
        """
        return self._engine.run(check_token_ids(ids, self._max_tokens, self.vocabulary_size), None)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens the tokenizer knows; ids run from 0 to one less."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    def embed_chunks(
        self, text: str, max_tokens: int | None = None, overlap: int = 0, *, late: bool = False
    ) -> list[Chunk]:
        """Splits a long text between words into pieces of at most `max_tokens` tokens and embeds each.

        Neighbouring pieces share about `overlap` tokens, 0 <= overlap < max_tokens. An empty text has no pieces.

        late: late chunking. The model reads as many pieces at once as fit into `Embedder.max_tokens`, and a piece's
        vector is the mean of its own tokens' states, which have seen the pieces around them. Raises InputError for a
        model without states to average: one that pools otherwise, or a token table, which knows no context.
        """
        room = self._check_token_limit(max_tokens, self._max_tokens) - self._special_tokens
        text, spans, ids = split_text(self._tokenizer, text, room, overlap)
        pieces = [text[span.start : span.end] for span in spans]
        if not late or not spans:
            vectors_ND = self._embed(pieces, "")
        elif (token_states := self._engine.token_states) is None:
            raise InputError(
                "late=True needs a model that averages the states of a text's tokens, and this one does not"
            )
        else:
            room = self._max_tokens - self._special_tokens
            vectors_ND = cut_rows(late_vectors(spans, ids, self._tokenizer, room, token_states), self.dim)
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
        """`embed` under sentence-transformers' name, so that a program can switch.

        prompt_name picks one of `prompts`, prompt gives one. batch_size bounds the texts of a batch, on top of the
        token budget. The vectors have unit length: normalize_embeddings=False raises InputError. precision is `dtype`.
        """
        if not normalize_embeddings:
            raise InputError("normalize_embeddings=False; the vectors of gte_sdk always have unit length")
        if prompt is None:
            if prompt_name is not None and prompt_name not in self._model_dir.prompts:
                raise InputError(f"prompt_name={prompt_name!r}; the model has {sorted(self._model_dir.prompts)}")
            prompt = self._model_dir.prompts[prompt_name] if prompt_name is not None else ""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        return self._embed(sentences, prompt, batch_size, show_progress_bar, precision)

    def encode_query(self, sentences: str | Iterable[str], *, show_progress_bar: bool = False) -> NDArray[np.float32]:
        """`embed_query` under sentence-transformers' name."""
        return self._embed(sentences, self._model_dir.prompts.get("query", ""), None, show_progress_bar)

    def encode_document(
        self, sentences: str | Iterable[str], *, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        """`embed_documents` under sentence-transformers' name."""
        return self._embed(sentences, self._model_dir.prompts.get("document", ""), None, show_progress_bar)

    def _embed(
        self,
        texts: str | Iterable[str],
        prompt: str,
        max_rows: int | None = None,
        show_progress_bar: bool = False,
        dtype: str = "float32",
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        limits = self._model_dir.int8_limits
        check_dtype(dtype, self.dim, limits)
        if isinstance(texts, str):
            if out is not None:
                raise InputError("out= takes the vectors of a list; give [text] instead of one str")
            vector_D: NDArray[Any] = convert_rows(self._embed_window([texts], prompt, 0, max_rows), dtype, limits)[0]
            return vector_D
        shape = (len(checked := check_texts(list(check_iterable(texts)), 0)), row_width(dtype, self.dim))
        vectors_ND = np.empty(shape, DTYPES[dtype]) if out is None else check_out(out, *shape, DTYPES[dtype])
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

    async def _aembed_window(self, texts: Sequence[str], first_index: int) -> NDArray[np.float32]:
        import asyncio  # takes longer than numpy to import

        from gte_sdk.embedding.micro_batches import INLINE_CHARACTERS, MicroBatcher, run_here_or_in_thread

        is_short = sum(map(len, texts)) <= INLINE_CHARACTERS
        ids, left_out = await run_here_or_in_thread(is_short, lambda: self.tokenize(texts))
        report_truncation(left_out, first_index, self._max_tokens, self._truncation)
        loop = asyncio.get_running_loop()
        batcher = self._micro_batchers.get(loop)
        if batcher is None:
            batcher = self._micro_batchers[loop] = MicroBatcher(lambda ids: self._engine.run(ids, None), self.dim)
        return await batcher.submit(ids)

    def _tokenize(self, texts: Sequence[str], prompt: str) -> tokens.TokenizedTexts:
        word_pieces = self._word_pieces if len(texts) >= WORD_PIECES_TEXTS else None
        return tokens.tokenize(self._tokenizer, texts, self._max_tokens, prompt, word_pieces, self._engine.threads)

    @cached_property
    def _word_pieces(self) -> WordPieces | None:
        return word_pieces_of(self._tokenizer, tokens.special_tokens_around(self._tokenizer))

    def _check_token_limit(self, value: int | None, most: int) -> int:
        if value is None:
            return most
        return check_count("max_tokens", value, least=self._special_tokens + 1, most=most)
