"""Bars and differences, one panel below another, and points on a logarithmic scale with a label beside each."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import NamedTuple

from benchmarks.pictures.style import LETTER, LINE, WIDTH, Colours, box, line, picture, text

_MARGIN = 16.0


class Bar(NamedTuple):
    name: str
    value: float
    is_ours: bool


class Panel(NamedTuple):
    title: str
    bars: list[Bar]


class Difference(NamedTuple):
    name: str
    value: float
    spread: float
    """The standard deviation, drawn to both sides of the value; 0 if there is none."""


class Differences(NamedTuple):
    title: str
    rows: list[Difference]


class Point(NamedTuple):
    name: str
    x: float
    y: float
    is_ours: bool


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def touches(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def bars(panels: Sequence[Panel], title: str, colours: Colours) -> str:
    """Each panel has its own scale, from zero, and the numbers beside its bars."""
    names_end = _MARGIN + max(_length(bar.name, bar.is_ours) for panel in panels for bar in panel.bars) + 10
    pieces, y = [], _MARGIN
    for panel in panels:
        y += LINE
        pieces.append(text(_MARGIN, y - 5, panel.title, colours.text, size=16, bold=True))
        y += 6
        longest = max(bar.value for bar in panel.bars)
        room = WIDTH - _MARGIN - names_end - LETTER * len(shown(longest)) - 8
        for bar in panel.bars:
            width = max(room * bar.value / longest, 1.5)
            colour = colours.ours if bar.is_ours else colours.others
            pieces += [
                text(names_end - 8, y + 16, bar.name, colours.text, anchor="end", bold=bar.is_ours),
                box(names_end, y + 2, width, LINE - 5, colour),
                text(names_end + width + 6, y + 16, shown(bar.value), colours.text, bold=bar.is_ours),
            ]
            y += LINE
        y += 10
    return picture(pieces, y + 4, title, colours)


def differences(panels: Sequence[Differences], title: str, colours: Colours) -> str:
    """Bars to the left and right of zero on one scale, each with its spread, and the numbers at the right."""
    rows = [row for panel in panels for row in panel.rows]
    left = _MARGIN + max(_length(row.name, False) for row in rows) + 10
    right = WIDTH - _MARGIN - LETTER * max(len(_signed(row.value)) for row in rows) - 8
    least = min(0.0, *(row.value - row.spread for row in rows))
    most = max(0.0, *(row.value + row.spread for row in rows))

    def place(value: float) -> float:
        return left + (right - left) * (value - least) / (most - least)

    pieces, y = [], _MARGIN
    for panel in panels:
        y += LINE
        pieces.append(text(_MARGIN, y - 5, panel.title, colours.text, size=16, bold=True))
        y += 6
        pieces.append(line(place(0), y, place(0), y + LINE * len(panel.rows), colours.text))
        for row in panel.rows:
            start, end = sorted((place(0), place(row.value)))
            spread_start = place(row.value - row.spread)
            spread_width = place(row.value + row.spread) - spread_start
            pieces += [
                text(left - 8, y + 16, row.name, colours.text, anchor="end"),
                box(start, y + 2, end - start, LINE - 5, colours.ours if row.value >= 0 else colours.others),
                box(spread_start, y + LINE / 2 - 1, spread_width, 1.5, colours.text),
                text(WIDTH - _MARGIN, y + 16, _signed(row.value), colours.text, anchor="end"),
            ]
            y += LINE
        y += 10
    return picture(pieces, y + 4, title, colours)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def _length(words: str, bold: bool) -> float:
    return len(words) * LETTER * (1.12 if bold else 1)


def shown(value: float) -> str:
    """With three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def points(marks: Sequence[Point], x_title: str, y_title: str, title: str, colours: Colours) -> str:
    """x is logarithmic. A label stands where it covers no point and no other label."""
    left, right, top, bottom = _MARGIN + 36, WIDTH - _MARGIN, 52.0, 340.0
    first, last = floor(log10(min(mark.x for mark in marks))), ceil(log10(max(mark.x for mark in marks)))
    lowest, highest = 5 * floor(min(mark.y for mark in marks) / 5), 5 * ceil(max(mark.y for mark in marks) / 5)

    def place(mark: Point) -> tuple[float, float]:
        x = left + (right - left) * (log10(mark.x) - first) / (last - first)
        return x, bottom - (bottom - top) * (mark.y - lowest) / (highest - lowest)

    pieces = [text(_MARGIN, 28, y_title, colours.text, size=16, bold=True)]
    for value in range(lowest, highest + 1, 5):
        y = bottom - (bottom - top) * (value - lowest) / (highest - lowest)
        pieces += [
            line(left, y, right, y, colours.faint),
            text(left - 8, y + 5, str(value), colours.faint, anchor="end"),
        ]
    for power in range(first, last + 1):
        x = left + (right - left) * (power - first) / (last - first)
        anchor = "end" if power == last else "middle"
        pieces += [
            line(x, top, x, bottom, colours.faint),
            text(x, bottom + 22, f"{10**power:,}", colours.faint, anchor=anchor),
        ]
    pieces.append(text(right, bottom + 46, x_title, colours.text, anchor="end", size=16, bold=True))

    taken = [_Box(x - 8, y - 8, x + 8, y + 8) for x, y in map(place, marks)]
    frame = _Box(left, top - 16, right, bottom)
    for mark in marks:
        x, y = place(mark)
        label = next(
            candidate
            for candidate in _around(x, y, _length(mark.name, mark.is_ours))
            if not any(candidate.touches(other) for other in taken)
            and candidate.left >= frame.left and candidate.right <= frame.right
            and candidate.top >= frame.top and candidate.bottom <= frame.bottom
        )  # fmt: skip
        taken.append(label)
        colour = colours.ours if mark.is_ours else colours.faint
        pieces.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>')
        # The letters are narrower than the room kept for them: they stand at the end that is nearest to the point.
        at, anchor = (label.left, "start") if label.left > x else (label.right, "end")
        if label.left <= x <= label.right:
            at, anchor = (label.left + label.right) / 2, "middle"
        pieces.append(text(at, label.bottom - 5, mark.name, colours.text, anchor=anchor, bold=mark.is_ours))
    return picture(pieces, bottom + 62, title, colours)


def _around(x: float, y: float, width: float) -> list[_Box]:
    """Places for a label, the best first: right, left, above, below, then farther away."""
    boxes = []
    for away in range(0, 85, 14):
        boxes += [
            _Box(x + 11, y - 10 + away, x + 11 + width, y + 10 + away),
            _Box(x + 11, y - 10 - away, x + 11 + width, y + 10 - away),
            _Box(x - 11 - width, y - 10 - away, x - 11, y + 10 - away),
            _Box(x - 11 - width, y - 10 + away, x - 11, y + 10 + away),
            _Box(x - width / 2, y - 30 - away, x + width / 2, y - 10 - away),
            _Box(x - width / 2, y + 10 + away, x + width / 2, y + 30 + away),
        ]
    return boxes
