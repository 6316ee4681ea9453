"""`gte embed --resume` with a tiny real model: after any end of a run, every row once and the same bytes."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte

from ..tiny_models import TABLE, write_tiny_model

GTE = [sys.executable, "-m", "gte_sdk.cli"]
ROWS = 2000  # 512 in a batch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts={"query": "query: "})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    words = ["red", "green", "blue", "fast", "slow"]
    path = tmp_path / "in.txt"
    lines = (" ".join(words[(row + k * k) % 5] for k in range(row % 7)) for row in range(ROWS))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def embed(model: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, ["embed", "--model", str(model), *map(str, arguments)])


@pytest.fixture
def interrupted(model: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def run(target: str = ".npy", batches: int = 2, *arguments: str) -> Path:
        """The output of a run that ended with Ctrl-C after so many batches, which is not there."""
        output = source.with_name(f"out{target}")
        embed_tokens, calls = Embedder.embed_tokens, iter(range(batches))

        def counted(self: Embedder, ids: list[list[int]]) -> object:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return embed_tokens(self, ids)

        with monkeypatch.context() as patch:
            patch.setattr(Embedder, "embed_tokens", counted)
            result = embed(model, source, "-o", output, *arguments)
        assert result.exit_code != 0
        kept = f"gte: {batches * 512:,} texts are kept in {output}.unfinished; the same command with --resume continues"
        assert kept in result.stderr
        assert not output.exists()
        return output

    return run


@pytest.mark.parametrize("target", [".npy", ".jsonl", ".parquet"])
def test_a_resumed_run_writes_the_bytes_of_an_undisturbed_one(
    model: Path, source: Path, interrupted: Callable[..., Path], target: str
) -> None:
    output = interrupted(target)
    result = embed(model, source, "-o", output, "--resume")
    assert result.exit_code == 0, result.output
    assert f"gte: 2,000 texts, {2 * 512:,} of them kept from before" in result.stderr
    whole = source.with_name(f"whole{target}")
    assert embed(model, source, "-o", whole).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.txt", output.name, whole.name]


def test_only_what_is_missing_is_embedded(
    model: Path, source: Path, interrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = interrupted(".npy", 3)
    counts: list[int] = []
    embed_tokens = Embedder.embed_tokens

    def counted(self: Embedder, ids: list[list[int]]) -> object:
        counts.append(len(ids))
        return embed_tokens(self, ids)

    monkeypatch.setattr(Embedder, "embed_tokens", counted)
    assert embed(model, source, "-o", output, "--resume").exit_code == 0
    assert counts == [ROWS - 3 * 512]


@pytest.mark.parametrize("lost", [1, 100, 512 * 5 * 4, 512 * 5 * 4 + 20])
def test_a_batch_that_was_half_written_is_embedded_again(
    model: Path, source: Path, interrupted: Callable[..., Path], lost: int
) -> None:
    output = interrupted()
    journal = output.with_name(f"{output.name}.unfinished")
    journal.write_bytes(journal.read_bytes()[:-lost])
    assert "512 of them kept from before" in embed(model, source, "-o", output, "--resume").stderr
    np.testing.assert_array_equal(np.load(output), Embedder(model).embed(source.read_text().splitlines()))


def test_a_flipped_bit_is_noticed(model: Path, source: Path, interrupted: Callable[..., Path]) -> None:
    output = interrupted()
    journal = output.with_name(f"{output.name}.unfinished")
    content = bytearray(journal.read_bytes())
    content[-5] ^= 1
    journal.write_bytes(content)
    assert "512 of them kept from before" in embed(model, source, "-o", output, "--resume").stderr
    np.testing.assert_array_equal(np.load(output), Embedder(model).embed(source.read_text().splitlines()))


def test_a_run_that_did_not_end_is_not_begun_again_by_accident(
    model: Path, source: Path, interrupted: Callable[..., Path]
) -> None:
    output = interrupted()
    result = embed(model, source, "-o", output)
    assert result.exit_code == 1
    assert "out.npy.unfinished belongs to an unfinished run; give --resume to continue it, or --overwrite" in (
        result.stderr
    )
    result = embed(model, source, "-o", output, "--overwrite")
    assert result.exit_code == 0
    assert "kept from before" not in result.stderr
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.txt", "out.npy"]


def test_other_texts_another_model_or_kind_are_refused(
    model: Path, source: Path, interrupted: Callable[..., Path], tmp_path: Path
) -> None:
    output = interrupted()
    other = write_tiny_model(tmp_path / "other", table=TABLE * np.float32(-1))
    refused = embed(other, source, "-o", output, "--resume").stderr
    assert f"out.npy.unfinished has fingerprint {Embedder(model).fingerprint}, this run " in refused
    assert "has kind plain, this run query" in embed(model, source, "-o", output, "--resume", "--kind", "query").stderr
    lines = source.read_text().splitlines()
    lines[600] += " red"
    source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    result = embed(model, source, "-o", output, "--resume")
    assert result.exit_code == 1
    assert "rows 513 to 1024 are not those that" in result.stderr
    assert not output.exists()


def test_a_foreign_file_in_the_place_of_the_journal_is_left_alone(model: Path, source: Path) -> None:
    source.with_name("out.npy.unfinished").write_bytes(b"mine")
    result = embed(model, source, "-o", source.with_name("out.npy"), "--resume")
    assert (result.exit_code, source.with_name("out.npy.unfinished").read_bytes()) == (1, b"mine")
    assert "does not belong to an unfinished run of this gte-sdk; remove it" in result.stderr


def test_nothing_to_resume_is_a_first_run_and_standard_output_has_none(model: Path, source: Path) -> None:
    assert embed(model, source, "-o", source.with_name("out.npy"), "--resume").exit_code == 0
    result = embed(model, source, "--resume")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--resume continues a file; name it with --output" in result.stderr


def records_of(journal: Path) -> bytes:
    return journal.read_bytes().partition(b"\n")[2]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM] if sys.platform != "win32" else []
)
def test_a_killed_process_is_resumed(model: Path, source: Path, signal_number: signal.Signals) -> None:
    output = source.with_name("out.npy")
    command = [*GTE, "embed", "-", "-o", str(output), "--model", str(model)]
    lines = source.read_text()
    with subprocess.Popen(command, stdin=PIPE, stderr=PIPE, text=True) as process:
        timer = threading.Timer(300, process.kill)
        timer.start()
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in lines.splitlines()[:1500]))
        process.stdin.flush()  # two batches of it are embedded, then it waits for more
        journal = output.with_name("out.npy.unfinished")
        kept = 2 * (512 * Embedder(model).dim * 4 + 45)  # two records: vectors, and what stands before them
        while process.poll() is None and not (journal.exists() and len(records_of(journal)) == kept):
            threading.Event().wait(0.02)
        process.send_signal(signal_number)
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=120)
        timer.cancel()
    assert not output.exists()
    result = CliRunner().invoke(gte, [*command[3:], "--resume"], input=lines)
    assert "1,024 of them kept from before" in result.stderr
    np.testing.assert_array_equal(np.load(output), Embedder(model).embed(lines.splitlines()))
