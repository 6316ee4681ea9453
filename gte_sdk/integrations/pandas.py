"""pandas: a column of texts to a column of vectors, and back to one array.

>>> frame["embedding"] = embed_series(frame["text"])
>>> vectors_ND = to_numpy(frame["embedding"])

The vectors are one Arrow column of type fixed_size_list<float>[dim]: 4 bytes a number where a column of lists or arrays
has an object a row, and Parquet and Arrow readers take it as it is.
"""

import numpy as np
from numpy.typing import NDArray

import gte_sdk
from gte_sdk.embedding.text_kinds import EmbedTexts
from gte_sdk.errors import InputError, InputTypeError
from gte_sdk.tables.vector_files import arrow_vectors

try:
    import pandas
    import pyarrow
except ImportError as error:
    raise ImportError("gte_sdk.integrations.pandas needs pandas and pyarrow: pip install pandas pyarrow") from error


def embed_series(texts: "pandas.Series", embed: EmbedTexts = gte_sdk.embed) -> "pandas.Series":
    """A Series of vectors under the same index and name, of dtype ArrowDtype(list_(float32, dim)).

    embed: what gives the vectors: the default model, or a method such as `Embedder(...).embed_query`.
    Raises InputError naming the index of a missing text, InputTypeError that of another value that is no str.
    """
    if not isinstance(texts, pandas.Series):
        raise InputTypeError(f"texts is a {type(texts).__name__}; give a Series, such as frame['text']")
    missing = texts.isna().to_numpy()
    if missing.any():
        place = int(missing.argmax())
        raise InputError(
            f"text {place} (index {texts.index[place]!r}) is missing, as are {int(missing.sum()) - 1} others; use "
            "fillna('') or dropna() first"
        )
    column = pyarrow.chunked_array([arrow_vectors(embed(texts.tolist()))])
    return pandas.Series(pandas.arrays.ArrowExtensionArray(column), index=texts.index, name=texts.name)


def to_numpy(vectors: "pandas.Series") -> NDArray[np.float32]:
    """(n, dim) float32, read-only, of a Series of vectors, without a copy where its rows lie together.

    Raises InputError where `vectors` is of another dtype than `embed_series` gives, or has missing rows.
    """
    dtype = getattr(vectors.dtype, "pyarrow_dtype", None)
    if dtype is None or not pyarrow.types.is_fixed_size_list(dtype) or dtype.value_type != pyarrow.float32():
        raise InputError(
            f"the dtype is {vectors.dtype}; expected fixed_size_list<float> of pyarrow: read Parquet with "
            "dtype_backend='pyarrow'"
        )
    column = pyarrow.array(vectors.array)
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise InputError(f"{column.null_count} of {len(column)} vectors are missing; use dropna() first")
    array: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), dtype.list_size)
    return array
