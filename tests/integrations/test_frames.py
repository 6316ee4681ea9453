"""pandas and Polars: columns of texts become columns of vectors in each one's own types, and survive Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from numpy.typing import NDArray

import gte_sdk
from gte_sdk import InputError, InputTypeError
from gte_sdk.integrations import pandas as gte_pandas
from gte_sdk.integrations import polars as gte_polars

TEXTS = ["a red car", "", "Über 東京"]


def reversed_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    return gte_sdk.embed(list(texts))[:, ::-1]


def test_pandas_vectors_are_one_arrow_column_under_the_same_index() -> None:
    frame = pandas.DataFrame({"text": TEXTS}, index=[5, 7, 9])
    vectors = gte_pandas.embed_series(frame["text"])
    assert vectors.dtype == pandas.ArrowDtype(pyarrow.list_(pyarrow.float32(), 384))
    assert (vectors.index.tolist(), vectors.name) == ([5, 7, 9], "text")
    np.testing.assert_array_equal(gte_pandas.to_numpy(vectors), gte_sdk.embed(TEXTS))
    np.testing.assert_array_equal(
        gte_pandas.to_numpy(gte_pandas.embed_series(frame["text"], reversed_vectors)), reversed_vectors(TEXTS)
    )


def test_pandas_vectors_come_back_from_slices_joins_and_parquet(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": TEXTS})
    frame["embedding"] = gte_pandas.embed_series(frame["text"])
    expected = gte_sdk.embed(TEXTS)
    np.testing.assert_array_equal(gte_pandas.to_numpy(frame["embedding"][1:]), expected[1:])
    np.testing.assert_array_equal(gte_pandas.to_numpy(frame["embedding"][frame["text"] != ""]), expected[[0, 2]])
    twice = pandas.concat([frame, frame])["embedding"]
    np.testing.assert_array_equal(gte_pandas.to_numpy(twice), np.concatenate([expected, expected]))
    frame.to_parquet(tmp_path / "frame.parquet")
    read = pandas.read_parquet(tmp_path / "frame.parquet", dtype_backend="pyarrow")
    np.testing.assert_array_equal(gte_pandas.to_numpy(read["embedding"]), expected)


def test_pandas_strings_of_every_kind_are_texts_and_an_empty_column_has_a_width() -> None:
    expected = gte_sdk.embed(TEXTS)
    for dtype in ("object", "string", "category", pandas.ArrowDtype(pyarrow.string())):
        vectors = gte_pandas.embed_series(pandas.Series(TEXTS, dtype=dtype))
        np.testing.assert_array_equal(gte_pandas.to_numpy(vectors), expected)
    assert gte_pandas.to_numpy(gte_pandas.embed_series(pandas.Series([], dtype="string"))).shape == (0, 384)


def test_pandas_names_what_is_no_text() -> None:
    with pytest.raises(InputError, match=r"text 1 \(index 'b'\) is missing, as are 1 others; use fillna"):
        gte_pandas.embed_series(pandas.Series(["x", None, None], index=["a", "b", "c"]))
    with pytest.raises(InputTypeError, match="text 1 is a int: 7"):
        gte_pandas.embed_series(pandas.Series(["x", 7]))
    with pytest.raises(InputTypeError, match="give a Series"):
        gte_pandas.embed_series(["x"])
    with pytest.raises(InputError, match="expected fixed_size_list<float> of pyarrow"):
        gte_pandas.to_numpy(pandas.Series([[0.5, 0.5]]))
    with_a_gap = gte_pandas.embed_series(pandas.Series(TEXTS)).reindex([0, 1, 2, 3])
    with pytest.raises(InputError, match="1 of 4 vectors are missing"):
        gte_pandas.to_numpy(with_a_gap)


def test_polars_vectors_are_an_array_column() -> None:
    frame = polars.DataFrame({"id": [1, 2, 3], "text": TEXTS})
    vectors = gte_polars.embed_series(frame["text"])
    assert (vectors.name, vectors.dtype) == ("text", polars.Array(polars.Float32, 384))
    np.testing.assert_array_equal(vectors.to_numpy(), gte_sdk.embed(TEXTS))
    categories = gte_polars.embed_series(frame["text"].cast(polars.Categorical))
    np.testing.assert_array_equal(categories.to_numpy(), gte_sdk.embed(TEXTS))
    assert gte_polars.embed_series(frame["text"][:0]).to_numpy().shape == (0, 384)


def test_polars_expressions_work_in_eager_and_lazy_frames(tmp_path: Path) -> None:
    frame = polars.DataFrame({"id": [1, 2, 3], "text": TEXTS})
    lazy = frame.lazy().with_columns(embedding=gte_polars.embed_expression("text")).filter(polars.col("id") > 1)
    assert lazy.collect_schema()["embedding"] == polars.Array(polars.Float32, 384)
    found = lazy.collect()
    np.testing.assert_array_equal(found["embedding"].to_numpy(), gte_sdk.embed(TEXTS[1:]))
    upper = polars.col("text").str.to_uppercase()
    found = frame.select(gte_polars.embed_expression(upper, reversed_vectors))
    np.testing.assert_array_equal(found["text"].to_numpy(), reversed_vectors([text.upper() for text in TEXTS]))
    frame.with_columns(embedding=gte_polars.embed_expression("text")).write_parquet(tmp_path / "frame.parquet")
    read = polars.read_parquet(tmp_path / "frame.parquet")["embedding"]
    np.testing.assert_array_equal(read.to_numpy(), gte_sdk.embed(TEXTS))


def test_polars_names_what_is_no_text() -> None:
    with pytest.raises(InputError, match="text 1 of 't' is null, as are 0 others; use fill_null"):
        gte_polars.embed_series(polars.Series("t", ["x", None]))
    with pytest.raises(InputTypeError, match="'n' has dtype Int64; expected String"):
        gte_polars.embed_series(polars.Series("n", [1]))
    with pytest.raises(InputTypeError, match="give a Series"):
        gte_polars.embed_series(["x"])
