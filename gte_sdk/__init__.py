"""General Text Embeddings inside your application: offline, without PyTorch, fast on a CPU.

>>> import gte_sdk
>>> gte_sdk.embed(["a text", "another"]).shape
(2, 384)
"""

from gte_sdk.embedding.chunks import Chunk
from gte_sdk.embedding.default_model import embed
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import (
    DeviceError,
    GteError,
    HubError,
    InputError,
    InputTypeError,
    ModelFormatError,
    ModelMismatchError,
    TruncationWarning,
)
from gte_sdk.search import Index, top_k_cosine

__version__ = "0.1.0"

__all__ = [
    "Chunk",
    "DeviceError",
    "Embedder",
    "GteError",
    "HubError",
    "Index",
    "InputError",
    "InputTypeError",
    "ModelFormatError",
    "ModelMismatchError",
    "TruncationWarning",
    "__version__",
    "embed",
    "top_k_cosine",
]
