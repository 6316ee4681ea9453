"""Draws the tables of docs/runtime.md: documents a CPU second and peak memory of each way to run the same weights.

    python benchmarks/plot_embedding.py docs/runtime.md docs/images/embedding-comparison.svg

The numbers have one home, the page; benchmarks/embedding.py measures them. A rival of two tables counts in the first.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

HEADER = "| | documents/s | documents/CPU s |"


class Row(NamedTuple):
    name: str
    documents_per_cpu_second: float
    peak_megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the tables of the page on running a model.")
    parser.add_argument("page", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    draw(read_rows(options.page.read_text(encoding="utf-8")), options.output)


def read_rows(page: str) -> list[Row]:
    """The rows of every table that has the header, without those that an earlier table has."""
    rows: dict[str, Row] = {}
    for table in page.split(HEADER)[1:]:
        for line in table.split("\n\n")[0].splitlines()[2:]:
            cells = [re.sub(r"[*,]", "", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            name = re.sub(r" \(.*\)", "", cells[0])
            rows.setdefault(name, Row(name, float(cells[2]), float(cells[5])))
    if not rows:
        raise SystemExit(f"the page has no table with the header {HEADER}")
    return sorted(rows.values(), key=lambda row: row.documents_per_cpu_second)


def draw(rows: list[Row], output: Path) -> None:
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "gte-sdk"  # the same numbers give the same file
    figure, (speed, memory) = plt.subplots(
        1, 2, figsize=(10, 0.42 * len(rows) + 1.2), sharey=True, layout="constrained"
    )
    names = [row.name for row in rows]
    colours = ["#3f51b5" if name.startswith("gte_sdk") else "#9e9e9e" for name in names]
    for axis, title, values in (
        (speed, "documents per CPU second", [row.documents_per_cpu_second for row in rows]),
        (memory, "peak memory, MB", [row.peak_megabytes for row in rows]),
    ):
        axis.bar_label(axis.barh(names, values, color=colours), fmt="{:,.0f}", padding=3)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, metadata={"Date": None})


if __name__ == "__main__":
    main()
