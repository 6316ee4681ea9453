"""Polars: a column of texts to a column of vectors, as a Series or as an expression.

>>> frame.with_columns(embedding=embed_expression("text"))
>>> embed_series(frame["text"]).to_numpy()

The vectors have dtype Array(Float32, dim), which `to_numpy` gives as (n, dim) and Parquet and Arrow keep.
"""

import numpy as np

import gte_sdk
from gte_sdk.embedding.text_kinds import EmbedTexts
from gte_sdk.errors import InputError, InputTypeError

try:
    import polars
except ImportError as error:
    raise ImportError("gte_sdk.integrations.polars needs Polars: pip install polars") from error


def embed_series(texts: "polars.Series", embed: EmbedTexts = gte_sdk.embed) -> "polars.Series":
    """A Series of vectors under the same name, of dtype Array(Float32, dim).

    embed: what gives the vectors: the default model, or a method such as `Embedder(...).embed_query`.
    Raises InputTypeError for a Series of something else than texts, InputError naming the first null.
    """
    if not isinstance(texts, polars.Series):
        raise InputTypeError(f"texts is a {type(texts).__name__}; give a Series, such as frame['text']")
    if isinstance(texts.dtype, polars.Categorical | polars.Enum):
        texts = texts.cast(polars.String)
    if texts.dtype != polars.String:
        raise InputTypeError(f"{texts.name!r} has dtype {texts.dtype}; expected String")
    if texts.null_count():
        place = texts.is_null().arg_max()
        raise InputError(
            f"text {place} of {texts.name!r} is null, as are {texts.null_count() - 1} others; use fill_null('') or "
            "drop_nulls() first"
        )
    vectors_ND = np.ascontiguousarray(embed(texts.to_list()), dtype=np.float32)
    return polars.Series(texts.name, vectors_ND, dtype=polars.Array(polars.Float32, vectors_ND.shape[1]))


def embed_expression(texts: "str | polars.Expr", embed: EmbedTexts = gte_sdk.embed) -> "polars.Expr":
    """The vectors of a column, or of an expression of texts, for eager and lazy frames; see `embed_series`.

    Opens the model at once, since a lazy frame wants to know the width of its columns.
    """
    column = polars.col(texts) if isinstance(texts, str) else texts
    dtype = polars.Array(polars.Float32, embed([]).shape[1])
    return column.map_batches(lambda series: embed_series(series, embed), return_dtype=dtype, is_elementwise=True)
