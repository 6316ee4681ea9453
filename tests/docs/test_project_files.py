"""SECURITY.md, CITATION.cff and the templates beside the documentation: what they name exists, and they agree."""

import ast
import re
import sys
from pathlib import Path

import pytest

import gte_sdk

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROMISES = re.findall(r"^\| ([^|]+) \| (`.+`) \|$", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_there_are_promises() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(PROMISES) >= 25
    assert len(PROMISES) == sum(line.startswith("| ") for line in text.splitlines()) - text.count("| promise | test |")


@pytest.mark.parametrize(("promise", "tests"), PROMISES)
def test_each_promise_has_tests_that_exist(promise: str, tests: str) -> None:
    for test in tests.split(", "):
        assert re.fullmatch(r"`[\w/]+\.py::test_\w+`", test)
        file, _, name = test.strip("`").partition("::")
        assert (ROOT / "tests" / file).is_file(), f"{promise}: {file} is missing"
        assert name in functions_of(ROOT / "tests" / file), f"{promise}: {test} is missing"


def test_no_page_has_the_marks_of_an_unfinished_merge() -> None:
    pages = [*ROOT.glob("*.*"), ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.*")]
    texts = {page: page.read_text(encoding="utf-8") for page in pages if page.is_file()}
    assert len(texts) > 40
    for page, text in texts.items():
        assert not re.search(r"^(<{7} |={7}$|>{7} )", text, re.MULTILINE), page


def test_one_home_for_the_projects_addresses() -> None:
    home = PROJECT["urls"]["Repository"]
    assert all(address.startswith(home) for address in PROJECT["urls"].values())
    pages = ("CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml")
    for page in pages:
        named = re.findall(r"https://github\.com/[\w-]+/[\w-]+", (ROOT / page).read_text(encoding="utf-8"))
        assert named, page
        assert set(named) == {home}, page


def test_the_citation_has_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {gte_sdk.__version__}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text
    assert "arXiv:2308.03281" in text


@pytest.mark.parametrize("template", ["ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/idea.yml", "pull_request_template.md"])
def test_templates_ask_for_the_doctor(template: str) -> None:
    assert "gte doctor --json" in (ROOT / ".github" / template).read_text(encoding="utf-8")


def test_contributing_names_targets_and_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefiles = (ROOT / "Makefile").read_text("utf-8") + (ROOT / "csrc" / "sanitize.mk").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefiles, re.MULTILINE))
    named = {word for line in re.findall(r"(?:`|^)make ([a-z0-9 -]+)", text, re.MULTILINE) for word in line.split()}
    assert named - {"alone"} <= targets
    for path in re.findall(r"`((?:gte_sdk|csrc|training|export|tests|docs)/[\w./*-]+)`", text):
        if "NAME" not in path:
            assert any(ROOT.glob(path)), path
