"""What ignore files leave out, compared with what git itself says where git is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gte_sdk.passages.reading import ignore_files
from gte_sdk.passages.text_files import LeftOut, Wanted, find_text_files

pytest.importorskip("pathspec", reason="pathspec comes with the extra cli")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        write_file(folder / name, content)


def write_file(path: Path, content: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def found(folder: Path, wanted: Wanted = Wanted()) -> tuple[list[str], dict[str, str]]:  # noqa: B008 - a value
    left_out: list[LeftOut] = []
    files = [
        path.relative_to(folder).as_posix() for path in find_text_files([folder], wanted, leave_out=left_out.append)
    ]
    reasons = {file.path.relative_to(folder).as_posix(): file.reason for file in left_out if file.reason != "hidden"}
    return files, reasons


RULES = {
    ".gitignore": "# comment\n*.log\n!keep.log\n/top.txt\nout/\ndeep/**/x.md\n\\#odd.txt\nspace\\ .txt\n[ab].md\n!\n",
    "sub/.gitignore": "!*.log\nkeep.log\n*.txt\n!yes.txt\n",
}
NAMES = """
    a.log keep.log top.txt sub/top.txt sub/yes.txt sub/b.log sub/keep.log out/a.md sub/out/b.md deep/x.md
    deep/er/still/x.md deep/y.md #odd.txt space_.txt a.md c.md sub/b.md sub/out.md
"""


def test_nested_gitignore_files_leave_out_what_git_ignores(folder: Path) -> None:
    for name, content in RULES.items():
        write_file(folder / name, content)
    for name in NAMES.split():
        write_file(folder / name.replace("_", " "))
    expected = ["c.md", "keep.log", "deep/y.md", "sub/b.log", "sub/out.md", "sub/yes.txt"]
    assert found(folder)[0] == expected
    if not shutil.which("git"):
        return
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    command = ["git", "-C", str(folder), "ls-files", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    assert sorted(name for name in listed if name and not name.endswith(".gitignore")) == sorted(expected)
    assert found(folder)[0] == expected


def test_each_file_has_its_say_and_the_stronger_one_decides(folder: Path, home: Path) -> None:
    write_file(home / ".config" / "git" / "ignore", "global.md\nboth.md\n")
    write_file(folder / ".git" / "info" / "exclude", "exclude.md\n!both.md\n")
    write_file(folder / ".gitignore", "git.md\nwanted.md\n")
    write_file(folder / ".ignore", "own.md\n!wanted.md\n")
    write(folder, **{f"{name}.md": "x" for name in ("global", "both", "exclude", "git", "wanted", "own", "other")})
    assert found(folder) == (
        ["both.md", "other.md", "wanted.md"],
        {
            "exclude.md": "ignored by exclude", "git.md": "ignored by .gitignore", "global.md": "ignored by ignore",
            "own.md": "ignored by .ignore",
        },
    )  # fmt: skip
    write_file(home / ".gitconfig", "[user]\n\texcludesfile = no\n[core]\n\tExcludesFile = ~/mine  \n")
    write_file(home / "mine", "other.md")
    assert found(folder)[1]["other.md"] == "ignored by mine"
    assert "global.md" in found(folder)[0]


def test_without_ignore_files_packages_are_read_too(folder: Path) -> None:
    write_file(folder / ".gitignore", "*.md")
    write_file(folder / "node_modules" / "a.txt")
    write_file(folder / "b.md")
    assert found(folder) == ([], {"b.md": "ignored by .gitignore", "node_modules": "package or build"})
    assert found(folder, Wanted(ignore_files=False)) == (["b.md", "node_modules/a.txt"], {})


def test_files_above_a_named_folder_hold_unless_they_ignore_the_folder_itself(folder: Path) -> None:
    (folder / ".git").mkdir()
    write_file(folder / ".gitignore", "/out/\n*.tmp\n")
    for name in ("out/a.md", "out/a.tmp", "sub/a.md", "sub/a.tmp"):
        write_file(folder / name)
    assert found(folder / "sub")[0] == ["a.md"]
    assert found(folder / "out")[0] == ["a.md", "a.tmp"]
    (folder / ".git").rmdir()
    assert found(folder / "sub")[0] == ["a.md", "a.tmp"]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("*a*a*a*a*b\n*.md\n", "the pattern '*a*a*a*a*b' has more than 3 stars; not obeyed"),
        ("#" * (ignore_files.MAX_BYTES + 1), "more than 64 KiB; not obeyed"),
    ],
)
def test_what_could_take_forever_is_not_obeyed_and_said(folder: Path, content: str, detail: str) -> None:
    write_file(folder / ".gitignore", content)
    write_file(folder / ("a" * 200 + ".txt"))
    left_out: list[LeftOut] = []
    assert len(list(find_text_files([folder], leave_out=left_out.append))) == 1
    assert LeftOut(folder / ".gitignore", "ignore file not obeyed", detail) in left_out
