"""What the commands that read folders choose, leave out, and say about it, with a tiny real model."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gte_sdk.cli.commands import gte

from ..tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "below").mkdir(parents=True)
    write(folder / "colours.md", "# red\n\nred red red\n\n## blue\n\nblue\nblue fast\n")
    write(folder / "code.py", "def green():\n    return green\n")
    write(folder / "below" / "slow.txt", "slow slow slow\n")
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(time.time_ns() - 10**10, time.time_ns() - 10**10))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def update(*arguments: str | Path) -> dict[str, Any]:
    result = run("index", "--json", *arguments)
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def answers(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_what_is_left_out_is_counted_by_reason_and_kind_and_listed_on_request(model: Path, folder: Path) -> None:
    for name in ("a.png", "b.png", "c.zip", ".hidden.txt"):
        (folder / name).write_bytes(b"\0")
    (folder / "node_modules").mkdir()
    (folder / "evil\x1b[2J.bin").write_bytes(b"\0")
    result = run("search", "--model", model, "blue", folder)
    counts = "left out 6: binary (2 .png, 1 .zip, 1 .bin); package or build (1 folder); hidden (1 .txt)"
    assert f"gte: {counts}; --skipped lists them" in result.stderr.splitlines()
    result = run("search", "--model", model, "blue", folder, "--skipped")
    listed = [line for line in result.stderr.splitlines() if line.startswith("gte: left out: ")]
    assert len(listed) == 6
    assert f"gte: left out: {folder / 'node_modules'}: package or build" in listed
    assert "\x1b" not in result.stderr
    assert f"gte: {counts}" in result.stderr.splitlines()


def test_types_and_ignored_files(model: Path, folder: Path) -> None:
    pytest.importorskip("pathspec")
    (folder / ".gitignore").write_text("slow.txt\n", encoding="utf-8")

    def names(*options: str) -> set[str]:
        return {
            Path(answer["path"]).name
            for answer in answers(run("search", "--model", model, "blue", folder, "--json", *options))
        }

    assert names() == {"colours.md", "code.py"}
    assert names("--no-ignore") == {"colours.md", "code.py", "slow.txt"}
    assert names("--type", "py") == {"code.py"}
    assert names("--type", "markdown", "--type", "code") == {"colours.md", "code.py"}


def test_the_current_folder_is_indexed_where_none_is_named(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "below")
    assert update("-o", tmp_path / "i", "--model", model)["added"] == 1


def test_every_update_says_what_was_left_out(model: Path, folder: Path, tmp_path: Path) -> None:
    write(folder / "russian.txt", "")
    (folder / "russian.txt").write_bytes("Привет".encode("cp1251"))
    (folder / "photo.png").touch()
    write(folder / "letter.docx", "no archive")
    for name in ("russian.txt", "letter.docx"):
        os.utime(folder / name, ns=(1, 1))
    first = run("index", folder, "-o", tmp_path / "i", "--model", model, "--json")
    again = run("index", "-o", tmp_path / "i", "--json")
    said = "gte: left out 3: binary (1 .png); unknown encoding (1 .txt); damaged (1 .docx); --skipped lists them"
    counts = {"binary": 1, "unknown encoding": 1, "damaged": 1}
    for result in (first, again):
        assert sorted(said.split()) == sorted(
            next(line for line in result.stderr.splitlines() if "left out" in line).split()
        )
        assert "letter.docx: damaged (File is not a zip file); skipped" in result.stderr
        assert json.loads(result.stdout)["left_out"] == counts
        assert json.loads(result.stdout)["without_text"] == 2
    assert json.loads(run("index", "-o", tmp_path / "i", "--status", "--json").stdout)["left_out"] == counts


def test_the_status_says_what_an_update_would_do(model: Path, folder: Path, tmp_path: Path) -> None:
    update(folder, "-o", tmp_path / "i", "--model", model)
    write(folder / "new.txt", "fast\n")
    (folder / "code.py").unlink()
    write(folder / "below" / "slow.txt", "slow slow\n")
    status = json.loads(run("index", "-o", tmp_path / "i", "--status", "--json").stdout)
    assert {name: status[name] for name in ("added", "changed", "removed", "unchanged", "files", "passages")} == {
        "added": 1, "changed": 1, "removed": 1, "unchanged": 1, "files": 3, "passages": 4,
    }  # fmt: skip
    assert (status["model"], status["paths"], status["is_complete"]) == (str(model), [str(folder)], True)
    result = run("index", "-o", tmp_path / "i", "--status")
    assert "files since the last update: 1 added, 1 changed, 1 removed, 1 unchanged" in result.stdout
    assert f"to update it: gte index --output {tmp_path / 'i'}" in result.stdout
    assert update("-o", tmp_path / "i")["passages"] == 4
    assert "to update it" not in run("index", "-o", tmp_path / "i", "--status").stdout


def test_types_and_no_ignore_are_remembered(model: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pathspec")
    write(folder / ".gitignore", "*.py\n")
    made = update(folder, "-o", tmp_path / "i", "--model", model, "--type", "code", "--no-ignore")
    assert made["added"] == 1
    assert update("-o", tmp_path / "i")["unchanged"] == 1
    assert update(folder, "-o", tmp_path / "i")["passages"] == 3
