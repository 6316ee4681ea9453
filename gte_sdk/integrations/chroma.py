"""Chroma: `GteEmbeddingFunction` for its collections, which store it by name and settings.

>>> from gte_sdk.integrations.chroma import GteEmbeddingFunction
>>> collection = client.create_collection("notes", embedding_function=GteEmbeddingFunction())

Importing this module registers it with Chroma: a program that opens a stored collection imports it first.
"""

from os import PathLike
from typing import TYPE_CHECKING, Any

from gte_sdk.checks import check_list
from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.errors import InputError, ModelMismatchError
from gte_sdk.integrations.lazy_model import LazyModel, ModelSettings

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise ImportError("gte_sdk.integrations.chroma needs Chroma: pip install chromadb") from error

_CONFIG_KEYS = ("model_name", *ModelSettings._fields[1:], "fingerprint")


@register_embedding_function
class GteEmbeddingFunction(EmbeddingFunction[Documents]):
    """Chroma's `EmbeddingFunction` with a model of gte_sdk. The parameters are those of `gte_sdk.Embedder`.

    Documents and queries get the model's prompts where it has some. The model is opened at once, and by a stored
    collection at its first use. The collection's configuration holds the parameters and the fingerprint of the model: a
    model that has changed since raises ModelMismatchError instead of giving vectors that do not fit the stored ones.
    Documents of more than `max_tokens()` tokens are cut with a TruncationWarning, or refused with truncation="error".
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        self._model = LazyModel(model_name, **options)
        self._model.open()

    def __call__(self, input: Documents) -> Embeddings:
        """One float32 vector of unit length a document, in the same order."""
        return list(self._model.open().embed_documents(check_list(input)))

    def embed_query(self, input: Documents) -> Embeddings:
        """As a call, with the model's query prompt where it has one."""
        return list(self._model.open().embed_query(check_list(input)))

    @property
    def embedder(self) -> Embedder:
        """The model itself."""
        return self._model.open()

    def max_tokens(self) -> int:
        """The most tokens of a text that are read, special tokens included."""
        return self._model.open().max_tokens

    @staticmethod
    def name() -> str:
        """What collections store; `build_from_config` is found by it."""
        return "gte-sdk"

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """The parameters and the model's fingerprint, as JSON takes them."""
        fingerprint = self._model.open().fingerprint
        return dict(zip(_CONFIG_KEYS, (*self._model.settings, fingerprint), strict=True))

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "GteEmbeddingFunction":
        """The function that `get_config` describes; its model is opened at the first use."""
        GteEmbeddingFunction.validate_config(config)
        given = {key: value for key, value in config.items() if key in ModelSettings._fields[1:]}
        restored = GteEmbeddingFunction.__new__(GteEmbeddingFunction)
        restored._model = LazyModel(config["model_name"], config["fingerprint"], **given)
        return restored

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raises InputError naming the keys that are missing or unknown; what else is missing has its default."""
        if unknown := sorted(set(config) - set(_CONFIG_KEYS)):
            raise InputError(
                f"unknown {unknown} in the configuration of {GteEmbeddingFunction.name()!r}: {_CONFIG_KEYS}"
            )
        if missing := {"model_name", "fingerprint"} - set(config):
            raise InputError(f"{sorted(missing)} is missing in the configuration of {GteEmbeddingFunction.name()!r}")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raises ModelMismatchError for another model; where and how the same one runs may change."""
        for key in ("fingerprint", "dim"):
            if old_config.get(key) != new_config.get(key):
                raise ModelMismatchError(
                    f"the collection was made with {key}={old_config.get(key)!r}, and "
                    f"model_name={new_config.get('model_name')!r} has {new_config.get(key)!r}; "
                    "make a new collection for it"
                )
