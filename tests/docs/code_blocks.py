"""The code blocks of a Markdown page, fenced and indented alike, as CommonMark sees them.

Comments, which no reader sees, say what the test cannot know: `<!-- not run: REASON -->` stands before a block that no
test machine can run, which is then only parsed; `<!-- run: COMMANDS -->` makes the files that a page takes for granted.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

# The first words of a block without a language that make it commands.
_COMMANDS = {
    "accelerate", "curl", "cd", "docker", "echo", "export", "gte", "make", "mkdir", "npm", "pip", "podman", "printf",
    "pyinstaller", "python", "python3", "ray", "spark-submit", "uv",
}  # fmt: skip
_SAME = {"py": "python", "sh": "bash", "shell": "bash", "": "text", "yml": "yaml"}
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(.+?)\s*-->", re.DOTALL)
_SET_UP = re.compile(r"<!--\s*run:\s*(.+?)\s*-->", re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    """Of its first line of code, counted from 1."""
    language: str
    title: str | None
    """The name of the file that the block is: `title="notes.py"` after the language."""
    text: str
    not_run: str | None
    """Why not, or None for a block that is run."""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order, set-up comments among them as bash."""
    reason: str | None = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            if marker := _NOT_RUN.search(token.content):
                assert reason is None, f"{page.name}:{line}: two markers before one block"
                reason = marker[1]
            for set_up in _SET_UP.finditer(token.content):
                yield Block(page, line, "bash", None, set_up[1] + "\n", None)
        elif token.type in ("fence", "code_block"):
            words = token.info.split(maxsplit=1)
            title = re.search(r'title="([^"]+)"', token.info)
            language = _SAME.get(words[0], words[0]) if words else language_of(token.content)
            first_line = line + (token.type == "fence")
            yield Block(page, first_line, language, title[1] if title else None, token.content, reason)
            reason = None
        elif reason is not None and token.nesting >= 0:
            raise AssertionError(f"{page.name}:{line}: the marker before this stands before no block of code")


def language_of(text: str) -> str:
    """What a block without a language is: commands, Python, or text to be read."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    if text.startswith("$ "):
        return "console"
    if text.startswith(">>> "):
        return "pycon"
    if first in _COMMANDS:
        return "bash"
    return "python" if first in ("from", "import") else "text"
