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


@pytest.mark.parametrize("command", [["export/to_onnx.py"], ["-m", "export.golden"], ["-m", "export.ranges"]])
def test_a_command_takes_the_installed_gte_sdk_before_that_of_the_checkout(command: list[str], tmp_path: Path) -> None:
    """A checkout holds gte_sdk without its extension where the wheel is what is installed."""
    checkout = tmp_path / "checkout"
    for package in ("export", "training"):
        shutil.copytree(ROOT / package, checkout / package)
    (checkout / "gte_sdk").mkdir()
    (checkout / "gte_sdk" / "__init__.py").write_text("raise ImportError('the extension is not here')")
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "gte_sdk").symlink_to(Path(gte_sdk.__file__).parent)
    assert "Usage: " in run(*command, "--help", cwd=checkout, PYTHONPATH=str(installed))


def test_the_export_needs_no_package_but_those_of_its_extra(bert_checkpoint: Path, tmp_path: Path) -> None:
    beyond = ["accelerate", "datasets", "pyarrow", "scipy", "sentence_transformers", "sklearn"]
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({beyond}))  # each of them is as if it were not installed\n"
        f"sys.argv[1:] = [{str(bert_checkpoint)!r}, '--output', 'model', '--no-quantize', '--minimum-recall', '0']\n"
        f"runpy.run_path({str(ROOT / 'export/to_onnx.py')!r}, run_name='__main__')\n"
    )
    (tmp_path / "program.py").write_text(program)
    run("program.py", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (tmp_path / "model/onnx/model.onnx").is_file()


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
