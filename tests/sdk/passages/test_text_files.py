"""Walking folders: what is taken, what is left out, what is said about it, and that nothing on a disk crashes it."""

import os
import sys
from pathlib import Path

import pytest

from gte_sdk.passages import text_files
from gte_sdk.passages.reading import decoding
from gte_sdk.passages.text_files import LeftOut, Wanted, find_text_files, kind_of, read_text

from .documents import docx, pdf


def found(folder: Path, *paths: Path, wanted: Wanted = Wanted()) -> list[str]:  # noqa: B008 - a value
    return found_and_left_out(folder, *paths, wanted=wanted)[0]


def found_and_left_out(
    folder: Path,
    *paths: Path,
    wanted: Wanted = Wanted(),  # noqa: B008
) -> tuple[list[str], dict[str, str]]:
    """The names of the files that are found, and the reasons of those that are not."""
    left_out: list[LeftOut] = []
    files = find_text_files(paths or [folder], wanted, leave_out=left_out.append)
    names = [file.relative_to(folder).as_posix() for file in files]
    reasons = {file.path.relative_to(folder).as_posix(): file.reason for file in left_out}
    assert len(reasons) == len(left_out)
    return names, reasons


@pytest.fixture(autouse=True)
def _no_global_excludes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


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
    assert kind_of(Path("data.csv")) == "text"
    assert kind_of(Path("report.pdf")) is None


def test_folders_are_walked_in_order_and_what_every_tool_skips_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a/z.py", "a/README", "c.bin", ".git/config.txt", ".hidden.md", "node_modules/x.js",
          "build/lib.py", "dist/a.py", "a/__pycache__/m.py", "env/pyvenv.cfg", "env/lib/x.py",
          "target/CACHEDIR.TAG", "target/x.rs", "pkg.egg-info/top.txt", "a/building/kept.py")  # fmt: skip
    assert found(tmp_path) == ["b.md", "a/README", "a/z.py", "a/building/kept.py"]


def test_a_path_that_is_named_is_taken_whatever_it_is_called_and_only_once(tmp_path: Path) -> None:
    write(tmp_path, "build/docs/a.md", ".hidden/b.md", "data.csv")
    named = [tmp_path / "build", tmp_path / ".hidden" / "b.md", tmp_path / "data.csv", tmp_path / "build" / "docs"]
    assert found(tmp_path, *named) == ["build/docs/a.md", ".hidden/b.md", "data.csv"]


def test_globs_excludes_and_types_match_names_and_paths_below_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "test_a.py", "src/b.py", "src/c.json", "other/d.py", "page.html")
    assert found(tmp_path, wanted=Wanted(globs=("*.json",))) == ["src/c.json"]
    assert found(tmp_path, wanted=Wanted(globs=("src/*",))) == ["src/b.py", "src/c.json"]
    assert found(tmp_path, wanted=Wanted(excludes=("test_*", "other", "page.*"))) == ["a.py", "src/b.py", "src/c.json"]
    assert found(tmp_path, wanted=Wanted(("*.py",), ("src/*",))) == ["a.py", "test_a.py", "other/d.py"]
    assert found(tmp_path, wanted=Wanted(types=("html", "json"))) == ["page.html", "src/c.json"]
    assert found(tmp_path, wanted=Wanted(("src/*",), types=("code",))) == ["src/b.py"]
    assert found_and_left_out(tmp_path, wanted=Wanted(types=("text",))) == (["src/c.json"], {})


def test_text_is_told_by_content_where_the_name_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "notes", "x.unknown", "data.csv", "run.log")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "wide").write_bytes("wide".encode("utf-16-le"))
    (tmp_path / "blob").write_bytes(b"\0\1\2")
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "letter.docx").write_bytes(docx(("", "Hello")))
    (tmp_path / "yarn.lock").write_text("generated")
    names, left_out = found_and_left_out(tmp_path)
    assert names == ["data.csv", "latin", "letter.docx", "notes", "run.log", "wide", "x.unknown"]
    assert left_out == {"blob": "binary", "photo.jpg": "binary", "yarn.lock": "generated"}


def test_pdf_is_left_out_with_the_command_to_install_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(["Hello"]))
    (tmp_path / "scanned").write_bytes(pdf(["Hello"]))
    monkeypatch.setattr(text_files, "find_spec", lambda name: None)
    reason = "needs pip install 'gte-sdk[documents]'"
    assert found_and_left_out(tmp_path) == ([], {"a.pdf": reason, "scanned": reason})
    monkeypatch.setattr(text_files, "find_spec", lambda name: name)
    assert found(tmp_path) == ["a.pdf", "scanned"]


def left_out_of(path: Path) -> list[LeftOut]:
    left_out: list[LeftOut] = []
    assert list(find_text_files([path], leave_out=left_out.append)) == []
    return left_out


def test_a_large_file_is_reported_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 2**20)
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (2**20 + 1))
    assert left_out_of(tmp_path) == [LeftOut(large, "too large", "1.0 MiB, more than 1 MiB; name it to search it")]
    assert found(tmp_path, large) == ["large.txt"]
    large.rename(tmp_path / "large.pdf")
    monkeypatch.setattr(text_files, "find_spec", lambda name: name)
    assert found(tmp_path) == ["large.pdf"]
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_BYTES", 2**20)
    assert found_and_left_out(tmp_path) == ([], {"large.pdf": "too large"})


def test_a_named_file_has_a_limit_too_also_when_it_grows_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "MAX_NAMED_FILE_BYTES", 3 * 2**20)
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (4 * 2**20))
    left_out = left_out_of(large)
    assert read_text(large, left_out.append) is None
    assert left_out == [
        LeftOut(large, "too large", "4.0 MiB, at most 3 MiB are read"), LeftOut(large, "too large", "more than 3 MiB"),
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_of_more_lines_than_anybody_reads_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, encoding: str
) -> None:
    monkeypatch.setattr(decoding, "MAX_LINES", 1000)
    left_out: list[LeftOut] = []
    path = tmp_path / "lines.txt"
    path.write_bytes((f"# x{end}" * 1000).encode(encoding))
    assert read_text(path, left_out.append) is not None
    path.write_bytes((f"# x{end}" * 1001).encode(encoding))
    assert read_text(path, left_out.append) is None
    assert left_out == [LeftOut(path, "too many lines", "more than 1,000 lines")]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need privileges or do not exist")
def test_links_that_loop_or_dangle_and_pipes_are_reported_and_end(tmp_path: Path) -> None:
    write(tmp_path, "real/a.md")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    (tmp_path / "nowhere.md").symlink_to(tmp_path / "missing")
    (tmp_path / "same.md").symlink_to(tmp_path / "real" / "a.md")
    os.mkfifo(tmp_path / "pipe.txt")
    assert found_and_left_out(tmp_path) == (
        ["same.md"],
        {"loop.md": "unreadable", "nowhere.md": "unreadable", "pipe.txt": "no regular file", "real/up": "link"},
    )


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_what_may_not_be_read_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "closed/a.md", "secret.md")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "secret.md").chmod(0)
    left_out: list[LeftOut] = []
    files = list(find_text_files([tmp_path], leave_out=left_out.append))
    (tmp_path / "closed").chmod(0o700)
    assert files == [tmp_path / "secret.md"]
    assert read_text(files[0], left_out.append) is None
    assert [file[1:] for file in left_out] == [("unreadable", "Permission denied")] * 2


def test_a_file_that_vanishes_is_reported(tmp_path: Path) -> None:
    left_out = left_out_of(tmp_path / "gone.md")
    assert read_text(tmp_path / "gone.md", left_out.append) is None
    assert left_out == [LeftOut(tmp_path / "gone.md", "unreadable", "No such file or directory")] * 2
