"""Signals end every command, whatever it is doing, and leave nothing that is half written.

Each command is stopped by a real signal in a call that never comes back and that Python cannot interrupt.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte

from ..tiny_models import write_tiny_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

# Runs `gte` with a function replaced by a call of the system that waits for ever. Arguments: seconds, module, name.
STUCK = """
import ctypes, importlib, sys
from gte_sdk.cli import main, stopping
stopping.SECONDS_TO_STOP, module, name = float(sys.argv[1]), sys.argv[2], sys.argv[3]
del sys.argv[1:4]
def stuck(*_, **__):
    print("stuck", flush=True)
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
owner, _, method = name.rpartition(".")
module = importlib.import_module(module)
setattr(getattr(module, owner) if owner else module, method, stuck)
main()
"""
EMBEDDING = ("gte_sdk.embedding.embedder", "Embedder.embed_tokens")
COMMANDS = {
    "embed": (EMBEDDING, ["embed", "texts.txt", "-o", "out.npy", "--model", "model"]),
    "index": (EMBEDDING, ["index", "texts.txt", "-o", "out.index", "--model", "model"]),
    "search": (EMBEDDING, ["search", "red", "texts.txt", "--model", "model"]),
    "bundle": (("gte_sdk.cli.bundle", "write_bundle"), ["bundle", "model", "out.gte"]),
    "verify": (("gte_sdk.cli.bundle", "check_embeds"), ["verify", "gte-nano"]),
    "convert": (("gte_sdk.cli.convert", "write_int8_directory"), ["convert", "model", "--output", "out"]),
    "serve": (("gte_sdk.cli.serve", "open_model"), ["serve", "--port", "0", "--model", "model"]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("red\ngreen\n", encoding="utf-8")
    return tmp_path


def sleeps(pid: int) -> bool:
    """Whether a process's first thread waits in a call; True where the system does not say it."""
    state = Path(f"/proc/{pid}/stat")
    return not state.is_file() or state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "S"


@contextmanager
def stuck(folder: Path, name: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    where, arguments = COMMANDS[name]
    command = [sys.executable, "-c", STUCK, str(seconds), *where, *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            while not sleeps(process.pid):  # a signal between the line and the call would find Python itself
                pass
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_that_does_not_come_back_cannot_keep_a_command(folder: Path, name: str, number: signal.Signals) -> None:
    with stuck(folder, name, 0.2) as process:
        process.send_signal(number)
        assert process.wait(300) == 128 + number
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not list(folder.glob("out.npy")) + list(folder.glob("out.gte")) + list(folder.glob("out"))


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_command_at_once(folder: Path, second: signal.Signals) -> None:
    with stuck(folder, "embed", 1e6) as process:
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:  # one that comes at once is the same signal
            process.send_signal(second)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        assert process.returncode == 128 + second


@pytest.mark.parametrize("name", ["embed", "index", "bundle"])
def test_the_next_run_finds_nothing_in_its_way(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stuck(folder, name, 0.2) as process:
        process.send_signal(signal.SIGTERM)
        process.wait(300)
    monkeypatch.chdir(folder)
    arguments = COMMANDS[name][1]
    result = CliRunner().invoke(gte, [*arguments, *(["--overwrite"] if name == "embed" else [])])
    assert result.exit_code == 0, result.output
    output = Path(next(each for each in arguments if each.startswith("out.")))
    assert sorted(path.name for path in folder.iterdir()) == sorted(["model", "texts.txt", output.name])
    if name == "embed":
        with Embedder("model") as embedder:
            assert np.array_equal(np.load(output), embedder.embed(["red", "green"]))


def test_a_command_that_can_be_interrupted_cleans_up(folder: Path) -> None:
    """As ever: the watch ends nothing that ends by itself."""
    program = STUCK.replace("ctypes.CDLL(None).pthread_mutex_lock(mutex)", "signal.pause()")
    where, arguments = COMMANDS["bundle"]
    command = [sys.executable, "-c", f"import signal\n{program}", "1e6", *where, *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    assert sorted(path.name for path in folder.iterdir()) == ["model", "texts.txt"]
