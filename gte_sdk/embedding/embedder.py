"""Texts in, unit vectors out.

Texts pass through in windows. Each window is tokenized and passed to the engine, which splits it into batches and
returns the vectors in the same order. Memory depends on the window and the batch, not on the number or length of the
texts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
    check_out,
    check_seconds,
    check_texts,
    check_threads,
)
from gte_sdk.embedding import asynchronous, chunks, report, token_ids
from gte_sdk.embedding.other_names import fastembed as fastembed_names
from gte_sdk.embedding.other_names import sentence_transformers as names
from gte_sdk.embedding.progress import progress_bar
from gte_sdk.embedding.truncation import TRUNCATION_MODES, report_truncation
from gte_sdk.embedding.vector_types import VECTOR_DTYPES, check_dtype, convert_rows, row_width
from gte_sdk.errors import InputError, ModelMismatchError
from gte_sdk.model_files.directory import fingerprint_of_files, read_model_dir
from gte_sdk.model_files.locate import locate_model, storable_name
from gte_sdk.model_files.published import LARGEST, PLAIN, ModelFacts, merged_prompts
from gte_sdk.model_files.user_cache import remembered_sha256
from gte_sdk.runtime.engine import Engine, EngineSettings, cut_engine, refuse_closed
from gte_sdk.runtime.opening import open_engine
from gte_sdk.runtime.text_tokenizer import load_text_tokenizer
from gte_sdk.runtime.tokens import WINDOW_TEXTS, SpecialTokens, TokenizedTexts
from gte_sdk.threads import available_threads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from gte_sdk.embedding.micro_batches import MicroBatcher

DEFAULT_MODEL = "gte-mini"
# Measured on 2 cores: 1,024 to 8,192 are equally fast. Resident memory grows with the budget (190 to 530 MB).
DEFAULT_MAX_BATCH_TOKENS = 2048


class Embedder:
    """An embedding model, ready to use. Safe to share between threads.

    If this machine does not reproduce a graph's golden vectors, another variant is used, with a warning. `close` or a
    with-block frees the memory early (about 60 MB for gte-mini). A pickle or copy opens the same model again, with the
    same arguments, and raises ModelMismatchError where it finds another one.
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
        pooling: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        """Opens a model.

        Args:
            model: A bundled name ("gte-mini"), a model directory, or a Hub name ("thenlper/gte-small").
            device: "cpu", "cuda", or "auto": CUDA if onnxruntime offers it and the graph is a float graph, else the
                CPU. A named device that cannot run the model raises DeviceError.
            threads: The threads that one call uses; by default as many as CPU affinity and cgroup quota allow.
            revision: The branch, tag or commit of a Hub model.
            offline: True never opens a socket. None lets HF_HUB_OFFLINE decide. Only Hub names need a network at all.
            variant: "fp32", "fp16", "int8" (float32 weights are quantized as they open, and kept in the user's cache),
                or "auto": on a CPU int8, if our export compared it with fp32 and the directory records the result,
                else fp32.
            max_tokens: Reads fewer tokens of each text than the model could, or says what it can, if nothing else does.
            dim: Shortens the vectors to this many dimensions, for models trained for it (see `dims`): the first
                numbers of each vector, scaled to unit length again.
            max_batch_tokens: The most padded tokens of one batch in onnxruntime (rows times the longest row). It
                limits memory.
            truncation: What to do with a text of more than max_tokens tokens: "warn", "error" or "ignore".
            engine: "native" (our C++ encoder for BERT's family on a CPU, in fp32 and in our export's int8; a text's
                vector has the same bits in any batch and on any CPU), "onnxruntime", or "auto": native where it can
                run the model. `report` says why it does not.
            unload_after: Frees the graph and the weights after this many seconds without a call. The tokenizer stays.
                The next call opens them again and returns the same vectors. None keeps them.
            pooling: How a vector is made of token states, if the model's files do not say it or are wrong: "mean",
                "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens", or "graph" if its graph does it.
            prompts: The text to put before an input, by kind, instead of the model's own of the same kinds.

        Raises:
            ModelFormatError: A directory that is incomplete or damaged, or a name that is none.
            HubError: A Hub model that cannot be fetched.
            DeviceError: A device that is missing or cannot run the model.
            InputError: An argument out of its range.

        Examples:
            >>> from gte_sdk import Embedder
            >>> embedder = Embedder("gte-mini")
            >>> embedder.embed(["a text", "another"]).shape
            (2, 384)
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        self._arguments = {**arguments, "model": storable_name(model)}
        if truncation not in TRUNCATION_MODES:
            raise InputError(f"truncation={truncation!r}; one of {TRUNCATION_MODES} is supported")
        threads = available_threads() if threads is None else check_threads(threads)
        max_batch_tokens = check_count("max_batch_tokens", max_batch_tokens, most=LARGEST)
        settings = EngineSettings(threads, max_batch_tokens, check_seconds("unload_after", unload_after))
        self._truncation = truncation
        facts = ModelFacts(pooling, prompts, None if max_tokens is None else check_count("max_tokens", max_tokens))
        quantize = engine != "onnxruntime" and device != "cuda"
        path = locate_model(model, variant, revision, offline, facts, quantize).absolute()  # read again from anywhere
        self._description = read_model_dir(path, facts)
        self._tokenizer = load_text_tokenizer(self._description)
        self._max_tokens = self._tokenizer.check_limit(max_tokens, self._description.max_tokens)
        opened = open_engine(self._description, device, variant, engine, settings, self._tokenizer.tokenizer)
        wanted_dim = self._description.truncate_dim if dim is None else check_count("dim", dim)
        trained_dims = self._description.matryoshka_dims
        self._engine: Engine = opened if wanted_dim is None else cut_engine(opened, trained_dims, wanted_dim)
        self._micro_batchers: WeakKeyDictionary[AbstractEventLoop, MicroBatcher] = WeakKeyDictionary()

    @property
    def dim(self) -> int:
        """The number of dimensions of the vectors."""
        return self._engine.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of dimensions that the vectors can have, `dim` first; more than one if it was trained for it."""
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
        return fingerprint_of_files(self._description, self._engine.graph_name, remembered_sha256)

    @property
    def prompts(self) -> Mapping[str, str]:
        """The text to put before an input, by kind ("query", "document", ...). GTE was trained without prompts.

        Set it to replace those of the same kinds, as the argument `prompts` does.
        """
        return dict(self._description.prompts)

    @prompts.setter
    def prompts(self, prompts: Mapping[str, str]) -> None:
        merged = merged_prompts(self._description.prompts, ModelFacts(prompts=prompts))
        self._description = replace(self._description, prompts=merged)
        self._arguments["prompts"] = {**(self._arguments["prompts"] or {}), **prompts}

    def prompt_for(self, kind: str) -> str:
        """The text to put before texts of one kind. Empty if the model has no prompt for it.

        Args:
            kind: "query", "document" or another name in `prompts`; few models have one for "plain", texts of no kind.
        """
        return self._description.prompts.get(kind, "")

    @property
    def special_tokens(self) -> SpecialTokens:
        """The ids that stand before and after the tokens of every text, such as those of [CLS] and [SEP]."""
        return self._tokenizer.special_tokens

    report = report.report

    @overload
    def embed(self, texts: str | Iterable[str], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]: ...
    @overload
    def embed(self, texts: str | Iterable[str], *, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def embed(
        self, texts: str | Iterable[str], *, dtype: str = "float32", out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Embeds texts without a prompt, unless the model has a default one, `prompts["plain"]`.

        An empty text gets the vector of a text without words. A lone surrogate is read as U+FFFD. The tokenizer
        handles all other characters, including NUL. A text of more than max_tokens tokens is cut, with a
        TruncationWarning that says how many tokens were left out.

        Args:
            texts: A list, or any other ordered iterable, of n texts, or one str.
            dtype: "float32", "float16", "int8", "uint8" or "binary". "binary" packs one bit for each dimension into
                uint8 (n, dim / 8). The model directory stores the range for int8 and uint8, so a text always gets the
                same bytes. The formula is in gte_sdk.embedding.vector_types.convert_rows.
            out: An array or memmap of shape (n, dim) and this dtype, for a list of texts. The vectors are written
                into it, and it is returned.

        Returns:
            Unit rows (n, dim) in the order of the texts, or (dim,) for one str.

        Raises:
            InputTypeError: An item that is not a str, with its index.
            InputError: A dtype without a range.

        Examples:
            >>> from gte_sdk import Embedder
            >>> Embedder().embed("a text", dtype="binary").shape
            (48,)
        """
        return self._embed(texts, None, dtype=dtype, out=out)

    def close(self) -> None:
        """Frees the model's memory. Running calls finish; later calls raise InputError."""
        opened, self._engine = self._engine, self._engine._replace(run=refuse_closed, token_states=refuse_closed)
        opened.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Embedder({self._arguments['model']!r}, dim={self.dim}, max_tokens={self._max_tokens}, "
            f"engine={self.engine!r}, device={self.device!r}, variant={self.variant!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, ({**self._arguments, "max_tokens": self._max_tokens}, self.fingerprint)

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
        """Embeds texts as `embed` does, with the model's query prompt if it has one.

        Args:
            texts: n queries, or one str.
            dtype: As for `embed`.
            out: As for `embed`.
        """
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
        """Embeds texts as `embed` does, with the model's document prompt if it has one.

        Args:
            texts: n documents, or one str.
            dtype: As for `embed`.
            out: As for `embed`.
        """
        return self._embed(texts, self.prompt_for("document"), dtype=dtype, out=out)

    def embed_iter(self, texts: Iterable[str], *, prompt: str | None = None) -> Iterator[NDArray[np.float32]]:
        """Yields one (dim,) unit vector for each text, in order. Reads at most 2,048 texts ahead.

        Args:
            texts: Any number of texts.
            prompt: Put before each text; None as in `embed`.
        """
        return self._embed_windows(iter(check_collection(texts)), prompt)

    def _embed_windows(self, remaining: Iterator[str], prompt: str | None) -> Iterator[NDArray[np.float32]]:
        start = 0
        while window := list(islice(remaining, WINDOW_TEXTS)):
            check_texts(window, start)
            yield from self._embed_window(window, prompt, start)
            start += len(window)

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens that the tokenizer knows. Ids run from 0 to one less."""
        size: int = self._tokenizer.tokenizer.get_vocab_size()
        return size

    tokenize = token_ids.tokenize
    embed_tokens = token_ids.embed_tokens
    embed_chunks = chunks.embed_chunks

    # What programs written for sentence-transformers or fastembed call.
    encode = names.encode
    encode_query = names.encode_query
    encode_document = names.encode_document
    similarity = names.similarity
    similarity_pairwise = names.similarity_pairwise
    get_embedding_dimension = get_sentence_embedding_dimension = names.get_embedding_dimension
    start_multi_process_pool = names.start_multi_process_pool
    stop_multi_process_pool = staticmethod(names.stop_multi_process_pool)
    truncate_embeddings = truncate_sentence_embeddings = names.truncate_embeddings
    similarity_fn_name = names.similarity_fn_name
    default_prompt_name = names.default_prompt_name
    max_seq_length = names.max_seq_length
    get_max_seq_length = names.get_max_seq_length
    query_embed = fastembed_names.query_embed
    passage_embed = fastembed_names.passage_embed

    aembed = asynchronous.aembed
    aembed_query = asynchronous.aembed_query
    aembed_documents = asynchronous.aembed_documents

    def _embed(
        self,
        texts: str | Iterable[str],
        prompt: str | None,
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
            windows = progress_bar(len(checked), WINDOW_TEXTS)
        for start in windows:
            window = checked[start : start + WINDOW_TEXTS]
            rows = convert_rows(self._embed_window(window, prompt, start, max_rows), dtype, limits)
            vectors_ND[start : start + len(window)] = rows
        return vectors_ND

    def _embed_window(
        self, texts: Sequence[str], prompt: str | None, first_index: int, max_rows: int | None = None
    ) -> NDArray[np.float32]:
        return self._engine.run(self._token_ids(texts, prompt, first_index), max_rows)

    def _token_ids(self, texts: Sequence[str], prompt: str | None, first_index: int) -> list[list[int]]:
        ids, left_out = self._tokenize(texts, prompt)
        report_truncation(texts, left_out, first_index, self._max_tokens, self._truncation)
        return ids

    def _tokenize(self, texts: Sequence[str], prompt: str | None) -> TokenizedTexts:
        prompt = self.prompt_for(PLAIN) if prompt is None else prompt
        return self._tokenizer.tokenize(texts, self._max_tokens, prompt, self._engine.threads)


def _opened_again(arguments: dict[str, Any], fingerprint: str) -> Embedder:
    """What a pickle or copy becomes. Raises ModelMismatchError if the name now leads to another model."""
    embedder = Embedder(**arguments)
    if (found := embedder.fingerprint) != fingerprint:
        embedder.close()
        raise ModelMismatchError(
            f"the Embedder was saved with model {fingerprint}, {arguments['model']} is now {found}; bring that model "
            "back, or open the new one and embed again"
        )
    return embedder
