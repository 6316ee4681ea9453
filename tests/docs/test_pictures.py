"""The documentation's pictures show the numbers of its pages, and what `gte search` prints."""

import re
from pathlib import Path

import pytest

from benchmarks.pictures.__main__ import charts, search_picture
from benchmarks.pictures.charts import Point, points
from benchmarks.pictures.style import LIGHT
from benchmarks.pictures.tables import number, tables_of

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"


@pytest.mark.parametrize("name", sorted(charts(ROOT / "docs")))
def test_a_picture_is_drawn_from_the_page(name: str) -> None:
    drawn = charts(ROOT / "docs")[name]
    assert (IMAGES / name).read_text(encoding="utf-8") == drawn, "draw it again: python -m benchmarks.pictures"


def test_the_terminal_shows_what_the_command_prints(tmp_path: Path) -> None:
    for name, drawn in search_picture(tmp_path).items():
        assert (IMAGES / name).read_text(encoding="utf-8") == drawn, "draw it again: python -m benchmarks.pictures"


def test_every_picture_of_a_page_exists_in_both_themes() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"images/([\w-]+\.\w+)", page.read_text(encoding="utf-8"))}
    drawn = {file.name for file in IMAGES.iterdir()}
    assert named | {"logo.svg"} == drawn
    light = {name.replace("-light.", ".") for name in drawn if "-light." in name}
    assert light == {name.replace("-dark.", ".") for name in drawn if "-dark." in name}
    assert len(light) >= 5


def test_no_label_covers_a_point_or_another_label() -> None:
    marks = [
        Point(f"a name of some length {place}", 10 ** (3.2 + place / 10), 62 + place / 10, True) for place in range(5)
    ]
    drawn = points(marks, "x", "y", "title", LIGHT)
    circles = [tuple(map(float, found)) for found in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    labels = [
        (float(x), float(y), anchor)
        for x, y, anchor in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" [^>]*anchor="(\w+)"[^>]*>a name', drawn)
    ]
    assert len(circles) == len(labels) == 5
    for x, y, anchor in labels:
        length = 8 * len(marks[0].name)
        left = x - {"start": 0, "middle": length / 2, "end": length}[anchor]
        assert not [c for c in circles if left < c[0] < left + length and y - 15 < c[1] < y + 5]
        assert len([other for other in labels if abs(other[1] - y) < 15]) <= 2


def test_tables_are_read_from_a_page() -> None:
    page = "text\n\n| | a | ms (x) |\n|---|---|---|\n| **[one](x.md)** | 1 | 1,667 (841%) |\n| two | | .5 |\n\nmore\n"
    (table,) = tables_of(page, "ms")
    assert table.rows == [["one", "1", "1,667 (841%)"], ["two", "", ".5"]]
    assert [number(row[table.column("ms")]) for row in table.rows] == [1667.0, 0.5]
    assert number("") is None
    with pytest.raises(ValueError, match="no table with a column 'seconds'"):
        tables_of(page, "seconds")
