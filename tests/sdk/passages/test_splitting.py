"""Passages: whole lines, right numbers, headings and definitions as context, sizes for a model."""

import re
import textwrap
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_sdk.passages.splitting import (
    MAX_ROUGH_TOKENS,
    Passage,
    _title_of,
    count_rough_tokens,
    split_passages,
    text_to_embed,
)
from gte_sdk.passages.text_files import Kind


def passages_of(text: str, kind: Kind) -> list[Passage]:
    return list(split_passages("file", textwrap.dedent(text), kind))


def places(passages: list[Passage]) -> list[tuple[int, str, str]]:
    return [(passage.line, passage.context, passage.text.split("\n")[0]) for passage in passages]


def test_markdown_sections_become_passages_under_their_headings() -> None:
    passages = passages_of(
        """\
        # Guide

        Opening words.

        ## Install

        Use pip.

        ## Use ##
        Call it.

        Other
        =====
        Last words.
        """,
        "markdown",
    )
    assert places(passages) == [
        (1, "", "# Guide"),
        (5, "Guide", "## Install"),
        (9, "Guide", "## Use ##"),
        (12, "", "Other"),
    ]
    assert passages[2].text == "## Use ##\nCall it."
    assert text_to_embed(passages[1]) == "Guide\n## Install\n\nUse pip."
    assert text_to_embed(passages[0]) == "# Guide\n\nOpening words."


def test_a_long_markdown_section_is_cut_at_paragraphs_and_keeps_its_heading_as_context() -> None:
    paragraph = "\n".join(["one two three four five six seven eight nine ten"] * 6)
    passages = passages_of("# Title\n\n## Part\n\n" + "\n\n".join([paragraph] * 6), "markdown")
    # The empty section of the title introduces the part; 365 rough tokens make two passages.
    assert places(passages) == [
        (1, "", "# Title"),
        (26, "Title > Part", "one two three four five six seven eight nine ten"),
    ]
    assert [count_rough_tokens(passage.text) for passage in passages] == [185, 180]


def test_fenced_code_is_no_heading_and_stays_together() -> None:
    text = "# Real\n\n```python\n# not a heading\n\nx = 1\n~~~\n```\n\nAfter.\n"
    assert places(passages_of(text, "markdown")) == [(1, "", "# Real")]
    assert places(passages_of("~~~\n# inside, never closed\n", "markdown")) == [(1, "", "~~~")]


@pytest.mark.parametrize("line", ["#nothing", "####### seven", "    # indented code", "a # b"])
def test_what_only_looks_like_a_markdown_heading(line: str) -> None:
    passages = passages_of(f"{line}\n\n# Real\n\nWords.", "markdown")
    assert places(passages) == [(1, "", line), (3, "", "# Real")]


def test_restructuredtext_levels_follow_the_order_of_their_adornments() -> None:
    passages = passages_of(
        """\
        =====
        Title
        =====

        Words.

        Part
        ====
        Words right below.

        Detail
        ------

        More.

        Second part
        ===========

        End.

        | not a title
        -
        """,
        "restructuredtext",
    )
    assert places(passages) == [
        (1, "", "====="),
        (7, "Title", "Part"),
        (11, "Title > Part", "Detail"),
        (16, "Title", "Second part"),
    ]
    assert passages[1].text == "Part\n====\nWords right below."


def test_code_is_cut_at_definitions_and_says_what_encloses_a_piece() -> None:
    method = "    def method_{0}(self, value: int) -> int:\n" + "        value = value + {0} * other\n" * 14
    source = "import this\n\n\ndef first(\n    argument,\n) -> None:\n" + "    call(argument, argument)\n" * 12
    source += "\n\nclass Thing:\n" + "\n".join(method.format(number) for number in range(4))
    passages = passages_of(source, "code")
    assert places(passages) == [
        (1, "", "import this"),
        (21, "", "class Thing:"),
        (38, "class Thing:", "    def method_1(self, value: int) -> int:"),
        (54, "class Thing:", "    def method_2(self, value: int) -> int:"),
        (70, "class Thing:", "    def method_3(self, value: int) -> int:"),
    ]


def test_a_closing_line_does_not_become_the_context() -> None:
    body = "    call(some, words, to, count)\n" * 25
    source = f"def first(\n    argument,\n) -> None:\n{body}\n    # a remark\n{body}"
    passages = passages_of(source, "code")
    assert [passage.context for passage in passages] == ["", "def first(", "def first(", "def first("]


def test_plain_text_is_packed_by_paragraphs() -> None:
    text = "\n\n".join(f"{name} " + "word " * 89 for name in ["alpha", "beta", "gamma", "delta"])
    sizes = [(p.line, p.context, count_rough_tokens(p.text)) for p in passages_of(text, "text")]
    assert sizes == [
        (1, "", 180),
        (5, "", 180),
    ]


def test_passages_of_one_section_are_of_like_size() -> None:
    text = "\n\n".join(["word " * 30] * 7)
    assert [count_rough_tokens(passage.text) for passage in passages_of(text, "text")] == [120, 90]


def test_blank_lines_around_a_passage_do_not_belong_to_it() -> None:
    assert [passage.text for passage in passages_of("\n~~~\nnever closed\n\n\n", "markdown")] == ["~~~\nnever closed"]


def test_a_long_paragraph_is_cut_between_lines_into_equal_parts_but_a_line_never() -> None:
    lines = [f"line {number} has six words here" for number in range(60)]
    passages = passages_of("\n".join(lines), "text")
    assert [count_rough_tokens(passage.text) for passage in passages] == [180, 180]
    assert passages[1].line == 31
    assert passages[1].text.startswith("line 30 ")
    long_line = "word " * 1000
    assert [passage.text for passage in passages_of(f"a\n{long_line}\nb", "text")] == ["a", long_line, "b"]


def test_rough_tokens_count_words_marks_and_ideographs() -> None:
    assert count_rough_tokens("two words") == 2
    assert count_rough_tokens("tokenization") == 2
    assert count_rough_tokens("東京は日本の首都です") == 10
    assert count_rough_tokens("a" * 1200) == 200
    assert count_rough_tokens("f(a_b, c)") == 8
    assert count_rough_tokens("don't—stop, ¿qué?") == 9
    assert count_rough_tokens("") == 0


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("text", ["", "\n", " \t\n\n", "\ufeff"])
def test_blank_files_have_no_passages_worth_reading(text: str, kind: Kind) -> None:
    assert [passage.text.strip("\ufeff") for passage in passages_of(text, kind) if passage.text.strip("\ufeff")] == []


LINES = st.one_of(
    st.sampled_from(
        ["", "", "# A", "## B", "### C", "Title", "=====", "-----", "```", "~~~~", "def f():", "    return 1", "}", ")",
         "class X {", "\tindented", "* item", "| a | b |", "word " * 80, "word " * 200, "\x0b\x0c\u2028 odd", "   "]
    ),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(LINES, max_size=40),
    st.sampled_from(get_args(Kind)),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_every_line_that_is_not_blank_is_in_exactly_one_passage(lines: list[str], kind: Kind, end: str) -> None:
    numbers: list[int] = []
    for passage in split_passages("file", end.join(lines), kind):
        text = passage.text.split("\n")
        assert text == lines[passage.line - 1 : passage.line - 1 + len(text)]
        assert text[0].strip()
        assert text[-1].strip()
        numbers += [passage.line + offset for offset, line in enumerate(text) if line.strip()]
        largest_line = max(count_rough_tokens(line) for line in text)
        # A title may be of any length where the line below it makes it one.
        followed = zip(text, [*text[1:], ""], strict=True)
        titles = [line for line, below in followed if len(line) < 40 or len(set(below.strip())) == 1]
        headings = sum(map(count_rough_tokens, titles))
        assert count_rough_tokens(passage.text) <= max(MAX_ROUGH_TOKENS, largest_line) + headings
    assert numbers == [number for number, line in enumerate(lines, 1) if line.strip()]


@given(st.text(alphabet="# \tab", max_size=12))
def test_the_title_of_a_heading(line: str) -> None:
    found = re.fullmatch(r"(.*?)[ \t]*#*[ \t]*", line)
    assert found is not None
    assert _title_of(line) == found[1]


# Each takes a minute to days where the work grows with the square of the text.
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("markdown", "# x\n" * 40_000),
        ("markdown", "# a\n## b\n" * 20_000),
        ("markdown", "x\n=\n" * 20_000),
        ("markdown", "# " + " " * 200_000 + "x"),
        ("markdown", "# " + "#" * 200_000 + "x"),
        ("markdown", "# " + "# " * 100_000 + "x"),
        ("markdown", "=" * 200_000 + " " * 200_000 + "x"),
        ("markdown", "```a\n" * 40_000),
        ("markdown", "```a\n```\n" * 20_000),
        ("restructuredtext", "x\n==\n\n" * 20_000),
        ("restructuredtext", "x\n" + "=" * 200_000 + " " * 200_000 + "x"),
        ("code", "\n\n".join(" " * indent + "x" for indent in range(600))),
        ("code", " " * 200_000 + "private" + " " * 200_000 + "x"),
        ("text", "\n" * 100_000),
    ],
)
def test_no_text_is_split_for_ever(kind: Kind, text: str) -> None:
    assert "\n".join(passage.text for passage in split_passages("file", text, kind)).split() == text.split()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("markdown", f"# {'a' * 100_000}\n\n" + "some words\n\n" * 2000),
        ("markdown", f"{'a' * 100_000}\n===\n\n" + "some words\n\n" * 2000),
        ("restructuredtext", f"{'a' * 100_000}\n{'=' * 100_000}\n\n" + "some words\n\n" * 2000),
        ("code", "\n".join(" " * indent + "x" * 500 for indent in range(500)) + (f"\n\n{' ' * 500}y = 1" * 1000)),
    ],
)
def test_what_a_passage_lies_under_is_short_whatever_the_file_is(kind: Kind, text: str) -> None:
    passages = list(split_passages("file", text, kind))
    assert len(passages) > 10
    assert 0 < max(len(passage.context) for passage in passages) <= 8 * 83
