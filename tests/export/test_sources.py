"""Where a source comes from: the Hub by name, a training run, one of its checkpoints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import gte_sdk
from export.source import find_source
from export.to_onnx import main
from gte_sdk.errors import ModelFormatError

from ..sdk.model_files.hub_stand_in import serve_hub
from .conftest import CheckpointMaker

ROOT = Path(__file__).parents[2]
NAME = "somebody/tiny-encoder"


def export_from_hub(endpoint: str, cache: Path, output: Path, name: str = NAME) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    options = ["--no-quantize", "--minimum-recall", "0"]
    return subprocess.run(
        [sys.executable, str(ROOT / "export/to_onnx.py"), name, "--output", str(output), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_name(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(make_checkpoint("bert"), tmp_path / "repository"))
    (repository / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny encoder\n")
    torch.save(load_file(repository / "model.safetensors"), repository / "pytorch_model.bin")
    (repository / "modeling_tiny.py").write_text("raise SystemExit('remote code was run')\n")
    with serve_hub(NAME, repository) as (endpoint, requests):
        result = export_from_hub(endpoint, tmp_path / "cache", tmp_path / "from-hub")
        assert result.returncode == 0, result.stderr
        assert any("model.safetensors" in request for request in requests)
        assert not any("pytorch_model.bin" in request or "modeling_tiny.py" in request for request in requests)
    card = (tmp_path / "from-hub/README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0\n" in card
    assert f"base_model: {NAME}\n" in card
    assert f"python export/to_onnx.py {NAME} --output" in card

    arguments = [str(repository), "--output", str(tmp_path / "local"), "--no-quantize", "--minimum-recall", "0"]
    local = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert local.exit_code == 0, local.output
    texts = ["a text", "", "another one, of more words"]
    vectors = [gte_sdk.Embedder(tmp_path / name).embed(texts) for name in ("from-hub", "local")]
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_a_name_that_the_hub_does_not_have(bert_checkpoint: Path, tmp_path: Path) -> None:
    with serve_hub(NAME, bert_checkpoint) as (endpoint, _):
        result = export_from_hub(endpoint, tmp_path / "cache", tmp_path / "model", "somebody/else")
    assert result.returncode == 1
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message.startswith(f"Error: encoder somebody/else is not on {endpoint}, or is private; check the name")
    assert not (tmp_path / "model").exists()


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    result = export_from_hub("http://127.0.0.1:9", tmp_path / "cache", tmp_path / "model")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"Error: encoder {NAME} could not be fetched from http://127.0.0.1:9: " in result.stderr
    assert "check network, HTTPS_PROXY and HF_ENDPOINT" in result.stderr
    assert not (tmp_path / "model").exists()


def test_a_training_run_and_its_checkpoints(bert_checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for model in (run / "model", run / "checkpoints/step-00000002/model"):
        shutil.copytree(bert_checkpoint, model)
        assert find_source(str(model)) == find_source(str(model.parent)) == model


@pytest.mark.parametrize("source", ["./nothing", "/nothing/here", "nothing"])
def test_a_path_is_never_asked_of_the_hub(source: str) -> None:
    with pytest.raises(ModelFormatError, match="is not a directory"):
        find_source(source)
