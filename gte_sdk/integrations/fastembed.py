"""fastembed's `TextEmbedding` over gte_sdk: a program changes its import, and fastembed need not be installed.

>>> from gte_sdk.integrations.fastembed import TextEmbedding

What cannot be had raises InputError with the reason. Sparse, late-interaction and image models are not here.
"""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_count, check_iterable
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.other_names import fastembed as names
from gte_sdk.errors import InputError
from gte_sdk.integrations.lazy_model import LazyModel
from gte_sdk.model_files.directory import bundled_models
from gte_sdk.model_files.known_models import original_names

_DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "cuda", True: "cuda", False: "cpu"}
_PROVIDERS = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}


class TextEmbedding:
    """A model whose `embed` yields the vectors one by one.

    Args:
        model_name: A bundled name, a model directory, or a Hub name.
        cache_dir: huggingface_hub's own cache is used, so anything but None raises InputError.
        threads: The threads that one call uses; by default as many as this process may use.
        providers: ONNX Runtime's provider to run on, of the CPU or CUDA; the first is taken.
        cuda: "auto", True or "cuda", False or "cpu".
        device_ids: One Embedder runs on one device, so anything but None raises InputError.
        lazy_load: Opens the model at its first use.
        local_files_only: True never opens a socket.
        specific_model_path: A model directory, in the place of `model_name`.

    Examples:
        >>> from gte_sdk.integrations.fastembed import TextEmbedding
        >>> next(TextEmbedding("gte-mini").embed(["a text"])).shape
        (384,)
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
        cuda: Any = "auto",
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        local_files_only: bool = False,
        specific_model_path: str | PathLike[str] | None = None,
    ) -> None:
        if cache_dir is not None:
            raise InputError(f"cache_dir={cache_dir!r}: models are kept in huggingface_hub's cache; set HF_HOME")
        if device_ids is not None:
            raise InputError(f"device_ids={device_ids!r}: one Embedder runs on one device; leave it out")
        self.model_name = model_name
        self._model = LazyModel(
            model_name if specific_model_path is None else specific_model_path,
            device=_device(cuda, providers),
            threads=threads,
            offline=True if local_files_only else None,
        )
        if not lazy_load:
            self._model.open()

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yields the vector of each text, without a prompt unless the model has a default one.

        Args:
            documents: Any number of texts, or one str. At most 2,048 are read ahead.
            batch_size: Without effect: batches are made by tokens.
            parallel: None or 0. Other numbers raise InputError, as there are no processes to share the work.
        """
        return names.stream(self.embedder, documents, None, batch_size, parallel)

    def query_embed(self, query: str | Iterable[str]) -> Iterator[NDArray[np.float32]]:
        """Yields the vectors of queries, with the model's query prompt.

        Args:
            query: A list of queries, or one str.
        """
        return self.embedder.query_embed(query)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yields the vectors of documents, with the model's document prompt.

        Args:
            texts: As for `embed`.
            batch_size: As for `embed`.
            parallel: As for `embed`.
        """
        return self.embedder.passage_embed(texts, batch_size, parallel)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """The number of tokens of all texts together, special tokens included, of long texts those that are read.

        Args:
            texts: A list of texts, or one str.
            batch_size: Without effect.
        """
        check_count("batch_size", batch_size)
        listed = [texts] if isinstance(texts, str) else list(check_iterable(texts))
        return sum(map(len, self.embedder.tokenize(listed).ids))

    @property
    def embedding_size(self) -> int:
        """The number of dimensions of the vectors."""
        return self.embedder.dim

    @property
    def embedder(self) -> Embedder:
        """The model itself."""
        return self._model.open()

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The number of dimensions of a model's vectors. Opens the model.

        Args:
            model_name: As in the constructor.
        """
        return cls(model_name).embedding_size

    @staticmethod
    def list_supported_models() -> list[dict[str, str]]:
        """The bundled models, and those that docs/models-from-the-hub.md lists, as {"model": name}. Many more work."""
        return [{"model": name} for name in (*bundled_models(), *original_names())]


def _device(cuda: Any, providers: Sequence[Any] | None) -> str:
    if providers is None:
        device = getattr(cuda, "value", cuda)  # fastembed's enum
        if device not in _DEVICES:
            raise InputError(f"cuda={cuda!r}; one of {tuple(_DEVICES)} is supported")
        return _DEVICES[device]
    named = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    if not named or named[0] not in _PROVIDERS:
        raise InputError(f"providers={named!r}; one of {tuple(_PROVIDERS)} is supported")
    return _PROVIDERS[named[0]]
