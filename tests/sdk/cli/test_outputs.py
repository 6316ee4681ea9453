"""What a command writes to: devices, pipes, links, descriptors, its own input, and streams that are closed."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Index
from gte_sdk.cli.commands import gte

from ..tiny_models import DIM, write_tiny_model

GTE = [sys.executable, "-m", "gte_sdk.cli"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="devices, pipes and permissions of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("red\ngreen\n", encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


@posix_only
@pytest.mark.parametrize("output_format", ["npy", "jsonl", "parquet"])
def test_devices_pipes_and_links_stay_what_they_are(
    model: Path, texts: Path, tmp_path: Path, output_format: str
) -> None:
    command = ["embed", texts, "--model", model, "--format", output_format, "-o"]
    result = run(*command, os.devnull)
    assert result.exit_code == 0, result.output
    assert Path(os.devnull).is_char_device()
    assert not Path(f"{os.devnull}.unfinished").exists()

    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert run(*command, tmp_path / "pipe").exit_code == 0
    reader.join()
    assert (tmp_path / "pipe").is_fifo()

    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        assert run(*command, tmp_path / "link", "--overwrite").exit_code == 0
        (tmp_path / "real").chmod(0o600)
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o600
    assert (tmp_path / "real").read_bytes() == received[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "real", "texts.txt"]


@posix_only
def test_a_model_and_an_index_go_into_a_device_too(model: Path, tmp_path: Path) -> None:
    assert run("bundle", model, os.devnull).exit_code == 0
    Index(3).save(os.devnull)
    assert Path(os.devnull).is_char_device()
    result = run("index", tmp_path, "-o", os.devnull, "--model", model)
    assert result.exit_code == 1
    assert "/dev/null exists and is not a passage index" in result.stderr


@posix_only
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_can_be_named(model: Path, texts: Path, tmp_path: Path, name: str) -> None:
    if not Path(name).parent.is_dir():
        pytest.skip("this system has no such name")
    command = [*GTE, "embed", str(texts), "--model", str(model), "-q", "-o", name]
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        assert subprocess.run(command, stdout=out, timeout=300).returncode == 0
    first, *rows = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert first == "before"
    assert [json.loads(row)["text"] for row in rows] == ["red", "green"]


@pytest.mark.parametrize(
    ("suffix", "target", "options"),
    [
        (".txt", "npy", []),
        (".csv", "jsonl", []),
        (".jsonl", "npy", []),
        (".jsonl", "parquet", []),
        (".jsonl", "jsonl", ["--on-null", "skip"]),
    ],
)
@pytest.mark.parametrize("through", ["itself", "a link", "another name"])
def test_a_run_that_would_destroy_its_own_input_is_refused(
    model: Path, tmp_path: Path, suffix: str, target: str, options: list[str], through: str
) -> None:
    source = tmp_path / f"in{suffix}"
    content = {".txt": "red\n", ".csv": "text\nred\n", ".jsonl": '{"text": "red"}\n'}[suffix]
    source.write_text(content, encoding="utf-8")
    output = source if through == "itself" else tmp_path / "other"
    if through == "a link":
        output.symlink_to(source)
    elif through == "another name":
        os.link(source, output)
    result = run("embed", source, "-o", output, "--format", target, "--overwrite", "--model", model, *options)
    assert (result.exit_code, source.read_text(encoding="utf-8")) == (2, content)
    assert "is INPUT itself, which would be lost" in result.stderr


def test_a_bundle_does_not_replace_a_file_of_its_model(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    graph = model / "onnx" / "model.onnx"
    before = graph.read_bytes()
    result = run("bundle", model, graph, "--overwrite")
    assert (result.exit_code, graph.read_bytes()) == (2, before)
    assert "is a file of MODEL, which would be lost" in result.stderr


@pytest.mark.parametrize("name", ["x" * 240, "x" * 251, "[ab]*?" + "x" * 150])
def test_long_names_work_to_the_end(model: Path, texts: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / f"{name}.npy"
    assert run("embed", texts, "-o", output, "--model", model).exit_code == 0
    assert np.load(output).shape == (2, DIM)
    texts.write_bytes(b"red\n" * 600 + b"\xff\n")
    command = ["embed", texts, "-o", output, "--model", model, "--overwrite"]
    assert "512 texts are kept" in run(*command).stderr
    texts.write_bytes(b"red\n" * 600)
    assert "512 of them kept from before" in run(*command, "--resume").stderr
    assert np.load(output).shape == (600, DIM)
    index = Index(3)
    index.save(tmp_path / name)
    assert len(Index.open(tmp_path / name)) == 0


@posix_only
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("search red texts.txt", 0),
        ("search - texts.txt", 1),
        ("embed texts.txt -o {output}", 0),
        ("models", 0),
        ("serch", 2),
    ],
)
def test_no_command_needs_the_standard_streams(
    model: Path, texts: Path, tmp_path: Path, arguments: str, code: int, closed: str
) -> None:
    """As in a windowed application: no traceback, and no message in the file that got the free descriptor."""
    output = tmp_path / "out.npy"
    command = f"{' '.join(GTE)} {arguments.format(output=output)} {closed}"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    if "embed" in arguments or "search" in arguments:
        command += f" --model {model}"
    streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=300, text=True, env=environment, **streams)
    assert "Traceback" not in result.stderr
    assert result.returncode == code, result.stderr
    if output.exists():
        assert np.load(output).shape == (2, DIM)


@posix_only
def test_a_file_name_cannot_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    evil = "a\x1b]0;owned\x07\x1b[2J.txt"
    (tmp_path / evil).write_bytes(b"\xff\n")
    (tmp_path / "good.txt").write_text("red\n", encoding="utf-8")
    missing = tmp_path / f"missing{evil}"
    named = tmp_path / evil
    for arguments in (
        ["embed", named, "--model", model],
        ["embed", missing],
        ["embed", named, "-o", named, "--overwrite", "--format", "npy"],
        ["embed", tmp_path / "good.txt", "-o", missing],
        ["embed", tmp_path / "good.txt", "-o", named / "a.npy"],
        ["search", "red", tmp_path, "--model", model],
        ["search", "red", named, "--model", model],
        ["search", "red", missing],
        ["index", tmp_path, "-o", tmp_path / f"{evil}.index", "--model", model],
        ["index", tmp_path, "-o", named],
        ["bundle", model, tmp_path / f"{evil}.gte"],
        ["verify", tmp_path / f"{evil}.gte"],
        ["verify", named],
        ["search", "red", tmp_path / "good.txt", "--model", named],
    ):
        result = run(*arguments)
        assert "\x1b" not in result.output, arguments
        assert "\x07" not in result.output, arguments


@posix_only
@pytest.mark.parametrize("input_format", ["lines", "jsonl", "json", "csv", "tsv", "parquet"])
def test_a_device_without_an_end_is_refused(model: Path, input_format: str, tmp_path: Path) -> None:
    result = run("embed", "/dev/zero", "--input-format", input_format, "-o", tmp_path / "out.npy", "--model", model)
    assert result.exit_code == 1
    assert "/dev/zero" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_line_of_hundreds_of_megabytes_is_refused(model: Path, tmp_path: Path) -> None:
    with (tmp_path / "one.txt").open("wb") as file:
        file.truncate(300_000_000)  # takes no room on the disk
    result = run("embed", tmp_path / "one.txt", "-o", tmp_path / "out.npy", "--model", model)
    assert result.exit_code == 1
    assert "line 1 has more than 3 MiB; split it into several texts" in result.stderr
