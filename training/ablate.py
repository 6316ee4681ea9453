"""The paper's ablations in miniature: every recipe of recipes/ablation with several seeds, and a table of the outcome.

    python -m training.ablate --output DIR --data DIR --evaluation DIR [--seeds 3] [--only NAME ...] [--table]

Runs that are finished are not repeated, so this can be stopped and continued.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from training.recipe import RECIPES

TASKS = ("sts", "retrieval", "code_search", "reranking", "pair_classification")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.ablate", description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--tokenizer", help="a directory instead of the recipe's Hub name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of recipes in recipes/ablation")
    parser.add_argument("--table", action="store_true", help="only print the table of what is finished")
    options = parser.parse_args(arguments)

    names = options.only or sorted(path.stem for path in (RECIPES / "ablation").glob("*.toml"))
    for seed in range(options.seeds) if not options.table else ():
        for name in names:
            run = options.output / f"{name}.{seed}"
            if not (run / "metrics.json").is_file():
                command = [sys.executable, "-m", "training.train", f"ablation/{name}", "--seed", str(seed)]
                command += ["--output", str(run), "--data", str(options.data), "--evaluation", str(options.evaluation)]
                command += ["--tokenizer", options.tokenizer] if options.tokenizer else []
                subprocess.run(command, check=True)
    print(table(options.output, names))


def table(output: Path, names: Sequence[str]) -> str:
    """A Markdown table: mean and standard deviation over seeds, in points, of the last stage of every finished run."""
    lines = [
        f"| setting | seeds | mean of task types | {' | '.join(TASKS)} |",
        f"|---|---|---|{'---|' * len(TASKS)}",
    ]
    for name in names:
        runs = sorted(output.glob(f"{name}.*/metrics.json"))
        summaries = [list(json.loads(path.read_text(encoding="utf-8")).values())[-1]["summary"] for path in runs]
        if summaries:
            cells = [_cell([summary[key] for summary in summaries]) for key in ("mean_of_task_types", *TASKS)]
            lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
