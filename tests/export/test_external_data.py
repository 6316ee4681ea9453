"""Graphs of more weights than one ONNX file holds, with a limit that a tiny model exceeds."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import export.external_data
from export.parity.measure import PARITY_TEXTS, read_corpus
from export.to_onnx import main
from gte_sdk import Embedder, ModelFormatError

TEXTS = read_corpus(PARITY_TEXTS)[::10]
GRAPHS = ("onnx/model.onnx", "onnx/model_quantized.onnx")


def run_export(checkpoint: Path, output: Path, *options: str) -> str:
    arguments = [str(checkpoint), "--output", str(output), "--minimum-recall", "0", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert (result.exit_code == 0) == output.exists(), result.output
    return result.output


@pytest.fixture(scope="module")
def models(bert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One checkpoint as an export in one file each, and with all weights outside of the graphs."""
    whole, divided = (tmp_path_factory.mktemp("exports") / name for name in ("whole", "divided"))
    run_export(bert_checkpoint, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.external_data, "LARGEST_FILE", 10_000)
        run_export(bert_checkpoint, divided)
    return whole, divided


def embed(model: Path, variant: str, engine: str) -> NDArray[np.float32]:
    embedder = Embedder(model, variant=variant, engine=engine, truncation="ignore")
    assert embedder.engine == engine
    vectors: NDArray[np.float32] = embedder.embed(TEXTS)
    return vectors


def test_the_weights_are_in_one_file_each(models: tuple[Path, Path]) -> None:
    whole, divided = models
    names = [{path.relative_to(model).as_posix() for path in model.rglob("*")} for model in models]
    assert names[1] - names[0] == {f"{graph}_data" for graph in GRAPHS}
    assert names[0] <= names[1]
    files = json.loads((divided / "gte.json").read_text(encoding="utf-8"))["files"]
    for graph in GRAPHS:
        assert (divided / graph).stat().st_size < (whole / graph).stat().st_size / 2
        assert files[f"{graph}_data"]["bytes"] == (divided / f"{graph}_data").stat().st_size > 10_000
        onnx.checker.check_model(divided / graph)
        whole_weights, weights = (
            {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(model / graph).graph.initializer}
            for model in models
        )
        assert list(whole_weights) == list(weights)
        for name, values in weights.items():
            # ONNX Runtime's sums, and so the calibration, depend on where in memory the weights are.
            assert values.dtype == whole_weights[name].dtype
            allowed = 1 if values.dtype == np.int8 else 1e-6
            difference = np.abs(values.astype(np.float64) - whole_weights[name].astype(np.float64))
            assert difference.max(initial=0) <= allowed, name
    report = json.loads((divided / "parity.json").read_text(encoding="utf-8"))
    sizes = {precision: measured["bytes"] for precision, measured in report["precisions"].items()}
    assert sizes["fp32"] == sum((divided / f"onnx/model.onnx{end}").stat().st_size for end in ("", "_data"))


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_vectors_are_those_of_one_file(models: tuple[Path, Path], variant: str) -> None:
    whole, divided = (embed(model, variant, "onnxruntime") for model in models)
    np.testing.assert_allclose(divided, whole, atol=1e-6 if variant == "fp32" else 1e-2)
    assert Embedder(models[0]).fingerprint == Embedder(models[1]).fingerprint


def test_other_programs_open_it(models: tuple[Path, Path]) -> None:
    session = onnxruntime.InferenceSession(str(models[1] / GRAPHS[0]), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]


def test_changed_or_missing_weights_are_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    model = Path(shutil.copytree(models[1], tmp_path / "model"))
    data = model / "onnx/model.onnx_data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"model\.onnx_data has SHA-256"):
        Embedder(model, variant="fp32")
    data.unlink()
    with pytest.raises(ModelFormatError, match=r"model\.onnx_data is missing"):
        Embedder(model, variant="fp32")


def test_int8_alone_leaves_no_float_weights(
    bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.external_data, "LARGEST_FILE", 100_000)  # the integers fit into one file
    run_export(bert_checkpoint, tmp_path / "small", "--precision", "int8")
    assert [path.name for path in (tmp_path / "small/onnx").iterdir()] == ["model_quantized.onnx"]
    assert embed(tmp_path / "small", "int8", "onnxruntime").shape == (len(TEXTS), 32)


@pytest.mark.parametrize("options", [("--precision", "fp32,fp16"), ("--quantization", "dynamic")])
def test_what_needs_one_file_is_refused_before_the_work(
    bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str]
) -> None:
    monkeypatch.setattr(export.external_data, "LARGEST_FILE", 10_000)
    output = run_export(bert_checkpoint, tmp_path / "model", *options)
    assert "which is more than one ONNX file holds, and --" in output
    assert "tracing" not in output
