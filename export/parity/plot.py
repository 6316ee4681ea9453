"""Draws parity.png: how far the vectors of each graph are from the fp32 ones."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any


def plot_distribution(report: Mapping[str, Any], path: Path) -> bool:
    """Draws the histograms of 1 - cosine in `report` to `path`. Returns False, and draws nothing, if there are none.

    Raises ImportError if matplotlib is missing.
    """
    compared = {name: row["cosine"] for name, row in report["precisions"].items() if name != "fp32"}
    if "native" in report:
        compared["int8, the SDK's own encoder"] = report["native"]["cosine"]
    if not compared:
        return False
    from matplotlib.figure import Figure

    edges = next(iter(compared.values()))["distribution"]["one_minus_cosine_edges"]
    places = range(len(edges) - 1)
    figure = Figure(figsize=(8, 4), dpi=100, layout="tight")
    axes = figure.subplots()
    width = 0.8 / len(compared)
    for number, (name, cosine) in enumerate(compared.items()):
        counts = cosine["distribution"]["counts"]
        label = f"{name}: mean {cosine['mean']:.5f}, minimum {cosine['minimum']:.5f}"
        axes.bar([place - 0.4 + (number + 0.5) * width for place in places], counts, width, label=label)
    axes.set_xticks(places, [f"{low:.0e}\n{high:.0e}" for low, high in pairwise(edges)], fontsize=8)
    axes.set_xlabel("1 - cosine to fp32 (from, to)")
    axes.set_ylabel(f"texts of {report['texts']}")
    axes.legend()
    # Without the version that matplotlib writes by itself: the same report gives the same bytes for longer.
    figure.savefig(path, metadata={"Software": None})
    return True
