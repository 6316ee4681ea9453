"""The methods that programs written for sentence-transformers call on an Embedder, with their arguments.

They are plain functions of an Embedder, which takes them over as its methods. What it cannot do as the other library
does raises InputError with the reason; nothing is ignored. numpy arrays are the results, and PyTorch is needed only by
who asks for tensors or gives them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_count, check_iterable, check_texts
from gte_sdk.embedding.other_names.tensors import as_tensor, cosines, paired_cosines
from gte_sdk.embedding.vector_types import check_dtype, convert_rows
from gte_sdk.errors import InputError
from gte_sdk.model_files.published import PLAIN
from gte_sdk.runtime.engine import Engine, cut_engine, cut_rows

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder

# Theirs to ours. Their "binary" is ours with 128 less in each byte.
_DTYPES = {
    "float32": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8", "ubinary": "binary",
    "binary": "binary",
}  # fmt: skip
# The states of a text of 512 tokens and width 768 take 1.5 MB.
_STATES_AT_ONCE = 16
ONE_PROCESS = "one Embedder uses all cores in one process; leave it out, and open the Embedder with threads= for fewer"
# What start_multi_process_pool gives: theirs without a process in it.
_NO_PROCESSES: dict[str, Any] = {"input": None, "output": None, "processes": []}


def encode(
    embedder: "Embedder",
    inputs: str | Iterable[str] | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int | None = None,
    show_progress_bar: bool | None = None,
    output_value: str | None = "sentence_embedding",
    precision: str = "float32",
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    device: Any = None,
    normalize_embeddings: bool = True,
    truncate_dim: int | None = None,
    pool: Any = None,
    chunk_size: int | None = None,
    *,
    sentences: str | Iterable[str] | None = None,
) -> Any:
    """Embeds texts as `embed` does, with sentence-transformers' arguments.

    Args:
        inputs: A list of n texts, or one str.
        prompt_name: One of the names in `prompts`. Without effect if `prompt` is given.
        prompt: The text to put before each text.
        batch_size: The most texts of a batch, in addition to the limit of tokens. The vectors do not depend on it.
        show_progress_bar: Draws a bar. None draws none.
        output_value: "sentence_embedding" for the vectors, or "token_embeddings" for the states (t, hidden) of each
            text's tokens, special tokens included, as a list.
        precision: "float32", "float16", "int8", "uint8", "ubinary" (a bit for each dimension, packed into uint8) or
            "binary" (the same bytes minus 128, as int8). The range of int8 and uint8 belongs to the model, so it does
            not depend on the other texts, as it does there.
        convert_to_numpy: False returns a list of tensors.
        convert_to_tensor: Returns one tensor on the CPU.
        device: The device that this Embedder runs on, a list of it alone, or None.
        normalize_embeddings: The vectors always have unit length, so False raises InputError.
        truncate_dim: Shortens the vectors to this many dimensions, one of `dims`, and to unit length again.
        pool: None, or what `start_multi_process_pool` gave, without effect.
        chunk_size: Without effect: it belongs to processes.
        sentences: The former name of `inputs`.

    Returns:
        (n, dim), or (dim,) for one str: a numpy array or a tensor.

    Raises:
        InputError: An argument that cannot be had, with the reason.
    """
    if inputs is not None and sentences is not None:
        raise InputError("both inputs and sentences are given, which are two names of the texts; give one of them")
    texts: Any = sentences if inputs is None else inputs
    _check_device(embedder, device)
    if pool is not None and pool != _NO_PROCESSES:
        raise InputError(f"pool={pool!r:.40}: {ONE_PROCESS}")
    if not normalize_embeddings:
        raise InputError("normalize_embeddings=False; the vectors of gte_sdk always have unit length")
    if precision not in _DTYPES:
        raise InputError(f"precision={precision!r}; one of {tuple(_DTYPES)} is supported")
    if prompt is None:
        if prompt_name is not None and prompt_name not in embedder.prompts:
            raise InputError(f"prompt_name={prompt_name!r}; the model has {sorted(embedder.prompts)}")
        prompt = embedder.prompt_for(PLAIN if prompt_name is None else prompt_name)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if output_value == "token_embeddings":
        states = list(_token_states(embedder, texts, prompt))
        rows: Any = [as_tensor(each) for each in states] if convert_to_tensor else states
        return rows[0] if isinstance(texts, str) else rows
    if output_value != "sentence_embedding":
        raise InputError(f"output_value={output_value!r}; give 'sentence_embedding' or 'token_embeddings'")
    cut = None if truncate_dim is None else check_count("truncate_dim", truncate_dim)
    vectors = _vectors(embedder, texts, prompt, batch_size, bool(show_progress_bar), _DTYPES[precision], cut)
    if precision == "binary":
        vectors = (vectors ^ np.uint8(128)).view(np.int8)
    if convert_to_tensor:
        return as_tensor(vectors)
    if not convert_to_numpy:
        return as_tensor(vectors) if isinstance(texts, str) else list(as_tensor(vectors))
    return vectors


def encode_query(
    embedder: "Embedder",
    inputs: str | Iterable[str] | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int | None = None,
    show_progress_bar: bool | None = None,
    output_value: str | None = "sentence_embedding",
    precision: str = "float32",
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    device: Any = None,
    normalize_embeddings: bool = True,
    truncate_dim: int | None = None,
    pool: Any = None,
    chunk_size: int | None = None,
    *,
    sentences: str | Iterable[str] | None = None,
) -> Any:
    """Embeds queries: `encode` with the model's query prompt, if it has one and no other is given.

    The arguments are those of `encode`.
    """
    if prompt_name is None and prompt is None:
        prompt = embedder.prompt_for("query")
    return encode(
        embedder, inputs, prompt_name, prompt, batch_size, show_progress_bar, output_value, precision, convert_to_numpy,
        convert_to_tensor, device, normalize_embeddings, truncate_dim, pool, chunk_size, sentences=sentences,
    )  # fmt: skip


def encode_document(
    embedder: "Embedder",
    inputs: str | Iterable[str] | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int | None = None,
    show_progress_bar: bool | None = None,
    output_value: str | None = "sentence_embedding",
    precision: str = "float32",
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    device: Any = None,
    normalize_embeddings: bool = True,
    truncate_dim: int | None = None,
    pool: Any = None,
    chunk_size: int | None = None,
    *,
    sentences: str | Iterable[str] | None = None,
) -> Any:
    """Embeds documents: `encode` with the prompt "document", "passage" or "corpus", the first that the model has.

    The arguments are those of `encode`.
    """
    if prompt_name is None and prompt is None:
        prompt = embedder.prompt_for("document")
    return encode(
        embedder, inputs, prompt_name, prompt, batch_size, show_progress_bar, output_value, precision, convert_to_numpy,
        convert_to_tensor, device, normalize_embeddings, truncate_dim, pool, chunk_size, sentences=sentences,
    )  # fmt: skip


def similarity(embedder: "Embedder", embeddings1: Any, embeddings2: Any) -> Any:
    """The cosine of each of n vectors with each of m.

    Args:
        embeddings1: (n, dim) or (dim,): an array, a tensor, or a list of these.
        embeddings2: (m, dim) or (dim,).

    Returns:
        (n, m) float32: a tensor if one was given, else a numpy array.

    Raises:
        InputError: Vectors of different numbers of dimensions.
    """
    return cosines(embeddings1, embeddings2)


def similarity_pairwise(embedder: "Embedder", embeddings1: Any, embeddings2: Any) -> Any:
    """The cosine of each of n vectors with the vector in the same place.

    Args:
        embeddings1: (n, dim) or (dim,): an array, a tensor, or a list of these.
        embeddings2: The same shape.

    Returns:
        (n,) float32: a tensor if one was given, else a numpy array.

    Raises:
        InputError: Two different shapes.
    """
    return paired_cosines(embeddings1, embeddings2)


def get_embedding_dimension(embedder: "Embedder") -> int:
    """The number of dimensions of the vectors: `dim`."""
    return embedder.dim


def _max_seq_length(embedder: "Embedder") -> int:
    """`max_tokens` under sentence-transformers' name. Set it to read fewer tokens of each text, or more again."""
    return embedder.max_tokens


def _set_max_seq_length(embedder: "Embedder", value: int) -> None:
    embedder._max_tokens = embedder._tokenizer.check_limit(value, embedder._description.max_tokens)


max_seq_length = property(_max_seq_length, _set_max_seq_length)


def get_max_seq_length(embedder: "Embedder") -> int:
    """The most tokens of a text that are read: `max_tokens`."""
    return embedder.max_tokens


def _similarity_fn_name(embedder: "Embedder") -> str:
    """The measure of `similarity`: "cosine". As all vectors have unit length, "dot" is the same, and can be set."""
    return "cosine"


def _set_similarity_fn_name(embedder: "Embedder", value: Any) -> None:
    check_similarity(value)


similarity_fn_name = property(_similarity_fn_name, _set_similarity_fn_name)


def check_similarity(name: Any) -> None:
    """Raises InputError for a measure that is not the cosine. Takes a str or sentence-transformers' enum."""
    if (given := getattr(name, "value", name)) not in (None, "cosine", "dot"):
        raise InputError(f"similarity_fn_name={given!r}; give 'cosine' or 'dot', which rank unit vectors alike")


def _default_prompt_name(embedder: "Embedder") -> str | None:
    """The name of the prompt that `encode` uses if no other is asked for, or None. Set it to one of `prompts`."""
    text = embedder.prompt_for(PLAIN)
    return next((name for name, prompt in embedder.prompts.items() if prompt == text and name != PLAIN and text), None)


def _set_default_prompt_name(embedder: "Embedder", name: str | None) -> None:
    if name is not None and name not in embedder.prompts:
        raise InputError(f"default_prompt_name={name!r}; the model has {sorted(embedder.prompts)}")
    embedder.prompts = {PLAIN: "" if name is None else embedder.prompts[name]}


default_prompt_name = property(_default_prompt_name, _set_default_prompt_name)


def start_multi_process_pool(embedder: "Embedder", target_devices: Sequence[Any] | None = None) -> dict[str, Any]:
    """Starts no process, since one Embedder uses all cores. What it returns can be passed to `encode` as `pool`.

    Args:
        target_devices: The device that this Embedder runs on, any number of times.

    Raises:
        InputError: Another device.
    """
    _check_device(embedder, list(target_devices or ()))
    return dict(_NO_PROCESSES)


def stop_multi_process_pool(pool: Any) -> None:
    """Does nothing, as `start_multi_process_pool` started nothing.

    Args:
        pool: What that returned.
    """


@contextmanager
def truncate_embeddings(embedder: "Embedder", truncate_dim: int | None) -> Iterator[None]:
    """Shortens the vectors inside a with-block, for all threads, and `dim` with them.

    Args:
        truncate_dim: One of `dims`, or None, which changes nothing.

    Raises:
        InputError: A number of dimensions that the model was not trained for.
    """
    whole = cut = embedder._engine
    if truncate_dim is not None and check_count("truncate_dim", truncate_dim) < whole.dim:
        cut = cut_engine(whole, embedder._description.matryoshka_dims, truncate_dim)
    _set_engine(embedder, cut)
    try:
        yield
    finally:
        if embedder._engine is cut:  # not closed meanwhile
            _set_engine(embedder, whole)


def _set_engine(embedder: "Embedder", engine: Engine) -> None:
    embedder._engine = engine
    embedder._micro_batchers.clear()  # they know the number of dimensions


def _check_device(embedder: "Embedder", device: Any) -> None:
    """Raises InputError for a device, or one of a list, that is not the Embedder's."""
    devices = device if isinstance(device, list | tuple) else [device]
    for name in devices:
        if name is not None and str(name) not in (embedder.device, f"{embedder.device}:0"):
            raise InputError(
                f"device={str(name)!r}; this Embedder runs on {embedder.device}: open one with device= there"
            )


def _vectors(
    embedder: "Embedder", texts: Any, prompt: str, batch_size: int | None, show_bar: bool, dtype: str, cut: int | None
) -> NDArray[Any]:
    if cut is None or cut >= embedder.dim:
        return embedder._embed(texts, prompt, batch_size, show_bar, dtype)
    description = embedder._description
    cut_engine(embedder._engine, description.matryoshka_dims, cut)  # refuses what the model was not trained for
    check_dtype(dtype, cut, description.int8_limits)
    whole = embedder._embed(texts, prompt, batch_size, show_bar)
    rows = convert_rows(cut_rows(whole.reshape(-1, embedder.dim), cut), dtype, description.int8_limits)
    return rows[0] if isinstance(texts, str) else rows


def _token_states(embedder: "Embedder", texts: Any, prompt: str) -> Iterator[NDArray[np.float32]]:
    token_states = embedder._engine.token_states
    if token_states is None:
        raise InputError("output_value='token_embeddings': this model does not average the states of a text's tokens")
    checked = check_texts([texts] if isinstance(texts, str) else list(check_iterable(texts)), 0)
    for start in range(0, len(checked), _STATES_AT_ONCE):
        yield from token_states(embedder._token_ids(checked[start : start + _STATES_AT_ONCE], prompt, start))
