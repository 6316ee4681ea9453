"""LangChain: `GteEmbeddings` for its vector stores, retrievers and indexing.

>>> from gte_sdk.integrations.langchain import GteEmbeddings
>>> store = InMemoryVectorStore(GteEmbeddings())
"""

from os import PathLike
from typing import TYPE_CHECKING

from gte_sdk.checks import check_list
from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.integrations.lazy_model import LazyModel

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError("gte_sdk.integrations.langchain needs LangChain: pip install langchain-core") from error


class GteEmbeddings(Embeddings):
    """LangChain's `Embeddings` with a model of gte_sdk, opened at once. The parameters are those of `gte_sdk.Embedder`.

    Queries and documents get the model's prompts where it has some. Vectors have unit length. Texts of more than
    `max_tokens` tokens are cut with a TruncationWarning, or refused with truncation="error": split documents before.
    Pickles as its parameters. Raises what Embedder raises; what is no text raises InputTypeError with its index.
    """

    def __init__(
        self,
        model: str | PathLike[str] = DEFAULT_MODEL,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        self._model = LazyModel(model, **options)
        self._model.open()

    @property
    def model(self) -> str:
        """The name or path that was given."""
        return self._model.settings.model

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._model.open().dim

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that are read, special tokens included."""
        return self._model.open().max_tokens

    @property
    def embedder(self) -> Embedder:
        """The model itself; its fingerprint is a namespace for caches of vectors, such as CacheBackedEmbeddings."""
        return self._model.open()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of `dim` numbers a text, in the same order."""
        vectors: list[list[float]] = self._model.open().embed_documents(check_list(texts)).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """`dim` numbers."""
        vector: list[float] = self._model.open().embed_query([text])[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, off the event loop; callers that wait at the same time are embedded together."""
        vectors: list[list[float]] = (await self._model.embed_documents(texts)).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, off the event loop; callers that wait at the same time are embedded together."""
        vector: list[float] = (await self._model.embed_queries([text]))[0].tolist()
        return vector

    def __repr__(self) -> str:
        return f"GteEmbeddings(model={self.model!r}, dim={self.dim}, max_tokens={self.max_tokens})"
