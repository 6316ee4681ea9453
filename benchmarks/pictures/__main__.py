"""Draws the documentation's pictures: the tables of its pages, and a terminal with what `gte search` prints.

    python -m benchmarks.pictures

The numbers have one home, the pages, and a test compares the pictures with them: run this after a table has changed.
"""

import re
import tempfile
from pathlib import Path

from benchmarks.pictures.charts import Bar, Difference, Differences, Panel, Point, bars, differences, points
from benchmarks.pictures.curves import Curves, curves
from benchmarks.pictures.style import in_both_themes, write
from benchmarks.pictures.tables import Table, number, tables_of
from benchmarks.pictures.terminal import search_notes, terminal

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write({**charts(DOCS), **search_picture(Path(folder))}, DOCS / "images")


def charts(docs: Path) -> dict[str, str]:
    """File names and contents of the pictures of tables."""
    runtime, kernels, models, experiments = (
        (docs / f"{name}.md").read_text(encoding="utf-8") for name in ("runtime", "kernels", "models", "experiments")
    )
    embedding = tables_of(runtime, "documents/CPU s")[0]
    exact, fewer_bits = tables_of(kernels, "1 query, ms")
    growth = tables_of(kernels, "what grows")[0]
    quality = tables_of(models, "tokens/s")[0]
    ablations = [
        ablation_differences(table, f"{encoder}: points against base, and their standard deviation")
        for table, encoder in zip(tables_of(experiments, "setting"), ("static encoder", "transformer"), strict=True)
    ]
    return {
        **in_both_themes("embedding", lambda colours: bars(embedding_panels(embedding), "Embedding on a CPU", colours)),
        **in_both_themes("search-exact", lambda colours: bars(search_panels(exact), "Exact search", colours)),
        **in_both_themes(
            "search-fewer-bits",
            lambda colours: bars(search_panels(fewer_bits), "Search in rows of fewer bits", colours),
        ),
        **in_both_themes("search-growth", lambda colours: curves(growth_panels(growth), "Cost of a search", colours)),
        **in_both_themes(
            "models",
            lambda colours: points(
                model_points(quality),
                "tokens a second on 2 cores",
                "mean score",
                "Quality and speed of models",
                colours,
            ),
        ),
        **in_both_themes("ablations", lambda colours: differences(ablations, "The paper's ablations", colours)),
    }


def search_picture(folder: Path) -> dict[str, str]:
    answers = search_notes(folder)
    title = "gte search finds passages by meaning: " + " ".join(f"{command}: {printed}" for command, printed in answers)
    return in_both_themes("gte-search", lambda colours: terminal(answers, re.sub(r"\s+", " ", title), colours))


def embedding_panels(table: Table) -> list[Panel]:
    panels = []
    for head, title, sign in (
        ("documents/CPU s", "documents a second of CPU time", -1),
        ("peak memory", "peak memory, MB", 1),
    ):
        rows = [(re.sub(r" \(.*\)", "", row[0]), number(row[table.column(head)])) for row in table.rows]
        found = [Bar(name, value, name.startswith("gte_sdk")) for name, value in rows if value is not None]
        panels.append(Panel(title, sorted(found, key=lambda bar: sign * bar.value)))
    return panels


def search_panels(table: Table) -> list[Panel]:
    """By number of queries; beside the name stands the recall, where the table has one."""
    recall = table.columns.index("recall@10") if "recall@10" in table.columns else None
    panels = []
    for place, head in enumerate(table.columns):
        if match := re.fullmatch(r"(\d+) (query|queries), ms", head):
            found = [
                Bar(
                    row[0].replace("ours-", "gte_sdk ") + ("" if recall is None else f" ({row[recall]})"),
                    value,
                    row[0].startswith("ours"),
                )
                for row in table.rows
                if (value := number(row[place])) is not None
            ]
            kept = "" if recall is None else " (and recall@10)"
            panels.append(Panel(f"{match[1]} {match[2]}, ms{kept}", sorted(found, key=lambda bar: bar.value)))
    return panels


def growth_panels(table: Table) -> list[Curves]:
    names = [head.removesuffix(", ms") for head in table.columns[2:]]
    panels = []
    for what in dict.fromkeys(row[0] for row in table.rows):
        rows = [[number(cell) or 0.0 for cell in row[1:]] for row in table.rows if row[0] == what]
        curves_by_name = {name: [row[place] for row in rows] for place, name in enumerate(names, 1)}
        panels.append(Curves(f"milliseconds by {what}", [row[0] for row in rows], curves_by_name))
    return panels


def ablation_differences(table: Table, title: str) -> Differences:
    """The mean of task types of each setting against the setting `base`, the best first."""
    place = table.column("mean of task types")
    scores = {row[0].rpartition("/")[2]: row[place] for row in table.rows}
    base = float(scores["base"].split(" ± ")[0])
    rows = []
    for name, score in scores.items():
        mean, _, spread = score.partition(" ± ")
        rows.append(Difference(name, float(mean) - base, float(spread or 0)))  # one seed has no spread
    return Differences(title, sorted(rows, key=lambda row: -row.value))


def model_points(table: Table) -> list[Point]:
    """Models with a speed and a mean over all task types, under the first words of their names."""
    found = []
    for row in table.rows:
        speed, mean = number(row[table.column("tokens/s")]), number(row[table.column("mean")])
        if speed is not None and mean is not None:
            name = re.sub(r",? as shipped| \(.*\)|'s distillation.*| 0\.[\d.]+", "", row[0]).strip()
            found.append(Point(name, speed, mean, name.startswith("gte-")))
    return found


if __name__ == "__main__":
    main()
