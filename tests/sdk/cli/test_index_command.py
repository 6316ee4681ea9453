"""`gte index` with a tiny real model: what an update embeds, what a search answers, what a kill leaves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder, Index
from gte_sdk.cli.commands import gte
from gte_sdk.cli.index import keep_current
from gte_sdk.passages.store import PassageStore

from ..tiny_models import TABLE, write_tiny_model

GTE = [sys.executable, "-m", "gte_sdk.cli"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "document: "}
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts=prompts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "below").mkdir(parents=True)
    write(folder / "colours.md", "# red\n\nred red red\n\n## blue\n\nblue\nblue fast\n")
    write(folder / "code.py", "def green():\n    return green\n")
    write(folder / "below" / "slow.txt", "slow slow slow\n")
    return folder


def write(path: Path, text: str) -> None:
    """Writes a file that is older than a moment, so that its times tell of the next change."""
    partial = path.with_name(f".{path.name}.partial")  # hidden, and moved at once: a watch must not see half of it
    partial.write_text(text, encoding="utf-8")
    os.utime(partial, ns=(time.time_ns() - 10**10, time.time_ns() - 10**10))
    partial.replace(path)


@contextlib.contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed after five minutes: a line that never comes ends the test, it does not hang it."""
    with subprocess.Popen(command, cwd=folder, stdout=PIPE, stderr=PIPE, text=True) as process:
        timer = threading.Timer(300, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def update(*arguments: str | Path) -> dict[str, Any]:
    result = run("index", "--json", *arguments)
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return {name: summary[name] for name in ("added", "changed", "removed", "unchanged", "embedded", "passages")}


def answers(*arguments: str | Path) -> list[dict[str, Any]]:
    result = run("search", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_index_answers_what_a_search_of_the_files_answers(model: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "notes.index"
    made = update(folder, "-o", index, "--model", model)
    assert made == {"added": 3, "changed": 0, "removed": 0, "unchanged": 0, "embedded": 4, "passages": 4}
    for count in ("1", "4", "100"):
        from_files = answers("blue", folder, "-k", count, "--model", model)
        from_index = answers("blue", index, "-k", count)
        assert from_index == from_files
    assert len(from_index) == 4
    for option, value, kinds in (("--glob", "*.py", ".py"), ("--exclude", "*.py", ".md .txt"), ("--type", "md", ".md")):
        chosen = [each["path"] for each in answers("blue", index, "-k", "9", option, value)]
        assert chosen == [each["path"] for each in from_files if Path(each["path"]).suffix in kinds.split()]
    from_index = answers("blue", index, "--mode", "meaning")
    expected = Embedder(model).embed_documents("red\n## blue\n\nblue\nblue fast") @ Embedder(model).embed_query("blue")
    np.testing.assert_allclose(from_index[0]["score"], expected, atol=2e-6)


def test_a_search_of_the_index_embeds_the_question_only(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(folder, "-o", tmp_path / "i", "--model", model)
    embedded: list[int] = []
    embed_tokens = Embedder.embed_tokens

    def counted(self: Embedder, ids: list[list[int]]) -> Any:
        embedded.append(len(ids))
        return embed_tokens(self, ids)

    monkeypatch.setattr(Embedder, "embed_tokens", counted)
    answers("blue", tmp_path / "i")
    assert embedded == [1]


def test_an_update_embeds_only_what_is_new(model: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "notes.index"
    update(folder, "-o", index, "--model", model)
    nothing = {"added": 0, "changed": 0, "removed": 0, "unchanged": 3, "embedded": 0, "passages": 4}
    assert update("-o", index) == nothing
    (folder / "code.py").touch()  # other times, the same content
    assert update("-o", index) == nothing

    write(folder / "colours.md", "# red\n\nred red red\n\n## blue\n\nblue slow\n")  # one passage of two
    (folder / "below" / "slow.txt").rename(folder / "renamed.txt")
    write(folder / "new.txt", "fast\n")
    changes = update("-o", index)
    assert changes == {"added": 2, "changed": 1, "removed": 1, "unchanged": 1, "embedded": 2, "passages": 5}
    assert {Path(answer["path"]).name for answer in answers("slow", index, "-k", "9")} == {
        "colours.md", "code.py", "renamed.txt", "new.txt",
    }  # fmt: skip
    assert answers("slow", index, "-k", "9") == answers("slow", folder, "-k", "9", "--model", model)

    for name in ("colours.md", "new.txt"):
        (folder / name).unlink()
    assert update("-o", index)["passages"] == 2
    with PassageStore(index) as store:
        assert len(store.snapshot().vector_ids) == 2  # the vectors of what is gone are gone


def test_a_change_in_the_moment_of_the_last_update_is_seen(model: Path, folder: Path, tmp_path: Path) -> None:
    path = folder / "code.py"
    path.write_text("red\n", encoding="utf-8")
    status = path.stat()
    update(folder, "-o", tmp_path / "i", "--model", model)
    path.write_text("fox\n", encoding="utf-8")  # as long, and with the same times on a coarse clock
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert update("-o", tmp_path / "i")["changed"] == 1


def test_equal_texts_share_a_vector_and_are_all_found(model: Path, folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(folder / f"licence-{number}.txt", "fast red\n")
    assert update(folder, "-o", tmp_path / "i", "--model", model)["embedded"] == 5
    everything = answers("fast red", tmp_path / "i", "-k", "9")
    assert len(everything) == 7
    found = [answer for answer in everything if answer["text"] == "fast red"]
    assert [Path(answer["path"]).name for answer in found] == [f"licence-{number}.txt" for number in range(3)]
    assert len({answer["score"] for answer in found}) == 1
    assert answers("fast red", tmp_path / "i", "-k", str(found[1]["rank"]))[-1] == found[1]


def test_folders_and_patterns_are_remembered_until_others_are_given(model: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    update(folder, "-o", index, "--model", model, "--glob", "*.txt", "--glob", "*.py")
    write(folder / "more.txt", "fast\n")
    write(folder / "more.md", "fast\n")
    assert update("-o", index) == {
        "added": 1, "changed": 0, "removed": 0, "unchanged": 2, "embedded": 1, "passages": 3,
    }  # fmt: skip
    assert update(folder / "below", "-o", index)["removed"] == 2
    assert update("-o", index)["passages"] == 1


def test_the_index_does_not_read_itself(model: Path, folder: Path) -> None:
    index = folder / "all.index"
    assert update(folder, "-o", index, "--model", model, "--glob", "*")["added"] == 3
    assert update("-o", index)["unchanged"] == 3


def test_files_without_text_are_read_once_and_unreadable_ones_are_said(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xff")
    os.utime(folder / "bad.txt", ns=(1, 1))
    result = run("index", folder, "-o", tmp_path / "i", "--model", model)
    assert "bad.txt: not UTF-16" in result.stderr
    assert "files: 4 added, 0 changed, 0 removed, 0 unchanged; 4 passages embedded" in result.stderr
    assert run("index", "-o", tmp_path / "i", "-q").output == ""


def test_another_model_is_refused_with_both_fingerprints(model: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    update(folder, "-o", index, "--model", model)
    other = write_tiny_model(tmp_path / "other", table=TABLE * np.float32(-1))
    for command in (["index", "-o"], ["search", "blue"]):
        result = run(*command, index, "--model", other)
        assert result.exit_code == 1
        for fingerprint in (Embedder(model).fingerprint, Embedder(other).fingerprint):
            assert fingerprint in result.stderr
        assert "gte index --rebuild" in result.stderr
    assert update("-o", index, "--model", other, "--rebuild")["embedded"] == 4
    assert update("-o", index) == {
        "added": 0, "changed": 0, "removed": 0, "unchanged": 3, "embedded": 0, "passages": 4,
    }  # fmt: skip
    assert answers("blue", index) == answers("blue", folder, "--model", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "notes", "other"]


def test_an_unfinished_index_answers_and_says_so(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "i"
    update(folder / "below", "-o", index, "--model", model)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PassageStore, "put_files", interrupted)
        result = run("index", folder, "-o", index)
    assert result.exit_code != 0
    assert f"{index}: finished work is saved; run the same command again to continue" in result.stderr
    assert f"{index} is not finished; to finish it: gte index --output {index}" in run("search", "slow", index).stderr
    assert len(answers("slow", index, "-k", "9")) == 1
    # The three texts were embedded before the interruption; only their files are entered now.
    assert update("-o", index) == {
        "added": 2, "changed": 0, "removed": 0, "unchanged": 1, "embedded": 0, "passages": 4,
    }  # fmt: skip
    assert "not finished" not in run("search", "slow", index).stderr


@posix_only
def test_killed_at_any_moment_it_goes_on_with_what_was_saved(model: Path, tmp_path: Path) -> None:
    words = ["red", "green", "blue", "fast", "slow"]
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(300):
        texts = (
            " ".join(words[(number * 7 + part * part + k) % 5] for k in range(number % 5 + part + 1))
            for part in range(9)
        )
        write(folder / f"{number}.md", "".join(f"# {number} {part}\n\n{text}\n\n" for part, text in enumerate(texts)))
    command = [*GTE, "index", str(folder), "-o", "i", "--model", str(model), "--quiet"]
    kills = 0
    for delay in (0.0, 0.05, 0.2, 0.4):
        with subprocess.Popen(command, cwd=tmp_path, stderr=PIPE, text=True) as process:
            deadline = time.monotonic() + 300
            while not (tmp_path / "i").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
            process.communicate(timeout=120)
            kills += process.returncode == -signal.SIGKILL
    assert kills
    assert subprocess.run(command, cwd=tmp_path, timeout=300).returncode == 0
    assert update("-o", tmp_path / "i") == {
        "added": 0, "changed": 0, "removed": 0, "unchanged": 300, "embedded": 0, "passages": 2700,
    }  # fmt: skip
    # Words that the model does not know give many passages the same score, in one order or another.
    kept, read = (
        {(answer["path"], answer["line"], answer["text"], answer["score"]) for answer in found}
        for found in (
            answers("blue fast", tmp_path / "i", "-k", "3000"),
            answers("blue fast", folder, "-k", "3000", "--model", model),
        )
    )
    assert len(kept) == 2700
    assert kept == read


@posix_only
def test_a_watch_keeps_the_index_current_until_control_c(model: Path, folder: Path, tmp_path: Path) -> None:
    command = [*GTE, "index", str(folder), "-o", "i", "--model", str(model), "--watch", "--interval", "0.1", "--json"]
    with started(command, tmp_path) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["added"] == 3
        write(folder / "new.txt", "fast\n")
        assert json.loads(process.stdout.readline())["added"] == 1
        (folder / "code.py").unlink()
        assert json.loads(process.stdout.readline())["removed"] == 1
        assert {Path(answer["path"]).name for answer in answers("fast", tmp_path / "i", "-k", "9")} == {
            "colours.md", "slow.txt", "new.txt",
        }  # fmt: skip
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_look_that_waited_for_another_process_does_not_slow_the_watch_down(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("gte_sdk.cli.index.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        keep_current(lambda: threading.Event().wait(0.7), interval=10)  # of its time, a twentieth would be 14 seconds
    assert slept == [10]


@posix_only
def test_a_watching_search_answers_again_when_the_answer_changes(model: Path, folder: Path, tmp_path: Path) -> None:
    update(folder, "-o", tmp_path / "i", "--model", model)
    command = [*GTE, "search", "fast", "i", "--watch", "-k", "9", "--json"]
    with started(command, tmp_path) as process:
        assert process.stdout is not None
        before = [json.loads(process.stdout.readline())["text"] for _ in range(4)]
        write(folder / "new.txt", "fast\n")
        after = [json.loads(process.stdout.readline())["text"] for _ in range(5)]
        assert sorted(after) == sorted([*before, "fast"])
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in errors


def test_a_damaged_index_is_refused_and_can_be_rebuilt(model: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    update(folder, "-o", index, "--model", model)
    content = bytearray(index.read_bytes())
    content[100:] = b"\xee" * (len(content) - 100)
    index.write_bytes(content)
    result = run("search", "blue", index)
    assert result.exit_code == 1
    assert f"{index} is damaged: " in result.stderr
    assert run("index", "-o", index).exit_code == 1
    assert update(folder, "-o", index, "--model", model, "--rebuild")["passages"] == 4


def test_what_is_no_index_is_never_overwritten(model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine", encoding="utf-8")
    for options in ([], ["--rebuild"]):
        result = run("index", folder, "-o", tmp_path / "letter.txt", "--model", model, *options)
        assert result.exit_code == 1
        assert "letter.txt exists and is not a passage index; name another file" in result.stderr
    assert (tmp_path / "letter.txt").read_text(encoding="utf-8") == "mine"
    vectors = Index(2)
    vectors.add(np.eye(2, dtype=np.float32))
    vectors.save(tmp_path / "vectors")
    assert "holds vectors without their texts" in run("search", "blue", tmp_path / "vectors").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["index", "-o", "new", "--status"], 1, "new does not exist; make a passage index with: gte index FOLDER"),
        (["index", "notes"], 2, "Missing option '--output'"),
        (["index", "missing", "-o", "new"], 2, "'missing' does not exist"),
        (["index", "notes", "-o", "no/new"], 1, "the folder no does not exist; create it first"),
        (["search", "blue", "i", "notes"], 2, "an index is searched alone"),
        (["search", "blue", "i", "--no-ignore"], 2, "an index has read its files already, with or without --no-ignore"),
        (["search", "blue", "i", "--skipped"], 2, "see: gte index --output FILE --status --skipped"),
        (["search", "blue", "notes", "--watch"], 2, "--watch needs an index; make one with: gte index"),
    ],
)
def test_what_stops_it_is_said_in_one_line(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    update("notes/below", "-o", "i", "--model", model)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["i", "notes"]


@posix_only
def test_a_pipe_among_the_paths_is_not_waited_for(model: Path, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    result = run("search", "blue", folder, folder / "pipe", "--model", model)
    assert result.exit_code == 0
    assert "pipe: not a regular file; skipped" in result.stderr


def test_a_folder_that_is_gone_as_a_whole_keeps_its_index(model: Path, folder: Path, tmp_path: Path) -> None:
    update(folder, "-o", tmp_path / "i", "--model", model)
    folder.rename(tmp_path / "elsewhere")
    result = run("index", "-o", tmp_path / "i")
    assert result.exit_code == 1
    assert f"{folder}, which {tmp_path / 'i'} is an index of, is not there" in result.stderr
    assert len(answers("blue", tmp_path / "i")) == 4


def test_an_index_without_passages(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert update(tmp_path / "empty", "-o", tmp_path / "i", "--model", model)["passages"] == 0
    result = run("search", "blue", tmp_path / "i")
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'i'} holds no passages\n")
