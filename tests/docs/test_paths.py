"""What a page names in backticks exists: the repository's paths, and the dotted names of its packages."""

import re
from pathlib import Path

import pytest

from .test_code_blocks import PAGES, ROOT

# Other folders of the repository, such as docs/, also stand for a reader's own.
_FOLDERS = ("benchmarks", "csrc", "docs/models", "examples", "export", "gte_sdk", "tests", "training")
_CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_SPAN_OR_COMMENT = re.compile(r"`([^`\n]+)`|<!--(.*?)-->", re.DOTALL)
_PATH = re.compile(rf"(?<![\w/.~-])(?:{'|'.join(_FOLDERS)})/[\w./*-]*")
_DOTTED = re.compile(r"(?<![\w/.])(?:gte_sdk|training|export)(?:\.[A-Za-z]\w*)+")


def names(pattern: re.Pattern[str], text: str) -> list[str]:
    """What matches inside code spans and comments; code blocks are run by other tests."""
    pieces = _SPAN_OR_COMMENT.finditer(_CODE_BLOCK.sub("", text))
    return [name.rstrip("./") for piece in pieces for name in pattern.findall(piece[1] or piece[2])]


def is_defined(dotted: str) -> bool:
    """Whether a module or an attribute of a package has this name. Reads files only, so it needs no PyTorch."""
    folder, *parts = ROOT / dotted.split(".")[0], *dotted.split(".")[1:]
    for part in parts:
        if (folder / part).is_dir():
            folder /= part
            continue
        module = folder / f"{part}.py"
        return module.is_file() or re.search(rf"\b{part}\b", (folder / "__init__.py").read_text("utf-8")) is not None
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [path for path in names(_PATH, text) if not any(ROOT.glob(path))] == []
    assert [name for name in names(_DOTTED, text) if not is_defined(name)] == []


def test_names_are_found_in_spans_and_comments() -> None:
    text = (
        "`gte_sdk/a.py`, `python export/b.py X`, `csrc/`, gte_sdk/no.py, `/x/tests/no.py`, `docs/no.md`\n"
        "<!-- not run: tests/d.py does -->\n```\ntraining/no.py\n```\n`training/recipes/*.toml`.\n"
        "`training.x.y` `a.training.no`\n"
    )
    assert names(_PATH, text) == ["gte_sdk/a.py", "export/b.py", "csrc", "tests/d.py", "training/recipes/*.toml"]
    assert names(_DOTTED, text) == ["training.x.y"]


@pytest.mark.parametrize(
    ("name", "defined"),
    [
        ("gte_sdk.Embedder", True),
        ("gte_sdk.integrations.langchain", True),
        ("training.evaluate.mteb_adapter.MtebModel", True),
        ("gte_sdk.Embeder", False),
        ("gte_sdk.integrations.no_tool", False),
    ],
)
def test_dotted_names_are_looked_up(name: str, defined: bool) -> None:
    assert is_defined(name) == defined
