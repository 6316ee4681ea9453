"""Source code cut at its definitions: what tree-sitter finds, what passages it makes, and files that it cannot bear."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gte_sdk import Embedder
from gte_sdk.passages import updating
from gte_sdk.passages.reading import outline
from gte_sdk.passages.reading import parser as parser_module
from gte_sdk.passages.reading.outline import MAX_CODE_BYTES, definitions_in
from gte_sdk.passages.reading.parser import Parser
from gte_sdk.passages.splitting import MAX_ROUGH_TOKENS, Definition, count_rough_tokens, split_passages
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.updating import read_sections, split_by, update_index

# fmt: off
# ruff: noqa: E501 - a file in a line
LANGUAGES = {
    "python": ("import a\n\n# about f\n@deco\ndef f():\n    return 1\n\nclass A:\n    x = 1\n\n    async def m(self):\n"
               "        def inner(): pass\n        return 2\n",
               [(2, 6, "f"), (7, 13, "A"), (10, 13, "m"), (11, 12, "inner")]),
    "cpp": ("namespace n {\n/// doc\ntemplate <class T>\nclass A : B {\n public:\n  int f() const { return 1; }\n};\n"
            "int *A::g(int x) {\n  return 0;\n}\n}\nstruct p q;\n",
            [(0, 11, "n"), (1, 7, "A"), (5, 6, "f"), (7, 10, "A::g")]),
    "c": ("/* doc */\nstatic int *(*f(int a))(int) {\n return 0;\n}\nstruct point {\n int x;\n};\nint main(void) { return 0; }\n",
          [(0, 4, "f"), (4, 7, "point"), (7, 8, "main")]),
    "go": ("package a\n\n// doc\nfunc (s *Store[T]) Add(x int) error {\n\treturn nil\n}\n\ntype Store struct {\n\ta int\n}\n",
           [(2, 6, "Store > Add"), (7, 10, "Store")]),
    "rust": ("/// doc\n#[derive(A)]\npub struct S { a: u8 }\n\nimpl Foo for S {\n    fn bar(&self) -> u8 {\n        1\n    }\n}\n",
             [(0, 3, "S"), (4, 9, "S"), (5, 8, "bar")]),
    "typescript": ("export class A {\n  m(): void {\n  }\n}\nexport default function f() {\n}\nexport interface I {\n a: 1\n}\n",
                   [(0, 4, "A"), (1, 3, "m"), (4, 6, "f"), (6, 9, "I")]),
    "tsx": ("function A() {\n return <b/>;\n}\n", [(0, 3, "A")]),
    "javascript": ("class A {\n  f() {\n  }\n}\nfunction g() {\n}\n", [(0, 4, "A"), (1, 3, "f"), (4, 6, "g")]),
    "java": ("package a;\n\n/** doc */\npublic class A {\n  @Override\n  public int f() {\n    return 1;\n  }\n  A() {\n  }\n}\n",
             [(2, 11, "A"), (4, 8, "f"), (8, 10, "A")]),
    "ruby": ("# doc\nmodule M\n  class A\n    def f(x)\n      1\n    end\n    def self.g\n    end\n  end\nend\n",
             [(0, 10, "M"), (2, 9, "A"), (3, 6, "f"), (6, 8, "g")]),
    "php": ("<?php\nclass A {\n  function f() {\n  }\n}\n", [(1, 5, "A"), (2, 4, "f")]),
    "c_sharp": ("namespace N {\n class A {\n  int P { get; set; }\n  void F() {\n  }\n }\n}\n",
                [(0, 7, "N"), (1, 6, "A"), (2, 3, "P"), (3, 5, "F")]),
}
# fmt: on
CODE = "grammars come with the extra code"


def needs(language: str) -> None:
    pytest.importorskip("tree_sitter", reason=CODE)
    pytest.importorskip(outline._LANGUAGES[language][0], reason=CODE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_definitions_of_each_language_with_their_comments_and_names(language: str) -> None:
    needs(language)
    text, expected = LANGUAGES[language]
    assert definitions_in(text.encode(), language) == expected


def test_every_language_of_the_extra_is_tested() -> None:
    assert set(LANGUAGES) == set(outline._LANGUAGES) == set(outline._LANGUAGE_OF_SUFFIX.values())


WORDS = " ".join(["word"] * 60)


def test_passages_are_definitions_under_their_own_names() -> None:
    lines = [f"import {WORDS}", "", "class A:", f"    {WORDS}", "", "    def f(self):", f"        {WORDS}", "",
             "    def g(self):", *[f"        {WORDS}", ""] * 4, "def h():", f"    {WORDS}"]  # fmt: skip
    definitions = [Definition(2, 17, "A"), Definition(5, 7, "f"), Definition(8, 17, "g"), Definition(17, 19, "h")]
    passages = list(split_passages("a.py", "\n".join(lines), "code", definitions))
    assert [(part.line, part.context) for part in passages] == [
        (1, ""), (3, "A"), (6, "A > f"), (9, "A > g"), (14, "A > g"), (18, "h"),
    ]  # fmt: skip


def test_small_definitions_share_a_passage_under_what_they_all_lie_in() -> None:
    text = "class A:\n    def f(self):\n        pass\n\n    def g(self):\n        pass\n"
    definitions = [Definition(0, 6, "A"), Definition(1, 3, "f"), Definition(4, 6, "g")]
    (passage,) = split_passages("a.py", text, "code", definitions)
    assert (passage.context, passage.text) == ("A", text.rstrip())


@given(st.data())
def test_every_line_is_in_one_passage_whatever_is_defined(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(["", "x = 1", f"    {WORDS}", "def f():"]), max_size=40))

    def nested(start: int, end: int, depth: int) -> list[Definition]:
        found = []
        while depth < 4 and start < end and data.draw(st.booleans()):
            start = data.draw(st.integers(start, end - 1))
            stop = data.draw(st.integers(start + 1, end))
            found += [Definition(start, stop, f"d{depth}"), *nested(start, stop, depth + 1)]
            start = stop
        return found

    passages = list(split_passages("a.py", "\n".join(lines), "code", nested(0, len(lines), 0)))
    numbered = [part.line + at for part in passages for at, line in enumerate(part.text.split("\n")) if line.strip()]
    assert numbered == [number for number, line in enumerate(lines, 1) if line.strip()]
    for part in passages:
        assert count_rough_tokens(part.text) <= MAX_ROUGH_TOKENS


@pytest.mark.parametrize(
    ("content", "prepared", "reason"),
    [
        (b"x = 1\n" * 2000, "outline.MAX_SECONDS = -1", "its grammar takes more than -1 s"),
        (b"def f(): pass\n", "worker.definitions_in = lambda *_: os.abort()", "its reader ended with code"),
        (b"x" * (MAX_CODE_BYTES + 1), "0", "more than 512 KiB"),
    ],
    ids=["slow", "crash", "long"],
)  # fmt: skip
def test_what_a_grammar_cannot_bear_is_cut_by_its_indentation(
    content: bytes, prepared: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("python")
    program = (
        "import os, sys; sys.path[:] = sys.argv[1:]; from gte_sdk.passages.reading import outline, worker; "
        f"{prepared}; worker.main()"
    )
    with Parser() as parser:
        with monkeypatch.context() as patch:
            patch.setattr(parser_module, "_PROGRAM", program)
            reading = read_sections(tmp_path / "a.py", content, parser)
        parser._end()
        after = read_sections(tmp_path / "b.py", b"def f():\r\n    pass\r\n", parser)
    (section,) = reading.sections
    assert section.text.encode() == content
    assert (section.definitions, reading.reason) == (None, updating.BY_INDENTATION)
    assert reason in reading.detail
    assert after.sections[0].definitions == [Definition(0, 2, "f")]
    assert after.reason == ""


@pytest.mark.parametrize("content", [b"(" * 100_000, b"{" * 100_000, b"\xff\x00" * 100_000, b"a\n" * 100_000])
def test_files_that_are_no_code_have_no_definitions(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "MAX_SECONDS", 600.0)  # of a busy machine
    needs("python")
    needs("cpp")
    assert definitions_in(content, "python") == definitions_in(content, "cpp") == []


def test_without_grammars_code_is_cut_by_its_indentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "_installed", frozenset)
    with Parser() as parser:
        reading = read_sections(tmp_path / "a.py", b"def f():\n    pass\n", parser)
    assert (reading.sections[0].definitions, reading.reason) == (None, "")


def test_an_index_notes_its_splitter_and_another_one_splits_all_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("python")
    (tmp_path / "src").mkdir()
    body = f"        {WORDS}\n"
    (tmp_path / "src" / "a.py").write_text(
        f"class Shelf:\n    def put(self):\n{body}{body}\n    def take(self):\n{body}{body}"
    )
    (tmp_path / "src" / "b.py").write_text("(" * (MAX_CODE_BYTES + 1))
    embedder = Embedder()
    settings = Settings("gte-mini", embedder.fingerprint, embedder.dim, (str(tmp_path / "src"),))

    def contexts(store: PassageStore) -> list[str]:
        return [part.context for part in store.passages_of_file(str(tmp_path / "src" / "a.py"))]

    with PassageStore(tmp_path / "i", settings) as store:
        said: list[str] = []
        changes = update_index(store, embedder, said.append, lambda done, total: None)
        assert [(file.path.name, file.reason) for file in changes.left_out] == [("b.py", updating.BY_INDENTATION)]
        assert (changes.without_text, len(said)) == (0, 1)
        assert contexts(store) == ["Shelf > put", "Shelf > take"]
        assert store.meta("split_by") == split_by()
        assert "tree-sitter-python " in split_by()
        assert update_index(store, embedder, said.append, lambda done, total: None).embedded == 0
        with monkeypatch.context() as patch:
            patch.setattr(outline, "_installed", frozenset)
            patch.setattr(updating, "splitter_of_code", lambda: "")
            update_index(store, embedder, said.append, lambda done, total: None)
            assert (
                contexts(store) == ["class Shelf:", "class Shelf: > def put(self):"]
                or contexts(store)[0] != "Shelf > put"
            )
            assert store.meta("split_by") == split_by()
            assert said[-1].endswith(f", and is split again by {split_by()}")
        update_index(store, embedder, said.append, lambda done, total: None)
        assert contexts(store) == ["Shelf > put", "Shelf > take"]
