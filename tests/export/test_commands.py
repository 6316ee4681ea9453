"""How the commands are called: as a script from anywhere, as a module, on a directory that was exported before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import gte_sdk
from export.golden import main as write_golden
from export.ranges import main as write_ranges
from export.to_onnx import main as export

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error::UserWarning", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_export_is_a_script_that_runs_from_anywhere(tmp_path: Path) -> None:
    printed = run(str(ROOT / "export/to_onnx.py"), "--help", cwd=tmp_path)
    assert "Turns a checkpoint into a model directory" in printed


def test_the_script_takes_the_installed_gte_sdk_before_that_of_the_checkout(tmp_path: Path) -> None:
    """A checkout holds gte_sdk without its extension where the wheel is what is installed."""
    checkout = tmp_path / "checkout"
    for package in ("export", "training"):
        shutil.copytree(ROOT / package, checkout / package)
    (checkout / "gte_sdk").mkdir()
    (checkout / "gte_sdk" / "__init__.py").write_text("raise ImportError('the extension is not here')")
    installed = Path(gte_sdk.__file__).parents[1]
    printed = run(str(checkout / "export/to_onnx.py"), "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "Turns a checkpoint into a model directory" in printed


@pytest.mark.parametrize("module", ["export.golden", "export.ranges"])
def test_modules_of_the_checkout(module: str) -> None:
    assert "DIRECTORY" in run("-m", module, "--help", cwd=ROOT)


def test_an_older_directory_gets_its_range_and_golden_vectors(bert_checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    arguments = [str(bert_checkpoint), "--output", str(directory), "--minimum-recall", "0", "--license", "MIT"]
    assert CliRunner().invoke(export, arguments, catch_exceptions=False).exit_code == 0
    new = (directory / "gte.json").read_bytes()
    fields = json.loads(new)
    del fields["int8_limits"], fields["files"]["golden.json"]
    (directory / "gte.json").write_text(json.dumps(fields))
    (directory / "golden.json").unlink()

    for command in (write_golden, write_ranges, write_golden):  # and once more, over its own
        assert CliRunner().invoke(command, [str(directory)], catch_exceptions=False).exit_code == 0
    assert json.loads((directory / "gte.json").read_bytes()) == json.loads(new)
    gte_sdk.Embedder(directory).embed("a text", dtype="int8")
