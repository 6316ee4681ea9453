"""LanceDB: the embedding function "gte-sdk" of its registry, for tables that embed what is added and asked.

>>> import gte_sdk.integrations.lancedb
>>> gte = lancedb.embeddings.get_registry().get("gte-sdk").create()

Importing this module registers it: a program that opens a stored table imports it first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_collection
from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.integrations.lazy_model import LazyModel, declared_options
from gte_sdk.model_files.locate import storable_name

try:
    from lancedb.embeddings import TextEmbeddingFunction, register

    from gte_sdk.integrations.model_fields import ModelFields
except ImportError as error:
    raise ImportError("gte_sdk.integrations.lancedb needs LanceDB: pip install lancedb") from error


@register("gte-sdk")
class GteEmbeddingFunction(ModelFields, TextEmbeddingFunction):
    """LanceDB's `TextEmbeddingFunction` with a model of gte_sdk. Make one with `create(...)`, as LanceDB's own.

    The fields are the parameters of `gte_sdk.Embedder`, its `model` under LanceDB's name `name`; an unknown one raises
    ValidationError. The model is opened at the first use. Source texts and queries get the model's prompts for
    documents and queries where it has some. Texts of more tokens than the model reads are cut with a TruncationWarning,
    or refused with truncation="error". Vectors have unit length. A null text gets a null vector, which LanceDB takes
    with on_bad_vectors="null".

    fingerprint: stored with a table. A model that has changed since raises ModelMismatchError instead of giving vectors
    that do not fit the stored ones.
    """

    name: str = DEFAULT_MODEL
    fingerprint: str | None = None

    _model: LazyModel | None = None

    def model_post_init(self, context: Any, /) -> None:
        self._model = LazyModel(self.name, self.fingerprint, **declared_options(self))

    @property
    def embedder(self) -> Embedder:
        """The model itself, opened at the first use."""
        assert self._model is not None  # set by model_post_init
        return self._model.open()

    def ndims(self) -> int:
        """Width of the vectors."""
        return self.embedder.dim

    def compute_query_embeddings(self, query: Any) -> list[NDArray[np.float32] | None]:
        """One vector a query: a str, or a list or Arrow array of str."""
        return list(self.embedder.embed_query(self.sanitize_input(query)))

    def compute_source_embeddings(self, texts: Any) -> list[NDArray[np.float32] | None]:
        """One vector a text, None for None: a str, or a list or Arrow array of str."""
        return self.generate_embeddings(self.sanitize_input(texts))

    def generate_embeddings(self, texts: Any) -> list[NDArray[np.float32] | None]:
        """One vector a text, None for None."""
        present = [text for text in check_collection(texts) if text is not None]
        vectors = iter(self.embedder.embed_documents(present))
        return [None if text is None else next(vectors) for text in texts]

    # What goes wrong here goes wrong again: LanceDB's own wait and repeat for minutes and then hide the reason.
    def compute_query_embeddings_with_retry(self, query: Any) -> list[NDArray[np.float32] | None]:
        return self.compute_query_embeddings(query)

    def compute_source_embeddings_with_retry(self, texts: Any) -> list[NDArray[np.float32] | None]:
        return self.compute_source_embeddings(texts)

    def safe_model_dump(self) -> dict[str, Any]:
        """What a table stores: the arguments of `create`, the model's name or absolute path, and its fingerprint."""
        arguments = super().safe_model_dump()
        name = storable_name(arguments.get("name", self.name))  # maybe one of LanceDB's variables, "$var:..."
        return {**arguments, "name": name, "fingerprint": self.embedder.fingerprint}
