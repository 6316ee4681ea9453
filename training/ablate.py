"""The paper's ablations in miniature: trains every recipe of recipes/ablation with several seeds and prints a table.

    python -m training.ablate --output DIR --data DIR --evaluation DIR [--seeds 3] [--only NAME ...] [--table]

Finished runs are not repeated, so you can stop the command and start it again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from training.recipes.recipe import RECIPES

TASKS = ("sts", "retrieval", "code_search", "reranking", "pair_classification")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="directory for the runs, one folder each")
    parser.add_argument("--data", type=Path, required=True, help="directory of the training pairs")
    parser.add_argument("--evaluation", type=Path, required=True, help="directory of the evaluation sets")
    parser.add_argument("--tokenizer", help="tokenizer directory to use instead of the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0 (default: %(default)s)")
    parser.add_argument("--only", nargs="*", help="recipes to run (default: all of recipes/ablation)")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of the finished runs")
    parser.add_argument("--plot", type=Path, help="also write a plot of the table")
    options = parser.parse_args(arguments)

    names = options.only or sorted(
        path.relative_to(RECIPES / "ablation").with_suffix("").as_posix()
        for path in (RECIPES / "ablation").rglob("*.toml")
    )
    for seed in range(options.seeds) if not options.table else ():
        for name in names:
            run = options.output / f"{name}.{seed}"
            if not (run / "metrics.json").is_file():
                command = [sys.executable, "-m", "training.train", f"ablation/{name}", "--seed", str(seed)]
                command += ["--output", str(run), "--data", str(options.data), "--evaluation", str(options.evaluation)]
                command += ["--tokenizer", options.tokenizer] if options.tokenizer else []
                subprocess.run(command, check=True)
    print(format_table(options.output, names))
    if options.plot:
        plot_scores(options.output, names, options.plot)


def format_table(output: Path, names: Sequence[str]) -> str:
    """A Markdown table of the last stage of every finished run: mean and standard deviation over seeds, in points."""
    lines = [
        f"| setting | seeds | mean of task types | {' | '.join(TASKS)} |",
        f"|---|---|---|{'---|' * len(TASKS)}",
    ]
    for name in names:
        if summaries := _read_summaries(output, name):
            cells = [_format_cell([summary[key] for summary in summaries]) for key in ("mean_of_task_types", *TASKS)]
            lines.append(f"| {name} | {len(summaries)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot_scores(output: Path, names: Sequence[str], file: Path) -> None:
    """The mean of task types of every finished run, a point a seed, and their mean as a bar."""
    import matplotlib.figure

    scores = {name: [summary["mean_of_task_types"] for summary in _read_summaries(output, name)] for name in names}
    scores = {name: values for name, values in scores.items() if values}
    figure = matplotlib.figure.Figure(figsize=(8, 0.5 + 0.35 * len(scores)), layout="constrained")
    axes = figure.add_subplot(xlabel="mean of task types, points; a point is a seed")
    for row, values in enumerate(scores.values()):
        axes.barh(row, statistics.mean(values), color="lightgray")
        axes.plot(values, [row] * len(values), "o", color="tab:blue", markersize=4)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlim(left=0.95 * min(min(values) for values in scores.values()))
    figure.savefig(file, dpi=120)


def _read_summaries(output: Path, name: str) -> list[dict[str, float]]:
    """The scores of the last stage of each finished run of a setting."""
    runs = sorted(output.glob(f"{name}.[0-9]*/metrics.json"))
    return [list(json.loads(path.read_text(encoding="utf-8")).values())[-1]["summary"] for path in runs]


def _format_cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
