"""How the documentation's pictures look: SVG from a few pieces, each picture once for light pages and once for dark.

Text stays text, in the reader's own font, and is never narrower than it looks in a column of 370 px: pictures are WIDTH
wide and letters 15 high.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH = 640
LINE = 22
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
LETTER = 8.0
"""What a letter of a size of 15 takes at most on average, in pixels."""


class Colours(NamedTuple):
    background: str
    text: str
    faint: str
    """Axes, and text that matters less."""
    ours: str
    others: str
    good: str


LIGHT = Colours("#ffffff", "#1f2328", "#6b7280", "#4051b5", "#b8bec9", "#1a7f37")
DARK = Colours("#1e2129", "#e6e8ee", "#9aa2b1", "#8fa2ff", "#596174", "#5ad17f")
THEMES = {"light": LIGHT, "dark": DARK}


def text(
    x: float, y: float, words: str, colour: str, *, size: int = 15, anchor: str = "start", bold: bool = False
) -> str:
    """A line of text whose letters stand on y."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{weight} fill="{colour}">'
        f"{escape(words, quote=False)}</text>"
    )


def box(x: float, y: float, width: float, height: float, colour: str, radius: float = 2) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.5g}" height="{height:g}" rx="{radius:g}" fill="{colour}"/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<path d="M{x1:.5g} {y1:.5g}L{x2:.5g} {y2:.5g}" stroke="{colour}" stroke-width="1" opacity="0.4"/>'


def picture(pieces: list[str], height: float, title: str, colours: Colours, font: str = FONT) -> str:
    """The pieces as one SVG file; the title is for those who do not see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" role="img" font-family="{escape(font)}">'
    )
    content = [f"<title>{escape(title)}</title>", box(0, 0, WIDTH, height, colours.background, 8), *pieces]
    return "\n".join([head, *content, "</svg>\n"])


def in_both_themes(name: str, drawn: Callable[[Colours], str]) -> dict[str, str]:
    """File names with their contents."""
    return {f"{name}-{theme}.svg": drawn(colours) for theme, colours in THEMES.items()}


def write(pictures: dict[str, str], folder: Path) -> None:
    for name, content in pictures.items():
        (folder / name).write_text(content, encoding="utf-8")
