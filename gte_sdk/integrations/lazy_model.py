"""The model behind an adapter: named when the adapter is made, opened at its first use, shared, and never pickled.

Frameworks build an adapter anew for each half of a pipeline, in each worker, and Chroma and LanceDB even for each call.
So equal settings are opened once a process, the last KEPT_OPEN of them stay open, and what travels is the settings.
"""

import json
import threading
from collections.abc import Iterable
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_list
from gte_sdk.embedding.embedder import DEFAULT_MAX_BATCH_TOKENS, Embedder
from gte_sdk.errors import ModelMismatchError
from gte_sdk.model_files.locate import storable_name

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack

KEPT_OPEN = 4
_lock = threading.Lock()


class ModelOptions(TypedDict, total=False):
    """The keywords that an adapter takes: the parameters of `Embedder` behind `model`. It documents them."""

    device: str
    threads: int | None
    revision: str | None
    offline: bool | None
    variant: str
    max_tokens: int | None
    dim: int | None
    max_batch_tokens: int
    truncation: str
    engine: str
    unload_after: float | None
    pooling: str | None
    prompts: dict[str, str] | None


class ModelSettings(NamedTuple):
    """What an adapter stores: every parameter of `Embedder`, with its default."""

    model: str
    device: str = "auto"
    threads: int | None = None
    revision: str | None = None
    offline: bool | None = None
    variant: str = "auto"
    max_tokens: int | None = None
    dim: int | None = None
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    truncation: str = "warn"
    engine: str = "auto"
    unload_after: float | None = None
    pooling: str | None = None
    prompts: dict[str, str] | None = None


class LazyModel:
    """The model with these settings, opened at the first call of `open`.

    model, options: as in `Embedder`; an unknown option raises TypeError. fingerprint: what stored vectors were made
    with; `open` raises ModelMismatchError where the model has another. Pickles and copies as what it was given.
    """

    def __init__(
        self, model: str | PathLike[str], fingerprint: str | None = None, **options: "Unpack[ModelOptions]"
    ) -> None:
        self.settings = ModelSettings(storable_name(model), **options)
        self._fingerprint = fingerprint
        self._embedder: Embedder | None = None

    def open(self) -> Embedder:
        """The Embedder, one for all that have equal settings. Raises what Embedder raises."""
        if self._embedder is None:
            with _lock:  # callers that come at the same time wait for one load
                embedder = _open_shared(json.dumps(self.settings._asdict()))
            if self._fingerprint is not None and self._fingerprint != embedder.fingerprint:
                raise ModelMismatchError(
                    f"the stored vectors were made by a model with fingerprint {self._fingerprint}, and "
                    f"model={self.settings.model!r} has {embedder.fingerprint} now; open the model they were made by, "
                    "or embed the texts anew into another collection"
                )
            self._embedder = embedder
        return self._embedder

    async def embed_queries(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """`Embedder.embed_query` of a list for asyncio: (n, dim), off the event loop, together with other callers."""
        return await self._embed_with_prompt(texts, "query")

    async def embed_documents(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """`Embedder.embed_documents` of a list, as `embed_queries`."""
        return await self._embed_with_prompt(texts, "document")

    async def _embed_with_prompt(self, texts: Iterable[str], kind: str) -> NDArray[np.float32]:
        embedder = self.open()
        return await embedder.aembed(check_list(texts), prompt=embedder.prompt_for(kind))

    def __getstate__(self) -> tuple[ModelSettings, str | None]:
        return self.settings, self._fingerprint

    def __setstate__(self, state: tuple[ModelSettings, str | None]) -> None:
        self.settings, self._fingerprint = state
        self._embedder = None


def declared_options(adapter: object) -> ModelOptions:
    """The options of an adapter whose framework wants each declared, and which so has it as an attribute."""
    return cast(ModelOptions, {name: getattr(adapter, name) for name in ModelSettings._fields[1:]})


@lru_cache(KEPT_OPEN)
def _open_shared(settings: str) -> Embedder:
    """settings: as JSON, which tells equal ones from others, prompts too."""
    return Embedder(**json.loads(settings))
