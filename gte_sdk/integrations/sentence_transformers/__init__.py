"""sentence-transformers' names over gte_sdk: a program changes its imports, and nothing of theirs is installed.

>>> from gte_sdk.integrations.sentence_transformers import SentenceTransformer, util

`SentenceTransformer(...)` gives an Embedder, whose methods have the other library's names and arguments. What cannot be
had raises InputError with the reason. Other classes (`CrossEncoder`, `SparseEncoder`, trainers) are not here.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.embedding.other_names.sentence_transformers import check_similarity
from gte_sdk.errors import InputError
from gte_sdk.integrations.sentence_transformers import util
from gte_sdk.model_files.directory import bundled_models

__all__ = ["SentenceTransformer", "util"]

_ENGINES = {"torch": "auto", "onnx": "onnxruntime"}


def SentenceTransformer(  # noqa: N802
    model_name_or_path: str | PathLike[str] = DEFAULT_MODEL,
    *,
    modules: Any = None,
    device: Any = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    cache_folder: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    use_auth_token: bool | str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
    model_card_data: Any = None,
    backend: str = "torch",
    similarity_fn_name: Any = None,
    truncate_dim: int | None = None,
) -> Embedder:
    """Opens a model as `Embedder` does, with sentence-transformers' arguments.

    Args:
        model_name_or_path: A directory, a Hub name, or a name without an owner, which is one of sentence-transformers'
            models on the Hub. The names of bundled models ("gte-mini") are known too.
        modules: Models are read from files, so anything but None raises InputError.
        device: "cpu", "cuda", or None: `Embedder`'s "auto".
        prompts: The text to put before an input, by kind.
        default_prompt_name: Which of the prompts `encode` uses, if no other is asked for.
        cache_folder: huggingface_hub's own cache is used, so anything but None raises InputError.
        trust_remote_code: No code of a model is run, so True raises InputError.
        revision: The branch, tag or commit of a Hub model.
        local_files_only: True never opens a socket.
        token: huggingface_hub finds HF_TOKEN or the stored one; another raises InputError.
        use_auth_token: The former name of `token`.
        model_kwargs: Options for PyTorch raise InputError.
        processor_kwargs: Options for the tokenizer raise InputError.
        tokenizer_kwargs: The former name of `processor_kwargs`.
        config_kwargs: Options for the configuration raise InputError.
        model_card_data: Without effect: no model is saved.
        backend: "torch" for the engine that `Embedder` chooses, or "onnx" for ONNX Runtime.
        similarity_fn_name: "cosine" or "dot", which are the same for unit vectors.
        truncate_dim: Shortens the vectors to this many dimensions, for models trained for it.

    Raises:
        InputError: An argument that cannot be had, with the reason.

    Examples:
        >>> from gte_sdk.integrations.sentence_transformers import SentenceTransformer
        >>> model = SentenceTransformer("gte-mini")
        >>> embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!"])
        >>> model.similarity(embeddings, embeddings).shape
        (2, 2)
    """
    _refuse("modules", modules, "a model is read from its files")
    _refuse("cache_folder", cache_folder, "models are kept in huggingface_hub's cache; set HF_HOME")
    _refuse("trust_remote_code", trust_remote_code or None, "no code of a model is ever run")
    if token is not None or use_auth_token is not None:  # not shown: it is a secret
        raise InputError("token: set HF_TOKEN, or use `hf auth login`")
    _refuse("model_kwargs", model_kwargs or None, "there is no PyTorch model; Embedder has variant= for fp16 and int8")
    _refuse("processor_kwargs", processor_kwargs or tokenizer_kwargs or None, "the tokenizer is that of the files")
    _refuse("config_kwargs", config_kwargs or None, "the configuration is that of the files")
    check_similarity(similarity_fn_name)
    if backend not in _ENGINES:
        raise InputError(f"backend={backend!r}; one of {tuple(_ENGINES)} is supported")

    embedder = Embedder(
        _model_name(model_name_or_path),
        device="auto" if device is None else str(device).removesuffix(":0"),
        revision=revision,
        offline=True if local_files_only else None,
        dim=truncate_dim,
        engine=_ENGINES[backend],
        prompts=prompts,
    )
    if default_prompt_name is not None:
        embedder.default_prompt_name = default_prompt_name
    return embedder


def _model_name(name: str | PathLike[str]) -> str | PathLike[str]:
    """A name without an owner is one of sentence-transformers' own models, unless it is a directory or bundled."""
    is_short = isinstance(name, str) and "/" not in name and name not in bundled_models() and not Path(name).exists()
    return f"sentence-transformers/{name}" if is_short else name


def _refuse(name: str, value: Any, reason: str) -> None:
    if value is not None:
        raise InputError(f"{name}={value!r:.80}: {reason}")
