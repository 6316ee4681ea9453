"""Every code block of the README and the documentation is run, or says why not and is parsed."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from .code_blocks import Block, blocks_of
from .running import check_syntax, console_commands, differs, environment, run_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = list(blocks_of(page))
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    run_page(blocks, tmp_path)


def test_pages_name_extras_that_the_package_has() -> None:
    extras = set(metadata("gte-sdk").get_all("Provides-Extra", []))
    for page in PAGES:
        for named in re.findall(r"gte-sdk\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, f"{page.name}: gte-sdk[{named}]"


def page_of(tmp_path: Path, text: str) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return list(blocks_of(page))


def test_blocks_are_found_whatever_way_they_are_written(tmp_path: Path) -> None:
    text = (
        "# Title\n\n```python\na = 1\n```\n\n    gte models\n\n- item\n\n  ```sh\n  true\n  ```\n\n```\nplain\n```\n\n"
        '<!-- run: touch x -->\n\n<!-- not run: needs a GPU -->\n```python title="gpu.py"\nb = 2\n```\n\n    $ true\n'
    )
    found = [(block.line, block.language, block.title, block.text, block.not_run) for block in page_of(tmp_path, text)]
    assert found == [
        (4, "python", None, "a = 1\n", None),
        (7, "bash", None, "gte models\n", None),
        (12, "bash", None, "true\n", None),
        (16, "text", None, "plain\n", None),
        (19, "bash", None, "touch x\n", None),
        (23, "python", "gpu.py", "b = 2\n", "needs a GPU"),
        (26, "console", None, "$ true\n", None),
    ]


@pytest.mark.parametrize(
    "block",
    [
        "```python\nassert 1 == 2\n```",
        "```python\nprint(never_defined)\n```",
        "<!-- not run: cannot -->\n```python\nthis is no Python\n```",
        "<!-- not run: cannot -->\n```bash\nif true\n```",
        "    gte no-such-command",
        "```pycon\n>>> 1 + 1\n3\n```",
        "```console\n$ echo 0.50\n0.75\n```",
        "```console\n$ echo one; false\ntwo\n```",
        "```json\n{'a': 1}\n```",
        "```ruby\nputs 1\n```",
        "<!-- not run: nothing follows -->\n\nText.\n\n```python\na = 1\n```",
    ],
)
def test_a_block_that_is_wrong_fails(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    with pytest.raises((AssertionError, NameError, SyntaxError, ValueError)):
        run_page(page_of(tmp_path, block), tmp_path)


def test_a_page_keeps_its_names_files_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    blocks = page_of(
        tmp_path,
        "```python\nimport asyncio\nvalue = 41\n```\n\n```python\nvalue += await asyncio.sleep(0, 1)\n```\n\n"
        '```pycon\n>>> value\n42\n```\n\n```python title="program.py"\nprint(0.501, "of", 3)\n```\n\n'
        "```console\n$ python program.py\n0.500 of 3\n$ echo a \\\n>   b\na b\n$ echo took 17 s\ntook ... s\n```\n",
    )
    run_page(blocks, tmp_path)
    for block in blocks:
        check_syntax(block)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("0.650 a", "0.652 a", True),
        ("0.650 a", "0.700 a", False),
        ("-0.01", "0.005", True),
        ("a ... z", "a b c z", True),
        ("a ... z", "a b c", False),
        ("", "", True),
        ("", "a", False),
        ("3 files", "4 files", False),
    ],
)
def test_output_is_compared(shown: str, printed: str, same: bool) -> None:
    assert (differs(shown, printed) == "") == same


def test_a_console_block_is_cut_into_commands(tmp_path: Path) -> None:
    (block,) = page_of(tmp_path, "```console\n$ one \\\n>   two\nout\n$ three\n```\n")
    assert list(console_commands(block)) == [("one \\\n  two", "out"), ("three", "")]
