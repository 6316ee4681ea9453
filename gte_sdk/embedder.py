"""Texts in, unit vectors out: `embed` for the model inside the package, `Embedder` for everything else.

Texts pass through in windows: each window is tokenized, cut into batches of similar length under a token budget, run,
and put back in the caller's order. Memory follows the budget and the window, not the number or length of the texts.
"""

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gte_sdk import hub, model_dir, session, tokens
from gte_sdk.errors import InputError, InputTypeError, ModelFormatError, TruncationWarning
from gte_sdk.threads import available_threads

DEFAULT_MODEL = "gte-mini"
# Measured on 2 cores: 1,024 to 8,192 are equally fast, and resident memory grows with the budget (190 to 530 MB).
DEFAULT_MAX_BATCH_TOKENS = 2048
# Texts that are tokenized and sorted together. Larger windows pad less; the gain is gone beyond a few thousand.
WINDOW_TEXTS = 2048
TRUNCATION_MODES = ("warn", "error", "ignore")


class Chunk(NamedTuple):
    """A piece of a long text with its vector."""

    start: int
    end: int
    text: str
    """The characters [start, end) of the text."""
    vector: NDArray[np.float32]
    """(dim,), unit length."""


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
    max_batch_tokens: the budget of one batch, rows times the longest row, padding included. It bounds memory.
    truncation: what to do with a text of more than max_tokens tokens: "warn", "error", or "ignore".

    Raises ModelFormatError, HubError, DeviceError or InputError, each with the value and the remedy.
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
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        truncation: str = "warn",
    ) -> None:
        if truncation not in TRUNCATION_MODES:
            raise InputError(f"truncation={truncation!r}; one of {TRUNCATION_MODES} is supported")
        threads = available_threads() if threads is None else check_count("threads", threads)
        self._max_batch_tokens = check_count("max_batch_tokens", max_batch_tokens)
        self._truncation = truncation
        self._model_dir = model_dir.read_model_dir(_locate(model, variant, revision, offline))
        self._device, self._variant, self._graph_name = _choose_graph(self._model_dir, device, variant)
        graph_path = model_dir.checked_file(self._model_dir, self._graph_name)
        self._tokenizer = tokens.load_tokenizer(model_dir.checked_file(self._model_dir, model_dir.TOKENIZER_JSON))
        self._pad_id = tokens.pad_token_id(self._tokenizer)
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(False)
        self._max_tokens = self._check_token_limit(max_tokens, self._model_dir.max_tokens)
        self._graph = session.open_graph(graph_path, self._device, threads)
        self._dim = self._graph.dim or self._model_dir.dim
        if self._model_dir.files and self._dim != self._model_dir.dim:
            raise ModelFormatError(
                f"{graph_path} gives vectors of {self._dim} numbers where {model_dir.GTE_JSON} records "
                f"dim={self._model_dir.dim}; export the model again"
            )

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that are read, special tokens included."""
        return self._max_tokens

    @property
    def device(self) -> str:
        """Where the graph really runs: "cpu" or "cuda"."""
        return self._graph.device

    @property
    def variant(self) -> str:
        """Which graph of the model runs: "fp32", "fp16" or "int8"."""
        return self._variant

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space; equal for all variants of one export."""
        return model_dir.fingerprint_of_files(self._model_dir, self._graph_name)

    @property
    def prompts(self) -> Mapping[str, str]:
        """Text put before an input by kind ("query", "document", ...); empty for models trained without, as GTE is."""
        return dict(self._model_dir.prompts)

    @overload
    def embed(self, texts: str) -> NDArray[np.float32]: ...
    @overload
    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]: ...
    def embed(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """Embeds texts as they are, without a prompt.

        A list (or any other ordered iterable) of n texts gives (n, dim) float32 of unit rows in the same order, one
        str gives (dim,). An empty text is embedded as no words at all. A lone surrogate is read as U+FFFD; other
        characters, NUL included, are the tokenizer's business. Longer texts than max_tokens are cut with a
        TruncationWarning that says how many tokens were left out.

        Raises InputTypeError naming the index of what is not a str.
        """
        return self._embed(texts, "")

    @overload
    def embed_query(self, texts: str) -> NDArray[np.float32]: ...
    @overload
    def embed_query(self, texts: Iterable[str]) -> NDArray[np.float32]: ...
    def embed_query(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """As `embed`, with the model's query prompt where it has one."""
        return self._embed(texts, self._model_dir.prompts.get("query", ""))

    @overload
    def embed_documents(self, texts: str) -> NDArray[np.float32]: ...
    @overload
    def embed_documents(self, texts: Iterable[str]) -> NDArray[np.float32]: ...
    def embed_documents(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """As `embed`, with the model's document prompt where it has one."""
        return self._embed(texts, self._model_dir.prompts.get("document", ""))

    def embed_iter(self, texts: Iterable[str], *, prompt: str = "") -> Iterator[NDArray[np.float32]]:
        """Yields one (dim,) unit vector a text, in order, reading at most WINDOW_TEXTS texts ahead."""
        _check_iterable(texts)
        start = 0
        remaining = iter(texts)
        while window := list(islice(remaining, WINDOW_TEXTS)):
            _check_texts(window, start)
            yield from self._embed_window(window, prompt, start)
            start += len(window)

    def embed_chunks(self, text: str, max_tokens: int | None = None, overlap: int = 0) -> list[Chunk]:
        """Splits a long text between words into pieces of at most `max_tokens` tokens and embeds each.

        Neighbouring pieces share about `overlap` tokens, 0 <= overlap < max_tokens. An empty text has no pieces.
        """
        if not isinstance(text, str):
            raise InputTypeError(f"text is a {type(text).__name__}; give a str")
        room = self._check_token_limit(max_tokens, self._max_tokens) - self._special_tokens
        if not 0 <= overlap < room:
            raise InputError(f"overlap={overlap}; it must be at least 0 and below the {room} tokens of a piece")
        text = tokens.encodable(text)
        spans = tokens.chunk_spans(self._tokenizer, text, room, overlap)
        pieces = [text[start:end] for start, end in spans]
        vectors = self._embed(pieces, "")
        return [Chunk(*span, piece, vector) for span, piece, vector in zip(spans, pieces, vectors, strict=True)]

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        normalize_embeddings: bool = True,
    ) -> NDArray[np.float32]:
        """`embed` under sentence-transformers' name, so that a program can switch.

        prompt_name picks one of `prompts`, prompt gives one. batch_size bounds the texts of a batch, on top of the
        token budget. The vectors have unit length: normalize_embeddings=False raises InputError.
        """
        if not normalize_embeddings:
            raise InputError("normalize_embeddings=False; the vectors of gte_sdk always have unit length")
        if prompt is None:
            if prompt_name is not None and prompt_name not in self._model_dir.prompts:
                raise InputError(f"prompt_name={prompt_name!r}; the model has {sorted(self._model_dir.prompts)}")
            prompt = self._model_dir.prompts[prompt_name] if prompt_name is not None else ""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        return self._embed(sentences, prompt, batch_size, show_progress_bar)

    def encode_query(self, sentences: str | Iterable[str], *, show_progress_bar: bool = False) -> NDArray[np.float32]:
        """`embed_query` under sentence-transformers' name."""
        return self._embed(sentences, self._model_dir.prompts.get("query", ""), None, show_progress_bar)

    def encode_document(
        self, sentences: str | Iterable[str], *, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        """`embed_documents` under sentence-transformers' name."""
        return self._embed(sentences, self._model_dir.prompts.get("document", ""), None, show_progress_bar)

    def _embed(
        self, texts: str | Iterable[str], prompt: str, max_rows: int | None = None, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        if isinstance(texts, str):
            vector_D: NDArray[np.float32] = self._embed_window([texts], prompt, 0, max_rows)[0]
            return vector_D
        checked = _check_texts(list(_check_iterable(texts)), 0)
        vectors_ND = np.empty((len(checked), self._dim), dtype=np.float32)
        windows: Iterable[int] = range(0, len(checked), WINDOW_TEXTS)
        if show_progress_bar:
            windows = _progress_bar(windows)
        for start in windows:
            window = checked[start : start + WINDOW_TEXTS]
            vectors_ND[start : start + len(window)] = self._embed_window(window, prompt, start, max_rows)
        return vectors_ND

    def _embed_window(
        self, texts: Sequence[str], prompt: str, first_index: int, max_rows: int | None = None
    ) -> NDArray[np.float32]:
        ids, left_out = tokens.tokenize(self._tokenizer, texts, self._max_tokens, prompt)
        if any(left_out) and self._truncation != "ignore":
            self._report_truncation(left_out, first_index)
        vectors_ND = np.empty((len(ids), self._dim), dtype=np.float32)
        for rows in tokens.batches_by_tokens([len(row) for row in ids], self._max_batch_tokens, max_rows):
            batch = tokens.pad_batch([ids[row] for row in rows], self._pad_id)
            vectors_ND[rows] = session.run_graph(self._graph, batch, self._model_dir.pooling, self._model_dir.normalize)
        return vectors_ND

    def _report_truncation(self, left_out: Sequence[int], first_index: int) -> None:
        cut = [index for index, count in enumerate(left_out) if count]
        longest = max(cut, key=lambda index: left_out[index])
        message = (
            f"{len(cut)} of {len(left_out)} texts have more than max_tokens={self._max_tokens} tokens and "
            f"{sum(left_out)} tokens were left out, {left_out[longest]} of them of text {first_index + longest}; "
            "embed_chunks() embeds a long text in pieces"
        )
        if self._truncation == "error":
            raise InputError(message)
        warnings.warn(message, TruncationWarning, stacklevel=5)

    def _check_token_limit(self, value: int | None, most: int) -> int:
        if value is None:
            return most
        return check_count("max_tokens", value, least=self._special_tokens + 1, most=most)


_default_embedder: Embedder | None = None
_default_lock = threading.Lock()


@overload
def embed(texts: str) -> NDArray[np.float32]: ...
@overload
def embed(texts: Iterable[str]) -> NDArray[np.float32]: ...
def embed(texts: str | Iterable[str]) -> NDArray[np.float32]:
    """Embeds texts with the model inside the package, opened at the first call and kept.

    A list of n texts gives (n, 384) float32 of unit rows, one str gives (384,). See `Embedder.embed`.
    """
    global _default_embedder
    with _default_lock:
        if _default_embedder is None:
            _default_embedder = Embedder()
    return _default_embedder.embed(texts)


def _locate(model: str | PathLike[str], variant: str, revision: str | None, offline: bool | None) -> Path:
    name = str(model)
    if name in model_dir.bundled_models():
        return model_dir.bundled_model_path(name)
    path = Path(model)
    if path.is_dir():
        return path
    if isinstance(model, str) and hub.is_hub_name(name):
        return hub.fetch_model(name, variant, revision, offline)
    raise ModelFormatError(
        f"model={name!r} is neither a bundled model ({', '.join(model_dir.bundled_models())}), nor a directory, "
        "nor a Hub name like 'owner/model'"
    )


def _choose_graph(description: model_dir.ModelDir, device: str, variant: str) -> tuple[str, str, str]:
    """The device, the variant, and the graph's name in the directory."""
    graphs = model_dir.available_variants(description)
    if not graphs:
        raise ModelFormatError(
            f"{description.path} holds no ONNX graph under the names that are known; "
            "export the checkpoint with: python export/to_onnx.py"
        )
    if variant != "auto" and variant not in graphs:
        raise InputError(f"variant={variant!r}; {description.path} holds {sorted(graphs)}")
    offered = session.choose_device(device)
    if variant == "auto":
        proven_int8 = "int8" in graphs and description.fingerprint is not None
        order = ("int8", "fp32", "fp16") if proven_int8 and offered == "cpu" else ("fp32", "fp16", "int8")
        variant = next(name for name in order if name in graphs)
    if device == "auto" and variant == "int8":
        offered = "cpu"  # onnxruntime's CUDA provider sends most int8 nodes back to the CPU
    return offered, variant, graphs[variant]


def check_count(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name}={value!r} is a {type(value).__name__}; give an int")
    if value < least or (most is not None and value > most):
        raise InputError(f"{name}={value}; it must be at least {least}" + (f" and at most {most}" if most else ""))
    return value


def _check_iterable(texts: Iterable[str]) -> Iterable[str]:
    """Refuses what iterates but is no ordered collection of texts; embed() gives rows in the order of its input."""
    if isinstance(texts, bytes | bytearray | Mapping | set | frozenset) or not isinstance(texts, Iterable):
        raise InputTypeError(f"texts is a {type(texts).__name__}: {texts!r:.80}; give a str or a list of str")
    return texts


def _check_texts(texts: list[str], first_index: int) -> list[str]:
    for index, text in enumerate(texts, first_index):
        if not isinstance(text, str):
            raise InputTypeError(f"text {index} is a {type(text).__name__}: {text!r:.80}; give a str")
    return texts


def _progress_bar(windows: Iterable[int]) -> Iterable[int]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise InputError("show_progress_bar=True needs tqdm: pip install 'gte-sdk[cli]'") from error
    bar: Iterable[int] = tqdm(windows, desc="embed", unit_scale=WINDOW_TEXTS, unit=" texts")
    return bar
