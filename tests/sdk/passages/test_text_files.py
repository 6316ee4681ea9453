"""Walking folders: what is taken, what is left out, what is said about it, and that nothing on a disk crashes it."""

import os
import sys
from pathlib import Path

import pytest

from gte_sdk.passages import text_files
from gte_sdk.passages.text_files import find_text_files, kind_of, read_text


def found(folder: Path, *paths: Path, globs: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> list[str]:
    notices: list[str] = []
    files = find_text_files(paths or [folder], globs=globs, excludes=excludes, notice=notices.append)
    names = [file.relative_to(folder).as_posix() for file in files]
    assert notices == []
    return names


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}", encoding="utf-8")


def test_kinds_come_from_suffix_or_name() -> None:
    assert kind_of(Path("a/Guide.MD")) == "markdown"
    assert kind_of(Path("index.rst")) == "restructuredtext"
    assert kind_of(Path("notes.txt")) == "text"
    assert kind_of(Path("CMakeLists.txt")) == "code"
    assert kind_of(Path("Makefile")) == "code"
    assert kind_of(Path("LICENSE")) == "text"
    assert kind_of(Path("main.cpp")) == "code"
    assert kind_of(Path("photo.jpeg")) is None
    assert kind_of(Path("data.csv")) is None


def test_folders_are_walked_in_order_and_what_every_tool_skips_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a/z.py", "a/README", "c.bin", ".git/config.txt", ".hidden.md", "node_modules/x.js",
          "build/lib.py", "dist/a.py", "a/__pycache__/m.py", "env/pyvenv.cfg", "env/lib/x.py",
          "target/CACHEDIR.TAG", "target/x.rs", "pkg.egg-info/top.txt", "a/building/kept.py")  # fmt: skip
    assert found(tmp_path) == ["b.md", "a/README", "a/z.py", "a/building/kept.py"]


def test_a_path_that_is_named_is_taken_whatever_it_is_called_and_only_once(tmp_path: Path) -> None:
    write(tmp_path, "build/docs/a.md", ".hidden/b.md", "data.csv")
    named = [tmp_path / "build", tmp_path / ".hidden" / "b.md", tmp_path / "data.csv", tmp_path / "build" / "docs"]
    assert found(tmp_path, *named) == ["build/docs/a.md", ".hidden/b.md", "data.csv"]


def test_globs_and_excludes_match_names_and_paths_below_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "test_a.py", "src/b.py", "src/c.json", "vendor/d.py")
    assert found(tmp_path, globs=("*.json",)) == ["src/c.json"]
    assert found(tmp_path, globs=("src/*",)) == ["src/b.py", "src/c.json"]
    assert found(tmp_path, excludes=("test_*", "vendor")) == ["a.py", "src/b.py"]
    assert found(tmp_path, globs=("*.py",), excludes=("src/*",)) == ["a.py", "test_a.py", "vendor/d.py"]


def test_a_large_file_is_reported_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 2**20)
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (2**20 + 1))
    notices: list[str] = []
    assert list(find_text_files([tmp_path], notice=notices.append)) == []
    assert notices == [f"{large}: 1.0 MiB, more than 1 MiB; skipped (name it to search it)"]
    assert list(find_text_files([large], notice=notices.append)) == [large]
    assert len(notices) == 1


def test_a_named_file_has_a_limit_too_also_when_it_grows_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "MAX_NAMED_FILE_BYTES", 3 * 2**20)
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (4 * 2**20))
    notices: list[str] = []
    assert list(find_text_files([large], notice=notices.append)) == []
    assert read_text(large, notices.append) is None
    assert notices == [f"{large}: 4.0 MiB; skipped (3 MiB at most)", f"{large}: more than 3 MiB; skipped"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_of_more_lines_than_anybody_reads_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, encoding: str
) -> None:
    monkeypatch.setattr(text_files, "MAX_LINES", 1000)
    notices: list[str] = []
    path = tmp_path / "lines.txt"
    path.write_bytes((f"# x{end}" * 1000).encode(encoding))
    assert read_text(path, pytest.fail) is not None
    path.write_bytes((f"# x{end}" * 1001).encode(encoding))
    assert read_text(path, notices.append) is None
    assert notices == [f"{path}: more than 1,000 lines; skipped"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need privileges or do not exist")
def test_links_that_loop_or_dangle_and_pipes_are_reported_and_end(tmp_path: Path) -> None:
    write(tmp_path, "real/a.md")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    (tmp_path / "nowhere.md").symlink_to(tmp_path / "missing")
    (tmp_path / "same.md").symlink_to(tmp_path / "real" / "a.md")
    os.mkfifo(tmp_path / "pipe.txt")
    notices: list[str] = []
    names = [path.relative_to(tmp_path).as_posix() for path in find_text_files([tmp_path], notice=notices.append)]
    assert names == ["same.md"]
    assert [notice.split(": ")[0].removeprefix(f"{tmp_path}/") for notice in notices] == [
        "loop.md", "nowhere.md", "pipe.txt", "real/up",
    ]  # fmt: skip
    assert "not a regular file" in notices[2]
    assert "a link to a folder; not followed" in notices[3]


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_what_may_not_be_read_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "closed/a.md", "secret.md")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "secret.md").chmod(0)
    notices: list[str] = []
    files = list(find_text_files([tmp_path], notice=notices.append))
    (tmp_path / "closed").chmod(0o700)
    assert files == [tmp_path / "secret.md"]
    assert read_text(files[0], notices.append) is None
    assert [notice.split(": ")[1] for notice in notices] == ["Permission denied; skipped"] * 2


def test_a_file_that_vanishes_is_reported(tmp_path: Path) -> None:
    notices: list[str] = []
    assert read_text(tmp_path / "gone.md", notices.append) is None
    assert list(find_text_files([tmp_path / "gone.md"], notice=notices.append)) == []
    assert notices == [f"{tmp_path / 'gone.md'}: No such file or directory; skipped"] * 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain", "plain"),
        (b"", ""),
        ("\ufeffÜber".encode(), "Über"),
        ("Über 東京".encode("utf-16"), "Über 東京"),
        (b"\xfe\xff" + "Über".encode("utf-16-be"), "Über"),
    ],
)
def test_encodings_that_say_what_they_are_are_read(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_text(path, pytest.fail) == text


@pytest.mark.parametrize(
    ("content", "notice"),
    [
        (b"\x89PNG\r\n\0\0", "a binary file; skipped"),
        (b"caf\xe9", "not UTF-8 at byte 3; skipped (convert it to UTF-8)"),
        (b"\xff\xfea", "not UTF-16-LE at byte 2; skipped (convert it to UTF-8)"),
    ],
)
def test_what_is_no_text_is_reported(tmp_path: Path, content: bytes, notice: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    notices: list[str] = []
    assert read_text(path, notices.append) is None
    assert notices == [f"{path}: {notice}"]
