"""Commands with what they really print, as a terminal shows them, one after the other.

The lines appear in turn, once, and then stay. Who has asked for less motion sees all of them at once.
"""

import os
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.pictures.style import MONOSPACE, WIDTH, Colours, picture

NOTES = {
    "notes/house.md": "# Roof\n\nThe north side leaks where the chimney meets the tiles.\n\n"
    "# Heating\n\nIf the boiler does not start, press the red button.\n",
    "notes/bread.md": "# Rye bread\n\nFeed the starter in the evening.\n",
    "notes/git.md": "# Git\n\n`git reset --soft HEAD~1` takes the last commit back.\n",
}
QUESTIONS = ("water comes in when it rains", "it is cold in the living room")
_COLUMNS = 62
_LINE = 21.0
_TOP = 62.0


class Answer(NamedTuple):
    command: str
    printed: str


def search_notes(folder: Path) -> list[Answer]:
    """Writes the notes into a folder and runs `gte search` there, each question as a reader would type it."""
    for name, content in NOTES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    answers = []
    for question in QUESTIONS:
        command = [sys.executable, "-m", "gte_sdk.cli", "search", question, "notes", "-k", "1"]
        environment = {**os.environ, "COLUMNS": str(_COLUMNS), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        answers.append(Answer(f'gte search "{question}" notes -k 1', done.stdout.rstrip()))
    return answers


def terminal(answers: list[Answer], title: str, colours: Colours) -> str:
    pieces = [f'<circle cx="{24 + 20 * place}" cy="24" r="6" fill="{colours.others}"/>' for place in range(3)]
    y, shown = _TOP, 0
    for command, printed in answers:
        lines = [_tspan("$ ", colours.good) + _tspan(command, colours.text, bold=True)]
        for line in printed.splitlines():
            is_place = not line.startswith(" ") and bool(line)
            place, _, score = line.partition("  ")
            lines.append(
                _tspan(place, colours.ours) + _tspan(f"  {score}", colours.faint)
                if is_place
                else _tspan(line, colours.text)
            )
        for line in [*lines, ""]:
            if line:
                shown += 1
                style = f'style="animation-delay:{0.2 * shown:.1f}s"'
                pieces.append(
                    f'<text class="line" {style} x="20" y="{y:g}" font-size="16" xml:space="preserve">{line}</text>'
                )
            y += _LINE
    height = y - 6
    frame = f'width="{WIDTH - 1}" height="{height - 1:g}" rx="8" fill="none" stroke="{colours.others}"'
    pieces = [_STYLE, f'<rect x="0.5" y="0.5" {frame}/>', *pieces]
    return picture(pieces, height, title, colours, MONOSPACE)


_STYLE = (
    "<style>@media (prefers-reduced-motion: no-preference) {"
    ".line { animation: 0.2s both appear } @keyframes appear { from { opacity: 0 } } }</style>"
)


def _tspan(words: str, colour: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<tspan fill="{colour}"{weight}>{escape(words, quote=False)}</tspan>'
