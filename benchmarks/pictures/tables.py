"""The numbers of the pictures, from the tables of the pages: the pages are their only home."""

import re
from typing import NamedTuple


class Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]
    """Cells as on the page, without bold letters and links."""

    def column(self, beginning: str) -> int:
        """The place of the column whose head begins so."""
        return next(place for place, head in enumerate(self.columns) if head.startswith(beginning))


def tables_of(page: str, column: str) -> list[Table]:
    """Every table of a page that has a column whose head begins so; a page without one is an error."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = [_cells(row) for row in block.splitlines()]
        if any(name.startswith(column) for name in head):
            found.append(Table(head, rows))
    if not found:
        raise ValueError(f"the page has no table with a column {column!r}")
    return found


def number(cell: str) -> float | None:
    """What a cell begins with: "1,667 (841%)" is 1667; None for a cell without a number."""
    match = re.match(r"[\d,.]*\d", cell)
    return float(match[0].replace(",", "")) if match else None


def _cells(row: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", row.strip())[1:-1]
    return [re.sub(r"\*\*|\[([^]]*)\]\([^)]*\)", r"\1", cell).strip() for cell in cells]
