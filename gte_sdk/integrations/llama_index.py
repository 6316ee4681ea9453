"""LlamaIndex: `GteEmbedding` for its indexes, retrievers and ingestion pipelines.

>>> from gte_sdk.integrations.llama_index import GteEmbedding
>>> index = VectorStoreIndex.from_documents(documents, embed_model=GteEmbedding())
"""

from typing import Any

from gte_sdk.checks import check_list
from gte_sdk.embedding import WINDOW_TEXTS
from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.integrations.lazy_model import LazyModel, declared_options

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from gte_sdk.integrations.model_fields import ModelFields
except ImportError as error:
    raise ImportError("gte_sdk.integrations.llama_index needs LlamaIndex: pip install llama-index-core") from error


class GteEmbedding(ModelFields, BaseEmbedding):
    """LlamaIndex's `BaseEmbedding` with a model of gte_sdk, opened at once.

    The fields are the parameters of `gte_sdk.Embedder`, its `model` under LlamaIndex's name `model_name`; an unknown
    one raises ValidationError. A path in `model_name` becomes absolute; `dim` and `max_tokens` hold what the model has.
    Queries and texts get the model's prompts for queries and documents where it has some. Texts of more than
    `max_tokens` tokens are cut with a TruncationWarning, or refused with truncation="error": set the chunk size of the
    node parser below it.
    to_dict, from_dict and pickle keep the fields.
    """

    model_name: str = DEFAULT_MODEL
    embed_batch_size: int = WINDOW_TEXTS

    _model: LazyModel | None = None

    @classmethod
    def class_name(cls) -> str:
        return "GteEmbedding"

    def model_post_init(self, context: Any, /) -> None:
        self._model = LazyModel(self.model_name, **declared_options(self))
        embedder = self._model.open()
        self.model_name = self._model.settings.model
        self.dim, self.max_tokens = embedder.dim, embedder.max_tokens

    @property
    def embedder(self) -> Embedder:
        """The model itself; its fingerprint is a name for caches of vectors."""
        return self._lazy_model().open()

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.embedder.embed_query([query])[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self._lazy_model().embed_queries([query]))[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed_documents(check_list(texts)).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self._lazy_model().embed_documents(texts)).tolist()
        return vectors

    def _lazy_model(self) -> LazyModel:
        assert self._model is not None  # set by model_post_init
        return self._model
