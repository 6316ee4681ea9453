"""scikit-learn: `GteTransformer`, texts to vectors as a step of a Pipeline or ColumnTransformer.

>>> from gte_sdk.integrations.scikit_learn import GteTransformer
>>> make_pipeline(GteTransformer(), LogisticRegression()).fit(texts, labels)
"""

from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_iterable, check_texts
from gte_sdk.embedding.embedder import DEFAULT_MAX_BATCH_TOKENS, DEFAULT_MODEL
from gte_sdk.embedding.text_kinds import TextKind, check_kind, embed_function
from gte_sdk.errors import InputError
from gte_sdk.integrations.lazy_model import LazyModel, declared_options

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError("gte_sdk.integrations.scikit_learn needs scikit-learn: pip install scikit-learn") from error


class GteTransformer(TransformerMixin, BaseEstimator):
    """A transformer of texts, 1-D: a list, an array or a Series of str. Vectors are float32 (n, dim) of unit rows.

    kind: which of the model's prompts goes before each text: "document", "query", or "plain" for none.
    The other parameters are those of `gte_sdk.Embedder`. Texts of more tokens than the model reads are cut with a
    TruncationWarning, or refused with truncation="error".

    `fit` learns nothing; it opens the model and records `fingerprint_` and `n_features_out_`. Clones and pickles carry
    parameters and these two, no model: a loaded pipeline whose model has changed since raises ModelMismatchError,
    instead of giving a classifier vectors that it was not trained on.
    """

    def __init__(
        self,
        model: str | PathLike[str] = DEFAULT_MODEL,
        *,
        kind: TextKind = "plain",
        device: str = "auto",
        threads: int | None = None,
        revision: str | None = None,
        offline: bool | None = None,
        variant: str = "auto",
        max_tokens: int | None = None,
        dim: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        truncation: str = "warn",
        engine: str = "auto",
        unload_after: float | None = None,
        pooling: str | None = None,
        prompts: dict[str, str] | None = None,
    ) -> None:
        self.model = model
        self.kind = kind
        self.device = device
        self.threads = threads
        self.revision = revision
        self.offline = offline
        self.variant = variant
        self.max_tokens = max_tokens
        self.dim = dim
        self.max_batch_tokens = max_batch_tokens
        self.truncation = truncation
        self.engine = engine
        self.unload_after = unload_after
        self.pooling = pooling
        self.prompts = prompts

    def fit(self, X: Iterable[str], y: Any = None) -> "GteTransformer":
        """Opens the model. Raises what Embedder raises, InputError for a kind or a shape that is none."""
        check_kind(self.kind)
        _check_one_column(X)
        embedder = LazyModel(self.model, **declared_options(self)).open()
        self.fingerprint_ = embedder.fingerprint
        self.n_features_out_ = embedder.dim
        return self

    def transform(self, X: Iterable[str]) -> NDArray[np.float32]:
        """(n, dim) float32 of n texts. Raises InputTypeError naming the index of what is no str, such as NaN."""
        check_is_fitted(self)
        # Nothing to keep: equal settings are opened once a process.
        embedder = LazyModel(self.model, self.fingerprint_, **declared_options(self)).open()
        return embed_function(embedder, self.kind)(_check_one_column(X))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """gtetransformer0, gtetransformer1, ...: one name a number of the vectors."""
        check_is_fitted(self)
        return np.array([f"gtetransformer{place}" for place in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_one_column(X: Iterable[str]) -> list[str]:
    shape = getattr(X, "shape", (0,))
    if isinstance(X, str) or len(shape) != 1:
        given = "one str" if isinstance(X, str) else f"of shape {shape}"
        raise InputError(f"X is {given}; give a list or a 1-D array of texts, and ColumnTransformer a name, not a list")
    return check_texts(list(check_iterable(X)), 0)
