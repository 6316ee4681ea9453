"""Vectors as float16, int8, uint8 and bits: by the formula, with the range of the model directory, in any company."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError, InputTypeError, ModelFormatError
from gte_sdk.embedding.vector_types import convert_rows
from gte_sdk.model_files.directory import bundled_model_path, read_model_dir

from ..tiny_models import write_tiny_model

TEXTS = ["the first text", "", "another one, about rain", "def area(r): return r * r", "naïve café 🚀"] * 5


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


def test_the_types_follow_their_formulas() -> None:
    vectors = np.array([[0.5, -0.25, 0.001, 0.0, -0.9, 0.1, 0.2, -0.3, 0.4]], dtype=np.float32)
    limits = {9: 0.5}
    assert convert_rows(vectors, "int8", limits).tolist() == [[127, -64, 0, 0, -127, 25, 51, -76, 102]]
    assert convert_rows(vectors, "uint8", limits).tolist() == [[255, 64, 128, 128, 1, 153, 179, 52, 230]]
    assert convert_rows(vectors, "binary", limits).tolist() == [[0b10100110, 0b10000000]]
    np.testing.assert_array_equal(convert_rows(vectors, "float16", limits), vectors.astype(np.float16))
    assert convert_rows(vectors, "float32", limits) is vectors


@pytest.mark.parametrize("name", ["gte-mini", "gte-nano"])
def test_the_bundled_models_fix_a_range_for_each_width(name: str) -> None:
    embedder = Embedder(name)
    limits = read_model_dir(bundled_model_path(name)).int8_limits
    assert set(limits) == set(embedder.dims)
    for dim in embedder.dims:
        cut = Embedder(name, dim=dim)
        floats, steps = cut.embed(TEXTS), cut.embed(TEXTS, dtype="int8")
        assert steps.dtype == np.int8
        assert steps.shape == (25, dim)
        # The product of the steps is that of the vectors, on one scale for all of them.
        products = steps.astype(np.int32) @ steps.astype(np.int32).T * (limits[dim] / 127) ** 2
        assert np.abs(products - floats @ floats.T).max() < 0.02
        assert cut.embed(TEXTS[:2], dtype="binary").shape == (2, dim // 8)


def test_a_text_has_the_same_bytes_in_any_company(gte_mini: Embedder, tmp_path: Path) -> None:
    together = gte_mini.embed_documents(TEXTS, dtype="uint8")
    for row, text in zip(together, TEXTS[:5], strict=False):
        np.testing.assert_array_equal(gte_mini.embed_query(text, dtype="uint8"), row)
    file = np.memmap(tmp_path / "rows", dtype=np.uint8, mode="w+", shape=together.shape)
    assert gte_mini.embed(TEXTS, dtype="uint8", out=file) is file
    np.testing.assert_array_equal(file, together)
    np.testing.assert_array_equal(gte_mini.encode(TEXTS, precision="uint8"), together)
    np.testing.assert_array_equal(together.astype(int) - 128, gte_mini.embed(TEXTS, dtype="int8"))


def test_what_cannot_be_given_is_said(gte_mini: Embedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dtype='int4'; one of \('float32', 'float16', 'int8', 'uint8', 'binary'\)"):
        gte_mini.embed("a", dtype="int4")
    out: Any = np.zeros((1, 384), dtype=np.float32)
    with pytest.raises(InputTypeError, match="out has dtype float32; give int8"):
        gte_mini.embed(["a"], dtype="int8", out=out)
    with pytest.raises(InputError, match=r"out has shape \(1, 384\); 1 texts need \(1, 48\)"):
        gte_mini.embed(["a"], dtype="binary", out=out.astype(np.uint8))
    tiny = Embedder(write_tiny_model(tmp_path / "tiny"))
    with pytest.raises(InputError, match=r"has no range for vectors of 5 dimensions; write it with python -m export"):
        tiny.embed("red", dtype="int8")
    assert tiny.embed("red", dtype="float16").dtype == np.float16


@pytest.mark.parametrize("limits", [{"384": 2.0}, {"384": "0.2"}, {"wide": 0.2}, [0.2]])
def test_a_damaged_range_is_named(tmp_path: Path, limits: Any) -> None:
    shutil.copytree(bundled_model_path("gte-nano"), tmp_path / "model")
    file = tmp_path / "model" / "gte.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "int8_limits": limits}))
    with pytest.raises(ModelFormatError, match=r"int8_limits=.*; it maps widths to numbers above 0"):
        Embedder(tmp_path / "model")
