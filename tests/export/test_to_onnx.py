"""The command as a whole: what it writes, and that it writes nothing when it cannot write everything."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

import export.to_onnx
import gte_sdk
from export.graphs.trace import write_graph
from export.to_onnx import main
from gte_sdk.model_files.directory import FORMAT_VERSION, checked_file, read_model_dir
from training.encoders.encoder import AnyEncoder

from .conftest import DIM, MAX_TOKENS, CheckpointMaker

LAYOUT = {
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "golden.json",
    "gte.json",
    "modules.json",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "parity.json",
    "parity.png",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
ROOT = Path(__file__).parents[2]


def run(checkpoint: Path, output: Path, *options: str) -> click.testing.Result:
    arguments = [str(checkpoint), "--output", str(output), "--minimum-recall", "0", *options]
    return click.testing.CliRunner().invoke(main, arguments, catch_exceptions=False)


def refused(checkpoint: Path, output: Path, *options: str) -> str:
    """Runs an export that must fail, and gives its message after looking that nothing was left behind."""
    before = sorted(output.parent.rglob("*"))
    result = run(checkpoint, output, *options)
    assert result.exit_code != 0
    assert sorted(output.parent.rglob("*")) == before
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.output
    return errors[0]


@pytest.fixture
def spoiled(bert_checkpoint: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the checkpoint that a test may spoil."""
    return lambda: Path(shutil.copytree(bert_checkpoint, tmp_path / "spoiled"))


@pytest.fixture(scope="module")
def exported(bert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exports") / "tiny"
    note = output.parent / "note.md"
    note.write_text("A sentence of my own.\n")
    result = run(bert_checkpoint, output, "--license", "MIT", "--note", str(note))
    assert result.exit_code == 0, result.output
    assert "cosine mean" in result.stdout
    return output


def test_layout_and_description(exported: Path, bert_checkpoint: Path) -> None:
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert files == LAYOUT
    assert [path.name for path in exported.parent.iterdir()].count("tiny") == 1
    described = read_model_dir(exported)
    assert (described.name, described.dim, described.max_tokens) == ("tiny", DIM, MAX_TOKENS)
    assert (described.pooling, described.normalize) == ("mean", True)
    assert set(described.files) == LAYOUT - {"gte.json"}
    for name in described.files:
        checked_file(described, name)
    fields = json.loads((exported / "gte.json").read_text(encoding="utf-8"))
    assert fields["format_version"] == FORMAT_VERSION
    assert fields["licence"] == "MIT"
    assert fields["provenance"]["source"] == bert_checkpoint.name


def test_nothing_names_this_machine(exported: Path, bert_checkpoint: Path) -> None:
    for path in exported.rglob("*"):
        if path.is_file() and path.name != "README.md" and path.name != "gte.json":
            assert str(bert_checkpoint).encode() not in path.read_bytes(), path
            assert str(ROOT).encode() not in path.read_bytes(), path
    assert str(bert_checkpoint) not in (exported / "README.md").read_text(encoding="utf-8")
    assert str(bert_checkpoint) not in (exported / "gte.json").read_text(encoding="utf-8")


def test_card(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert "A sentence of my own." in card
    report = json.loads((exported / "parity.json").read_text(encoding="utf-8"))
    assert f"{report['precisions']['int8']['cosine']['mean']:.4f}" in card
    assert "python export/to_onnx.py SOURCE --output tiny --license MIT --note note.md --minimum-recall 0.0" in card


def test_every_reader_is_told_the_token_limit(exported: Path) -> None:
    for name, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        assert json.loads((exported / name).read_text(encoding="utf-8"))[key] == MAX_TOKENS
    tokenizer = json.loads((exported / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None


def test_int8_only(bert_checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    result = run(bert_checkpoint, tmp_path / "small", "--precision", "int8", "--license", "MIT")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "small/onnx").iterdir()] == ["model_quantized.onnx"]
    small, both = (tmp_path / "small/onnx/model_quantized.onnx", exported / "onnx/model_quantized.onnx")
    assert small.read_bytes() == both.read_bytes()  # the same command gives the same graph
    embedder = gte_sdk.Embedder(tmp_path / "small")
    assert embedder.variant == "int8"
    assert embedder.fingerprint == gte_sdk.Embedder(exported, variant="fp32").fingerprint
    report = json.loads((tmp_path / "small/parity.json").read_text(encoding="utf-8"))
    assert report["fp32_against_pytorch"]["maximum_difference"] <= 1e-5


def test_fp16(bert_checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    result = run(bert_checkpoint, tmp_path / "half", "--precision", "fp32,fp16")
    assert result.exit_code == 0, result.output
    graphs = {path.name: path.stat().st_size for path in (tmp_path / "half/onnx").iterdir()}
    assert set(graphs) == {"model.onnx", "model_fp16.onnx"}
    assert graphs["model_fp16.onnx"] < 0.8 * graphs["model.onnx"]
    (fp16,) = [value for key, value in read_report(tmp_path / "half")["precisions"].items() if key == "fp16"]
    assert 0.9999 < fp16["cosine"]["minimum"] < 1 - 1e-9
    session = onnxruntime.InferenceSession(str(tmp_path / "half/onnx/model_fp16.onnx"))
    token_ids = np.array([[2, 9, 8, 3]])
    inputs = {"input_ids": token_ids, "attention_mask": np.ones_like(token_ids), "token_type_ids": token_ids * 0}
    hidden, sentence = session.run(["last_hidden_state", "sentence_embedding"], inputs)
    assert hidden.dtype == sentence.dtype == np.float32
    assert np.linalg.norm(sentence) == pytest.approx(1, abs=1e-6)


def read_report(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "parity.json").read_text(encoding="utf-8"))
    return report


def test_fewer_tokens(bert_checkpoint: Path, tmp_path: Path) -> None:
    result = run(bert_checkpoint, tmp_path / "short", "--max-tokens", "16", "--no-quantize")
    assert result.exit_code == 0, result.output
    embedder = gte_sdk.Embedder(tmp_path / "short", truncation="ignore")
    assert embedder.max_tokens == 16
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    assert np.array_equal(embedder.embed(words), embedder.embed(words * 3))


def test_another_weight_is_another_fingerprint(exported: Path, spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    weights = load_file(checkpoint / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][3, 4] += 1e-3
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert run(checkpoint, tmp_path / "other", "--no-quantize").exit_code == 0
    assert read_model_dir(tmp_path / "other").fingerprint != read_model_dir(exported).fingerprint


def test_a_perturbed_weight_is_refused(bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_perturbed(encoder: AnyEncoder, path: Path, opset: int) -> None:
        write_graph(encoder, path, opset)
        graph = onnx.load(path)
        (table,) = [tensor for tensor in graph.graph.initializer if "position_embeddings" in tensor.name]
        values = numpy_helper.to_array(table).copy()
        values[1, 3] += 1e-2
        table.CopyFrom(numpy_helper.from_array(values, table.name))
        onnx.save(graph, path)

    monkeypatch.setattr(export.to_onnx, "write_graph", write_perturbed)
    message = refused(bert_checkpoint, tmp_path / "model")
    assert "the fp32 graph differs from PyTorch by" in message
    assert "more than 1e-05" in message


def test_a_threshold_that_is_missed(bert_checkpoint: Path, tmp_path: Path) -> None:
    message = refused(bert_checkpoint, tmp_path / "model", "--minimum-cosine", "0.9999999")
    assert "int8 has minimum cosine to fp32 0.9" in message
    assert "less than 1.0000" in message


def test_an_existing_output_is_kept(bert_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "mine.txt").write_text("precious")
    assert "pass --overwrite" in refused(bert_checkpoint, output)
    assert (output / "mine.txt").read_text() == "precious"
    assert run(bert_checkpoint, output, "--overwrite", "--no-quantize").exit_code == 0
    assert not (output / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_overwrite_keeps_the_old_output(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "mine.txt").write_text("precious")
    checkpoint = spoiled()
    (checkpoint / "tokenizer.json").unlink()
    refused(checkpoint, output, "--overwrite")
    assert (output / "mine.txt").read_text() == "precious"


def test_missing_tokenizer(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    (checkpoint / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refused(checkpoint, tmp_path / "model")


def test_unsupported_architecture(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    message = refused(checkpoint, tmp_path / "model")
    assert "'gpt2' is not supported; supported are bert, roberta" in message
    assert "optimum may know it: pass --exporter optimum" in message


def test_wrong_pooling_file(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    pooling = {"word_embedding_dimension": DIM, "pooling_mode": ["cls", "mean"]}
    (checkpoint / "1_Pooling/config.json").write_text(json.dumps(pooling))
    message = refused(checkpoint, tmp_path / "model")
    assert "1_Pooling/config.json asks for pooling ['cls', 'mean']" in message


def test_another_pooling_than_the_sources(bert_checkpoint: Path, tmp_path: Path) -> None:
    message = refused(bert_checkpoint, tmp_path / "model", "--pooling", "cls")
    assert "--pooling cls; " in message
    assert "asks for mean: leave --pooling out" in message


def test_pickled_weights_are_refused(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    message = refused(checkpoint, tmp_path / "model")
    assert "safetensors" in message


def test_damaged_weights(spoiled: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = spoiled()
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be read: SafetensorError" in refused(checkpoint, tmp_path / "model")


def test_no_such_source(tmp_path: Path) -> None:
    assert "is not a directory" in refused(tmp_path / "nothing/here", tmp_path / "model")


def test_unknown_precision(bert_checkpoint: Path, tmp_path: Path) -> None:
    assert "'int4'" in refused(bert_checkpoint, tmp_path / "model", "--precision", "int4")


def test_too_small_a_disk(bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "0 MB are free" in refused(bert_checkpoint, tmp_path / "model")


@pytest.mark.skipif(find_spec("optimum") is not None, reason="optimum is installed; tests/optimum tests it")
def test_optimum_is_an_extra(bert_checkpoint: Path, tmp_path: Path) -> None:
    message = refused(bert_checkpoint, tmp_path / "model", "--exporter", "optimum")
    assert "--exporter optimum needs optimum-onnx (No module named 'optimum')" in message
    assert "pip install '.[optimum]'" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up(bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_to_full_disk(encoder: AnyEncoder, path: Path, opset: int) -> None:
        path.symlink_to("/dev/full")
        path.write_bytes(b"x" * 100_000)

    monkeypatch.setattr(export.to_onnx, "write_graph", write_to_full_disk)
    assert "no space is left" in refused(bert_checkpoint, tmp_path / "model")


def test_a_plain_hugging_face_directory(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("distilbert")
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (checkpoint / name).unlink()
    shutil.rmtree(checkpoint / "1_Pooling")
    output = tmp_path / "model"
    assert "does not say how its vectors are pooled" in refused(checkpoint, output, "--no-quantize")
    assert run(checkpoint, output, "--no-quantize", "--pooling", "max").exit_code == 0
    assert gte_sdk.Embedder(output).embed("a text").shape == (DIM,)
    assert read_model_dir(output).pooling == "max"
    assert [module["type"].split(".")[-1] for module in json.loads((output / "modules.json").read_text())] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert gte_sdk.Embedder(output).max_tokens == MAX_TOKENS
