"""The command `gte` as a process: the bundled model from any folder, missing extras, signals and pipes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import PIPE

import pytest
from click.testing import CliRunner

from gte_sdk import __version__
from gte_sdk.cli.commands import gte

from ..tiny_models import write_tiny_model

GTE = [sys.executable, "-m", "gte_sdk.cli"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of POSIX")


def run(command: Sequence[str], folder: Path, standard_input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, input=standard_input, capture_output=True, text=True, timeout=300)


def test_version_and_help() -> None:
    (script,) = entry_points(group="console_scripts", name="gte")
    assert script.value == "gte_sdk.cli:main"
    runner = CliRunner()
    assert runner.invoke(gte, ["--version"]).stdout == f"gte-sdk {__version__}\n"
    for command in ([], *([name] for name in gte.commands)):
        result = runner.invoke(gte, [*command, "-h"])
        assert result.exit_code == 0
        assert re.search(r"Examples:\n +gte ", result.stdout)
    assert runner.invoke(gte, ["serch"]).exit_code == 2


def test_the_bundled_model_answers_by_meaning(tmp_path: Path) -> None:
    (tmp_path / "animals.md").write_text("# Pets\n\nA kitten sleeps on the sofa.\n", encoding="utf-8")
    (tmp_path / "money.md").write_text("# Finance\n\nInterest rates rose again in March.\n", encoding="utf-8")
    questions = "Where is the young cat?\nWhat does a loan cost?\n"
    result = run([*GTE, "search", "-", ".", "--json", "-k", "1"], tmp_path, questions)
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == ["animals.md", "money.md"]


@pytest.mark.parametrize("missing", ["click", "tqdm"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from gte_sdk.cli import main; main()"
    result = run([sys.executable, "-c", code], tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"gte: the command line needs {missing}: pip install 'gte-sdk[cli]'\n"
    assert result.stdout == ""


def test_only_parquet_needs_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red\n", encoding="utf-8")
    model = write_tiny_model(tmp_path / "model")
    code = "import sys; sys.modules['pyarrow'] = None; from gte_sdk.cli import main; main()"
    command = [sys.executable, "-c", code, "embed", "a.txt", "--model", str(model), "-q", "-o"]
    assert run([*command, "a.npy"], tmp_path).returncode == 0
    result = run([*command, "a.parquet"], tmp_path)
    assert (result.returncode, result.stderr) == (1, "Error: Parquet needs pyarrow: pip install 'gte-sdk[cli]'\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.txt", "model"]


def test_importing_the_package_imports_nothing_of_the_command_line(tmp_path: Path) -> None:
    code = "import gte_sdk, sys; print([name for name in ('click', 'tqdm', 'pyarrow') if name in sys.modules])"
    assert run([sys.executable, "-c", code], tmp_path).stdout == "[]\n"


@posix_only
def test_control_c_while_waiting_for_a_question_exits_130(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("red", encoding="utf-8")
    command = [*GTE, "search", "-", "a.md", "--model", str(write_tiny_model(tmp_path / "model"))]
    with subprocess.Popen(command, cwd=tmp_path, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("red\n")
        process.stdin.flush()
        assert process.stdout.readline() == "red\n"  # answered while the input is still open
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors


@posix_only
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_embed_leaves_no_half_file(tmp_path: Path, signal_number: int, code: int) -> None:
    command = [*GTE, "embed", "-", "-o", "out.npy", "--model", str(write_tiny_model(tmp_path / "model"))]
    with subprocess.Popen(command, cwd=tmp_path, stdin=PIPE, stderr=PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(".out.npy.*.part")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(tmp_path.glob(".out.npy.*.part"))
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@posix_only
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red\n" * 20_000, encoding="utf-8")
    command = [*GTE, "embed", "a.txt", "--model", str(write_tiny_model(tmp_path / "model"))]
    with subprocess.Popen(command, cwd=tmp_path, stdout=PIPE, stderr=PIPE, text=True) as process:
        timer = threading.Timer(300, process.kill)  # a process that goes on fails the test, it does not hang it
        timer.start()
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "red"
        process.stdout.close()
        assert process.stderr.read() == ""
        timer.cancel()
    assert process.returncode == 141


@posix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path) -> None:
    command = [*GTE, "embed", "-", "--model", str(write_tiny_model(tmp_path / "model"))]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, cwd=tmp_path, input="red\n", stdout=full, stderr=PIPE, text=True, timeout=300)
    assert result.returncode == 1
    assert result.stderr == f"Error: standard output: [Errno 28] {os.strerror(28)}\n"
    full_file = subprocess.run(
        [*command, "--output", "/dev/full"], cwd=tmp_path, input="red\n", capture_output=True, text=True, timeout=300
    )
    assert full_file.returncode == 1
    assert full_file.stderr == f"Error: [Errno 28] {os.strerror(28)}: '/dev/full'\n"


@posix_only
def test_a_terminal_gets_a_progress_bar_and_a_dialogue(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    (tmp_path / "a.md").write_text("red", encoding="utf-8")
    command = [*GTE, "search", "-", "a.md", "--model", str(write_tiny_model(tmp_path / "model"))]
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        with subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=PIPE, stderr=theirs, text=True) as process:
            assert process.stdout is not None
            shown = read_until(ours, "question> ")
            os.write(ours, b"red\n")
            assert process.stdout.readline().startswith("a.md:1  ")  # the question is on the screen already
            shown += read_until(ours, "question> ")
            os.write(ours, b"\x04")  # Ctrl-D
            process.stdout.read()
        assert process.returncode == 0
        assert "embedding:   0%|" in shown
    finally:
        os.close(theirs)
        os.close(ours)


def read_until(descriptor: int, end: str) -> str:
    shown = ""
    while not shown.endswith(end):
        shown += os.read(descriptor, 4096).decode("utf-8", "replace")
    return shown
