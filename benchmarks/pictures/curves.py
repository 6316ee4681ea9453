"""Curves on two logarithmic scales, one panel below another, each curve named at its end."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import NamedTuple

from benchmarks.pictures.style import WIDTH, Colours, line, picture, text

_LEFT, _RIGHT, _HEIGHT = 70.0, WIDTH - 90.0, 150.0


class Curves(NamedTuple):
    title: str
    x: list[float]
    y: dict[str, list[float]]
    """The curves by name, each with a value for each x."""


def curves(panels: Sequence[Curves], title: str, colours: Colours) -> str:
    pieces, top = [], 0.0
    for panel in panels:
        pieces += _panel(panel, top + 44, colours)
        top += _HEIGHT + 82
    return picture(pieces, top + 4, title, colours)


def _panel(panel: Curves, top: float, colours: Colours) -> list[str]:
    values = [value for curve in panel.y.values() for value in curve]
    lowest, highest = floor(log10(min(values))), ceil(log10(max(values)))
    first, last = log10(panel.x[0]), log10(panel.x[-1])
    bottom = top + _HEIGHT

    def across(x: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (log10(x) - first) / (last - first)

    def up(y: float) -> float:
        return bottom - _HEIGHT * (log10(y) - lowest) / (highest - lowest)

    pieces = [text(16, top - 16, panel.title, colours.text, size=16, bold=True)]
    for power in range(lowest, highest + 1):
        y = up(10.0**power)
        pieces += [line(_LEFT, y, _RIGHT, y, colours.faint)]
        pieces += [text(_LEFT - 14, y + 5, f"{10.0**power:g}", colours.faint, anchor="end")]
    pieces += [text(across(x), bottom + 24, f"{x:,.0f}", colours.faint, anchor="middle") for x in panel.x]
    ends: list[tuple[float, str, str]] = []
    for colour, (name, curve) in zip((colours.ours, colours.good, colours.faint), panel.y.items(), strict=True):
        places = [(across(x), up(y)) for x, y in zip(panel.x, curve, strict=True)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        pieces.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        pieces += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        ends.append((places[-1][1] + 5, name, colour))
    free = top
    for y, name, colour in sorted(ends):
        pieces.append(text(_RIGHT + 12, max(y, free), name, colour, bold=True))
        free = max(y, free) + 17
    return pieces
