"""Haystack: `GteTextEmbedder` for queries and `GteDocumentEmbedder` for documents, as components of a Pipeline.

>>> from gte_sdk.integrations.haystack import GteDocumentEmbedder, GteTextEmbedder
>>> pipeline.add_component("embedder", GteTextEmbedder())
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.errors import InputError, InputTypeError
from gte_sdk.integrations.lazy_model import LazyModel

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise ImportError("gte_sdk.integrations.haystack needs Haystack: pip install haystack-ai") from error


class _WithModel:
    """What both components have."""

    _model: LazyModel

    @property
    def embedder(self) -> Embedder:
        """The model itself."""
        return self._model.open()

    def warm_up(self) -> None:
        """Opens the model."""
        self._model.open()


@component
class GteTextEmbedder(_WithModel):
    """Embeds one text, with the model's query prompt where it has one. The parameters are those of `gte_sdk.Embedder`.

    The model is opened by `warm_up` or the first run, once for all components with equal parameters. A text of more
    tokens than meta["max_tokens"] is cut with a TruncationWarning, or refused with truncation="error".
    Raises what Embedder raises.
    """

    def __init__(
        self,
        model: str | PathLike[str] = DEFAULT_MODEL,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        self._model = LazyModel(model, **options)

    def to_dict(self) -> dict[str, Any]:
        """The parameters, for Pipeline.dumps."""
        serialized: dict[str, Any] = default_to_dict(self, **self._model.settings._asdict())
        return serialized

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "GteTextEmbedder":
        """The component that `to_dict` describes."""
        restored: GteTextEmbedder = default_from_dict(cls, data)
        return restored

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """{"embedding": a unit vector as a list, "meta": {"model", "dim", "max_tokens", "fingerprint"}}."""
        vector_D = self._model.open().embed_query(_check_text(text))
        return {"embedding": vector_D.tolist(), "meta": _meta(self._model)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """As `run`, off the event loop; callers that wait at the same time are embedded together."""
        vectors_ND = await self._model.embed_queries([_check_text(text)])
        return {"embedding": vectors_ND[0].tolist(), "meta": _meta(self._model)}


@component
class GteDocumentEmbedder(_WithModel):
    """Embeds Documents, with the model's document prompt where it has one. See `GteTextEmbedder` for the model.

    meta_fields_to_embed: fields of a document's meta that are put before its content, joined by `embedding_separator`.
    progress_bar: shows one while a run embeds.
    """

    def __init__(
        self,
        model: str | PathLike[str] = DEFAULT_MODEL,
        *,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        progress_bar: bool = False,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        if isinstance(meta_fields_to_embed, str):
            raise InputTypeError(f"meta_fields_to_embed={meta_fields_to_embed!r} is a str; give a list of field names")
        self._model = LazyModel(model, **options)
        self._meta_fields = list(meta_fields_to_embed)
        self._separator = embedding_separator
        self._progress_bar = progress_bar

    def to_dict(self) -> dict[str, Any]:
        """The parameters, for Pipeline.dumps."""
        serialized: dict[str, Any] = default_to_dict(
            self,
            **self._model.settings._asdict(),
            meta_fields_to_embed=self._meta_fields,
            embedding_separator=self._separator,
            progress_bar=self._progress_bar,
        )
        return serialized

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "GteDocumentEmbedder":
        """The component that `to_dict` describes."""
        restored: GteDocumentEmbedder = default_from_dict(cls, data)
        return restored

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """{"documents": copies that have their embedding, in the same order, "meta": as GteTextEmbedder's}.

        Raises InputTypeError for what is no list of Documents, InputError for a document that has nothing to embed.
        """
        texts = self._texts(documents)
        vectors_ND = self._model.open().encode_document(texts, show_progress_bar=self._progress_bar)
        return {"documents": _with_embeddings(documents, vectors_ND), "meta": _meta(self._model)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """As `run`, off the event loop and without a progress bar."""
        vectors_ND = await self._model.embed_documents(self._texts(documents))
        return {"documents": _with_embeddings(documents, vectors_ND), "meta": _meta(self._model)}

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list):
            raise InputTypeError(
                f"documents is a {type(documents).__name__}; give a list of Document, and a query to GteTextEmbedder"
            )
        texts = []
        for index, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InputTypeError(f"document {index} is a {type(document).__name__}; give a haystack.Document")
            fields = [document.meta.get(name) for name in self._meta_fields]
            parts = [str(field) for field in fields if field is not None]
            if document.content is not None:
                parts.append(document.content)
            if not parts:
                raise InputError(f"document {index} ({document.id}) has no content and no field that is embedded")
            texts.append(self._separator.join(parts))
        return texts


def _check_text(text: str) -> str:
    if not isinstance(text, str):
        raise InputTypeError(f"text is a {type(text).__name__}; give a str, and Documents to GteDocumentEmbedder")
    return text


def _with_embeddings(documents: list[Document], vectors_ND: NDArray[np.float32]) -> list[Document]:
    return [
        replace(document, embedding=vector) for document, vector in zip(documents, vectors_ND.tolist(), strict=True)
    ]


def _meta(model: LazyModel) -> dict[str, Any]:
    embedder = model.open()
    return {
        "model": model.settings.model,
        "dim": embedder.dim,
        "max_tokens": embedder.max_tokens,
        "fingerprint": embedder.fingerprint,
    }
