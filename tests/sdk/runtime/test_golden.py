"""A machine that computes other vectors than the export did is found as the model opens, and something else runs."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import DeviceError, Embedder, ModelFormatError
from gte_sdk.model_files.directory import (
    GRAPH_FILES,
    bundled_model_path,
    read_model_dir,
    sha256_of_file,
    write_gte_json,
)
from gte_sdk.runtime.golden import Golden, GoldenVectors, deviation, golden_fields, read_golden
from gte_sdk.runtime.native import engine as native

from ..tiny_models import TABLE, tiny_vector, write_tiny_model

BUNDLED = bundled_model_path("gte-mini")
TEXTS = ["", "red green", "blue fast slow red"]
SATURATED = TABLE * np.linspace(0.2, 1.4, TABLE.size).reshape(TABLE.shape).astype(np.float32)


def write_model(
    path: Path, tables: Mapping[str, NDArray[np.float32]], golden: Mapping[str, NDArray[np.float32]] | None = None
) -> Path:
    """A tiny model of our export's kind. `tables`: what each graph computes with; `golden`: what it should give."""
    for variant, table in tables.items():
        write_tiny_model(path, graph_name=GRAPH_FILES[variant][0], table=table)
    right = np.array([tiny_vector(text) for text in TEXTS], dtype=np.float32)
    rows = golden if golden is not None else dict.fromkeys(tables, right)
    vectors = {variant: GoldenVectors("onnxruntime 0", expected) for variant, expected in rows.items()}
    (path / "golden.json").write_text(json.dumps(golden_fields(Golden(TEXTS, vectors))), encoding="utf-8")
    write_gte_json(
        path, name="tiny", dim=TABLE.shape[1], max_tokens=32, pooling="mean", prompts={},
        fingerprint="sha256:0", licence="MIT", provenance={},
    )  # fmt: skip
    return path


def test_a_machine_that_is_right_says_nothing(tmp_path: Path) -> None:
    directory = write_model(tmp_path, {"int8": TABLE, "fp32": TABLE})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Embedder(directory)
    assert model.variant == "int8"
    golden = read_golden(read_model_dir(directory))
    assert golden is not None
    assert golden.texts == TEXTS
    np.testing.assert_allclose(model.embed(TEXTS), golden.vectors["int8"].rows, atol=1e-6)


@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_int8_that_deviates_is_left_for_fp32_with_a_warning(tmp_path: Path, asked: str) -> None:
    directory = write_model(tmp_path, {"int8": SATURATED, "fp32": TABLE})
    with pytest.warns(UserWarning, match=r"model_quantized\.onnx on onnxruntime .* has a cosine of 0\.\d+ to") as seen:
        model = Embedder(directory, variant=asked)
    assert [str(warning.message).count("variant='fp32' runs on 'onnxruntime' instead") for warning in seen] == [1]
    assert seen[0].filename == __file__
    assert model.variant == "fp32"
    np.testing.assert_allclose(model.embed("red"), tiny_vector("red"), atol=1e-6)


def test_a_variant_that_deviates_too_or_that_nothing_vouches_for_is_not_taken(tmp_path: Path) -> None:
    both = write_model(tmp_path / "both", {"int8": SATURATED, "fp32": SATURATED})
    with pytest.raises(DeviceError, match=r"model_quantized\.onnx .*/model\.onnx .*has a cosine of"):
        Embedder(both)
    right = np.array([tiny_vector(text) for text in TEXTS], dtype=np.float32)
    unknown = write_model(tmp_path / "unknown", {"int8": SATURATED, "fp32": TABLE}, golden={"int8": right})
    with pytest.raises(DeviceError, match="no other variant that may be used does"):
        Embedder(unknown)


def test_vectors_that_are_no_numbers_deviate(tmp_path: Path) -> None:
    directory = write_model(tmp_path, {"int8": TABLE * np.float32(np.nan)})
    with pytest.raises(DeviceError, match=r"has a cosine of nan to its golden vectors; it must be at least 0\.99"):
        Embedder(directory)


def test_a_directory_without_golden_vectors_opens_as_before(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path, table=SATURATED)
    assert Embedder(directory).variant == "fp32"


# --- the bundled model


def test_the_bundled_model_has_golden_vectors_of_the_native_engine() -> None:
    golden = read_golden(read_model_dir(BUNDLED))
    assert golden is not None
    assert len(golden.texts) >= 8
    assert golden.vectors["int8"].made_by == native.ARITHMETIC
    np.testing.assert_array_equal(Embedder("gte-mini").embed(golden.texts), golden.vectors["int8"].rows)
    on_session = Embedder("gte-mini", engine="onnxruntime").embed(golden.texts)
    assert deviation(golden.vectors["int8"], on_session, "int8", exact=False) is None


@pytest.fixture
def one_bit_off(tmp_path: Path) -> Path:
    """The bundled model with golden vectors of which a single number ends in another bit."""
    directory = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    golden = read_golden(read_model_dir(directory))
    assert golden is not None
    rows = golden.vectors["int8"].rows.copy()
    rows[3, 7] = np.nextafter(rows[3, 7], np.float32(1))
    expected = GoldenVectors(golden.vectors["int8"].made_by, rows)
    replace_golden(directory, golden_fields(golden._replace(vectors={"int8": expected})))
    return directory


def replace_golden(directory: Path, content: Any) -> None:
    (directory / "golden.json").write_text(json.dumps(content), encoding="utf-8")
    fields = json.loads((directory / "gte.json").read_text(encoding="utf-8"))
    file = directory / "golden.json"
    fields["files"]["golden.json"] = {"sha256": sha256_of_file(file), "bytes": file.stat().st_size}
    (directory / "gte.json").write_text(json.dumps(fields), encoding="utf-8")


def test_the_native_engine_is_held_to_the_last_bit(one_bit_off: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"gives different bits for 1 of \d+ golden texts.*runs on 'onnxruntime' instead"
    ):
        model = Embedder(one_bit_off)
    assert (model.engine, model.variant) == ("onnxruntime", "int8")  # which has no promise of bits, and is near enough
    with pytest.raises(DeviceError, match=r"gives different bits for 1 of \d+ golden texts.*leave engine='auto'"):
        Embedder(one_bit_off, engine="native")


def test_golden_vectors_of_another_arithmetic_are_compared_by_cosine(
    one_bit_off: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "ARITHMETIC", "native 0")
    assert Embedder(one_bit_off).engine == "native"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"texts": ["a"], "vectors": {"int8": {"made_by": "x", "float32": "AAAA"}}},
        {"texts": ["a"], "vectors": {"int8": {"made_by": "x", "float32": "not base64"}}},
        {"texts": ["a"], "vectors": []},
    ],
)
def test_malformed_golden_vectors_are_named(one_bit_off: Path, content: Any) -> None:
    replace_golden(one_bit_off, content)
    with pytest.raises(ModelFormatError, match=r"golden\.json does not hold golden vectors"):
        Embedder(one_bit_off)


def test_changed_golden_vectors_are_refused(one_bit_off: Path) -> None:
    (one_bit_off / "golden.json").write_bytes(b"{}")
    with pytest.raises(ModelFormatError, match=r"golden\.json has 2 bytes where gte\.json records"):
        Embedder(one_bit_off)
