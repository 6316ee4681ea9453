"""The docstrings of the public names: every one has an example, which runs, and a list that has all its parameters."""

import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gte_sdk
from gte_sdk.integrations.fastembed import TextEmbedding
from gte_sdk.integrations.sentence_transformers import SentenceTransformer
from gte_sdk.integrations.sentence_transformers.util import cos_sim, dot_score, semantic_search
from gte_sdk.passages.searching import PassageSearch
from gte_sdk.passages.store import PassageStore
from gte_sdk.passages.text_files import find_text_files
from gte_sdk.passages.updating import update_index

NAMES = [name for name in gte_sdk.__all__ if not name.startswith("_")]
OTHERS_NAMES = (SentenceTransformer, semantic_search, TextEmbedding)
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def functions_of(public: Any) -> Iterator[tuple[str, Any]]:
    """The function, or the constructor and the methods of a class, with what they are called."""
    if not inspect.isclass(public):
        yield public.__name__, public
        return
    for name, member in vars(public).items():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield f"{public.__name__}.{name}", function


FUNCTIONS = {
    "find_text_files": find_text_files,
    "update_index": update_index,
    "PassageStore": PassageStore.__init__,
    "PassageSearch.find": PassageSearch.find,
    "SentenceTransformer": SentenceTransformer,
    "semantic_search": semantic_search,
    "cos_sim": cos_sim,
    "dot_score": dot_score,
}
for public in [getattr(gte_sdk, name) for name in NAMES]:
    if public is not gte_sdk.Chunk:  # the fields of a named tuple have docstrings of their own
        FUNCTIONS.update(functions_of(public))


def parameters_of(function: Any) -> list[str]:
    """Without the object that a method belongs to."""
    names = list(inspect.signature(function).parameters)
    return names[1:] if names and names[0] in ("self", "cls", "embedder") else names


@pytest.mark.parametrize(
    "public", [*(getattr(gte_sdk, name) for name in NAMES), *OTHERS_NAMES], ids=lambda it: it.__name__
)
def test_every_public_name_has_examples_that_run(public: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    name = public.__name__
    init = vars(public).get("__init__") if inspect.isclass(public) else None
    docstrings = [public.__doc__ or "", (init.__doc__ or "") if inspect.isfunction(init) else ""]
    examples = doctest.DocTestParser().get_doctest("\n\n".join(map(inspect.cleandoc, docstrings)), {}, name, None, 0)
    assert examples.examples, f"{name} has no example"
    report: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=_OPTIONS).run(examples, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_in_the_list(name: str) -> None:
    function = FUNCTIONS[name]
    docstring = inspect.getdoc(function) or ""
    assert docstring, f"{name} has no docstring"
    if "those of `encode`" in docstring:
        assert parameters_of(function) == parameters_of(FUNCTIONS["Embedder.encode"])
        return
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", docstring + "\n", re.MULTILINE)
    listed = re.findall(r"^    (\w+): ", section[1], re.MULTILINE) if section else []
    assert listed == parameters_of(function)
