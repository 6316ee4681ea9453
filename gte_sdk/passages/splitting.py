"""Splits text files into passages of about a paragraph, small enough for a model to read whole, with line numbers.

A file is cut into blocks: paragraphs, fenced code, definitions. Consecutive blocks of one section are packed into
passages of about equal size, with at most MAX_ROUGH_TOKENS. Lines are never cut, so `path:line` opens an editor at the
passage. Its headings or enclosing definitions, without which it may make no sense, are kept as its context.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from gte_sdk.passages.text_files import Kind

MAX_ROUGH_TOKENS = 200
"""About 130 words of English. One passage in twenty has over 240 real tokens; small models read 256 to 512."""
# Imports and constants are joined with what follows until there is at least this much to say.
_MIN_CODE_ROUGH_TOKENS = 50
# Of each heading or definition around a passage, and how many of them: a file may be one heading of megabytes.
_CONTEXT_CHARACTERS, _TITLE_CHARACTERS, _CONTEXT_LEVELS = 80, 200, 8

# What BERT's tokenizer makes of a text, in the median over prose, code and tables: a token for each 6 letters of a word
# begun, each mark of punctuation, each ideograph or syllable.
_ROUGH_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]{1,6}|[^\w\s]|_"
)
_MARKDOWN_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+")
_MARKDOWN_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_MARKDOWN_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+\s*$")
# Lines at the left that close, comment on or mark a place inside a definition, and don't open one themselves.
_NO_DEFINITION = re.compile(r"\s*([)\]}#]|//|/?\*|(public|private|protected)\s*:)")


class Passage(NamedTuple):
    path: str
    line: int
    """The first line of the text in its file, counted from 1."""
    context: str
    """The headings or definitions that the text lies under, outermost first, joined by " > "; "" for none."""
    text: str
    """Whole lines of the file, joined by "\\n"."""


class Definition(NamedTuple):
    """A function, class or the like of a source file, found by its grammar."""

    start: int
    """The first line, from 0: with the comments, decorators and attributes in front of it."""
    end: int
    """The line after the last one."""
    name: str


class _Block(NamedTuple):
    start: int
    end: int
    context: tuple[str, ...]
    opens_section: bool
    is_heading: bool


def split_passages(
    path: str, text: str, kind: Kind, definitions: Sequence[Definition] | None = None
) -> Iterator[Passage]:
    """Yields the passages of a text in order. Every line that is not blank is in exactly one of them.

    Args:
        path: Of the file, for the passages.
        text: What is in it.
        kind: How to cut it.
        definitions: Those of source code, outer ones before those in them, each inside of another or apart from it.
            Code is cut at them, and their names are the context. None: it is cut by its indentation.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    sizes = [count_rough_tokens(line) for line in lines]
    if kind == "markdown":
        blocks = _markdown_blocks(lines)
    elif kind == "restructuredtext":
        blocks = _restructuredtext_blocks(lines)
    elif definitions is not None:
        blocks = _blocks_of_definitions(lines, sizes, definitions)
    elif kind == "code":
        blocks = _code_blocks(lines, sizes)
    else:
        blocks = (_Block(start, end, (), False, False) for start, end in _paragraphs(lines, 0, len(lines)))
    for section in _sections(blocks):
        for run in _pack(section, sizes):
            start, end = run[0].start, run[-1].end
            while start < end and not lines[start].strip():
                start += 1
            while start < end and not lines[end - 1].strip():
                end -= 1
            if start == end:
                continue
            context = run[0].context if definitions is None else _context_of(run)
            yield Passage(path, start + 1, " > ".join(context[-_CONTEXT_LEVELS:]), "\n".join(lines[start:end]))


def text_to_embed(passage: Passage) -> str:
    """Returns what the model reads of a passage: its context, then its text."""
    return f"{passage.context}\n{passage.text}" if passage.context else passage.text


def count_rough_tokens(text: str) -> int:
    """Estimates the number of tokens of a text, within about a fifth, without a tokenizer."""
    return sum(1 for _ in _ROUGH_TOKEN.finditer(text))


def _sections(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    section: list[_Block] = []
    has_text = False
    for block in blocks:
        # A heading with nothing under it but another heading introduces that one.
        if block.opens_section and has_text:
            yield section
            section, has_text = [], False
        section.append(block)
        has_text |= not block.is_heading
    if section:
        yield section


def _pack(section: list[_Block], line_sizes: list[int]) -> Iterator[list[_Block]]:
    """Cuts a section into runs of about equal size, each of at most MAX_ROUGH_TOKENS unless a single line has more."""
    pieces = [piece for block in section for piece in _cut_to_size(block, line_sizes)]
    sizes = [sum(line_sizes[piece.start : piece.end]) for piece in pieces]
    enough = sum(sizes) / max(1, math.ceil(sum(sizes) / MAX_ROUGH_TOKENS))
    run: list[_Block] = []
    run_size, has_text = 0, False
    for piece, piece_size in zip(pieces, sizes, strict=True):
        full = run_size >= enough or run_size + piece_size > MAX_ROUGH_TOKENS
        if full and has_text:
            yield run
            run, run_size, has_text = [], 0, False
        run.append(piece)
        run_size += piece_size
        has_text |= not piece.is_heading
    if run:
        yield run


def _cut_to_size(block: _Block, line_sizes: list[int]) -> Iterator[_Block]:
    sizes = line_sizes[block.start : block.end]
    if sum(sizes) <= MAX_ROUGH_TOKENS:
        yield block
        return
    enough = sum(sizes) / math.ceil(sum(sizes) / MAX_ROUGH_TOKENS)
    start, piece_size = block.start, 0
    for number, line_size in enumerate(sizes, block.start):
        if number > start and (piece_size >= enough or piece_size + line_size > MAX_ROUGH_TOKENS):
            yield block._replace(start=start, end=number)
            start, piece_size = number, 0
        piece_size += line_size
    yield block._replace(start=start)


def _paragraphs(lines: list[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the runs of lines between start and end that contain no blank line."""
    first: int | None = None
    for number in range(start, end):
        if lines[number].strip():
            first = number if first is None else first
        elif first is not None:
            yield first, number
            first = None
    if first is not None:
        yield first, end


def _markdown_blocks(lines: list[str]) -> Iterator[_Block]:
    headings: list[tuple[int, str]] = []
    number = 0
    while number < len(lines):
        context = tuple(title for _, title in headings)
        fence = _MARKDOWN_FENCE.match(lines[number])
        heading = _MARKDOWN_HEADING.match(lines[number])
        underline = _underline(lines, number)
        if not lines[number].strip():
            end = number + 1
        elif fence:
            end = _fence_end(lines, number, fence[1])
            yield _Block(number, end, context, False, False)
        elif heading or underline:
            level = len(heading[1]) if heading else underline
            title = _title_of(lines[number][heading.end() :]) if heading else lines[number].strip()
            end = number + 1 if heading else number + 2
            while headings and headings[-1][0] >= level:
                headings.pop()
            yield _Block(number, end, tuple(outer for _, outer in headings), True, True)
            if title:
                headings.append((level, title[:_TITLE_CHARACTERS]))
        else:
            end = number + 1
            while end < len(lines) and lines[end].strip() and not _interrupts_paragraph(lines[end]):
                end += 1
            yield _Block(number, end, context, False, False)
        number = end


def _title_of(line: str) -> str:
    """Returns the title after the marks of a heading, without those that may close it."""
    return line.rstrip(" \t").rstrip("#").rstrip(" \t")


def _underline(lines: list[str], number: int) -> int:
    """Returns the level of a heading that the line below it marks, or 0."""
    if number + 1 == len(lines) or not lines[number].strip() or lines[number].startswith(("    ", "\t")):
        return 0
    underline = _MARKDOWN_UNDERLINE.match(lines[number + 1])
    if not underline or _MARKDOWN_UNDERLINE.match(lines[number]):
        return 0
    return 1 if underline[1].startswith("=") else 2


def _interrupts_paragraph(line: str) -> bool:
    return bool(_MARKDOWN_FENCE.match(line) or _MARKDOWN_HEADING.match(line))


def _fence_end(lines: list[str], start: int, fence: str) -> int:
    """Returns the line after the one that closes a fence, or the end of the file."""
    for number in range(start + 1, len(lines)):
        mark = lines[number].strip()
        if mark.startswith(fence) and not mark.strip(fence[0]):
            return number + 1
    return len(lines)


def _restructuredtext_blocks(lines: list[str]) -> Iterator[_Block]:
    headings: list[tuple[int, str]] = []
    levels: list[str] = []  # the adornments in the order of their first use, which is what gives them their level
    for start, end in _paragraphs(lines, 0, len(lines)):
        adornment, title_line = _restructuredtext_title(lines[start:end])
        if not adornment:
            yield _Block(start, end, tuple(title for _, title in headings), False, False)
            continue
        if adornment not in levels:
            levels.append(adornment)
        level = levels.index(adornment)
        while headings and headings[-1][0] >= level:
            headings.pop()
        body = start + title_line + 2
        yield _Block(start, body, tuple(title for _, title in headings), True, True)
        headings.append((level, lines[start + title_line].strip()[:_TITLE_CHARACTERS]))
        if body < end:
            yield _Block(body, end, tuple(title for _, title in headings), False, False)


def _restructuredtext_title(paragraph: list[str]) -> tuple[str, int]:
    """The adornment of a title (two characters where there is a line above it too) and the title's line; "" if none."""
    for title_line, is_overlined in ((1, True), (0, False)):
        if len(paragraph) < title_line + 2:
            continue
        title, below = paragraph[title_line].rstrip(), paragraph[title_line + 1].rstrip()
        marked = _ADORNMENT.match(below) and len(below) >= len(title) and not _ADORNMENT.match(title)
        if (
            marked
            and (is_overlined or not title.startswith(" "))
            and (not is_overlined or paragraph[0].rstrip() == below)
        ):
            return below[0] * (2 if is_overlined else 1), title_line
    return "", 0


def _code_blocks(lines: list[str], line_sizes: list[int]) -> Iterator[_Block]:
    enclosing: list[tuple[int, str]] = []  # the indentation and text of the definitions around the current line
    size = 0
    for start, end in _paragraphs(lines, 0, len(lines)):
        at_left = _indentation(lines[start]) == 0 and not lines[start].startswith((")", "]", "}"))
        opens = at_left and size >= _MIN_CODE_ROUGH_TOKENS
        size = 0 if opens else size
        # Cut here already, so that each piece of a long block gets the definitions around its own first line.
        for piece in _cut_to_size(_Block(start, end, (), False, False), line_sizes):
            piece_lines = lines[piece.start : piece.end]
            size += sum(line_sizes[piece.start : piece.end])
            indent = _indentation(piece_lines[0])
            context = tuple(line[:_CONTEXT_CHARACTERS] for outer, line in enclosing if outer < indent)
            yield piece._replace(context=context, opens_section=opens and piece.start == start)
            for line in piece_lines:
                if not _NO_DEFINITION.match(line):
                    while enclosing and enclosing[-1][0] >= _indentation(line):
                        enclosing.pop()
                    enclosing.append((_indentation(line), line.strip()))


def _blocks_of_definitions(
    lines: list[str], line_sizes: list[int], definitions: Sequence[Definition]
) -> Iterator[_Block]:
    """Yields a definition that a passage can hold as one block, of a longer one what lies around those in it."""
    sizes = [0, *accumulate(line_sizes)]
    around: list[Definition] = []
    position = size = 0
    starts_at = -1

    def up_to(end: int) -> Iterator[_Block]:
        nonlocal position, size
        context = tuple(each.name[:_CONTEXT_CHARACTERS] for each in around)
        is_whole = (
            bool(around) and (position, end) == around[-1][:2] and sizes[end] - sizes[position] <= MAX_ROUGH_TOKENS
        )
        for start, stop in [(position, end)] if is_whole else _paragraphs(lines, position, end):
            opens = start == starts_at and size >= _MIN_CODE_ROUGH_TOKENS
            size = sizes[stop] - sizes[start] + (0 if opens else size)
            yield _Block(start, stop, context, opens, False)
        position = end

    whole_up_to = 0
    for each in definitions:
        if each.start < whole_up_to:
            continue
        if sizes[each.end] - sizes[each.start] <= MAX_ROUGH_TOKENS:
            whole_up_to = each.end
        while around and around[-1].end <= each.start:
            yield from up_to(around[-1].end)
            around.pop()
        yield from up_to(each.start)
        around.append(each)
        starts_at = each.start
    while around:
        yield from up_to(around[-1].end)
        around.pop()
    yield from up_to(len(lines))


def _context_of(run: list[_Block]) -> tuple[str, ...]:
    """Returns the definition that a run is about, with those around it: of several, what they all lie in."""
    innermost = max((block.context for block in run), key=len)
    if all(block.context == innermost[: len(block.context)] for block in run):  # the others lead to it
        return innermost
    same = 0
    while len({block.context[: same + 1] for block in run}) == 1:
        same += 1
    return innermost[:same]


def _indentation(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
