"""Writes the Markdown note of a model card about finished runs: use, training, scores and data.

    python -m training.describe RUN... --manifest DIR/manifest.csv --scores own.json --baseline start.json \\
        --hardware "2 cores of ..." > note.md

`export/to_onnx.py --note` takes the note. Each run started from the result of the one before it. The facts come from
the runs' files (recipe.toml, run.json, log.csv) and from reports of training.evaluate.
"""

import argparse
import csv
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from training.data.docstrings import DOCSTRINGS_NAME
from training.evaluate.protocols import PROTOCOLS
from training.recipes.recipe import Recipe, load_recipe
from training.runs.run_log import LogLine, read_log


def describe(
    runs: Sequence[Path],
    manifest: Sequence[Mapping[str, str]],
    scores: Mapping[str, Any],
    baseline: Mapping[str, Any],
    hardware: str,
    use: str,
) -> str:
    """The note as Markdown.

    `manifest` has rows with category, name, licence and source; `scores` and `baseline` are reports of
    training.evaluate.
    """
    recorded = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs]
    trainings: list[str] = []
    for run, record in zip(runs, recorded, strict=True):
        recipe, log = load_recipe(str(run / "recipe.toml")), read_log(run / "log.csv")
        trainings += _describe_training(recipe, record, log, hardware)
    sources = [source for record in recorded for stage in record["data"].values() for source in stage]
    return "\n".join(
        [
            "## Intended use",
            "",
            use,
            "",
            "## Training",
            "",
            *trainings,
            *_describe_scores(scores, baseline),
            *_describe_data(sources, manifest),
        ]
    )


def _describe_training(recipe: Recipe, recorded: Mapping[str, Any], log: Sequence[LogLine], hardware: str) -> list[str]:
    session = recorded["sessions"][0]
    packages = ", ".join(f"{name} {version}" for name, version in session["packages"].items())
    hours = sum(line.seconds for line in log) / 3600
    lines = [
        f"Recipe `{recipe.name}` (training/recipes/{recipe.name}.toml) at commit {session['commit'][:12]}, seed "
        f"{recipe.seed}, from {name_start(recipe)}; {hours:.1f} hours on {hardware}; Python {session['python']}, "
        f"{packages}.",
        "",
        "| stage | sources | pairs a step | steps | tokens | learning rate | temperature | hard negatives |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, stage in recipe.stages.items():
        own = [line for line in log if line.stage == name]
        if own:
            tokens = sum(line.tokens for line in own) / 1e6
            lines.append(
                f"| {name} | {len(recorded['data'][name])} | {stage.batch_size} | {len(own)} | {tokens:.1f} M "
                f"| {stage.learning_rate:.0e} | {stage.temperature} | {stage.negatives} |"
            )
    seed = f" --seed {recipe.seed}" if recipe.seed != load_recipe(recipe.name).seed else ""
    refused = sum(source["refused"] for sources in recorded["data"].values() for source in sources)
    return [
        *lines,
        "",
        f"Pairs with a text that stands in an evaluation set were left out ({refused}). To train it again:",
        "",
        "```sh",
        f"python -m training.train {recipe.name} --data DATA/train --evaluation DATA/eval --output runs/{recipe.name}"
        f"{seed}",
        "```",
        "",
    ]


def name_start(recipe: Recipe) -> str:
    """The start that the recipe's own file names, because --encoder may have named a local copy of it."""
    return load_recipe(recipe.name).encoder.start or "random weights"


def _describe_scores(scores: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """A row for each set: the shipped model beside the baseline."""
    lines = [
        "## Scores",
        "",
        f"By `python -m training.evaluate`, beside {baseline['model']}. No text of a set was trained on; where the "
        "data below has a source of the same name as a set, that set is in-domain.",
        "",
        "| set | this model | beside it | difference |",
        "|---|---|---|---|",
    ]
    for key in ("scores", "summary"):
        for name, score in scores[key].items():
            if name in baseline[key]:
                label = f"mean of {name}" if name in PROTOCOLS else name
                before = baseline[key][name]
                lines.append(f"| {label.replace('_', ' ')} | {score:.2f} | {before:.2f} | {score - before:+.2f} |")
    return [*lines, ""]


def _describe_data(sources: Sequence[Mapping[str, Any]], manifest: Sequence[Mapping[str, str]]) -> list[str]:
    origins = {f"{row['category']}__{row['name']}": (row["licence"], row["source"]) for row in manifest}
    lines = ["## Data", "", "| source | pairs | licence as stated | origin |", "|---|---|---|---|"]
    for name, count in sorted({source["name"]: source["pairs"] for source in sources}.items()):
        cells = origins.get(name) or _origin_of_docstrings(name)
        licence, origin = (" ".join(cell.replace("|", "/").split())[:120] for cell in cells)
        lines.append(f"| {name} | {count} | {licence} | {origin} |")
    return [*lines, ""]


def _origin_of_docstrings(name: str) -> tuple[str, str]:
    """Licence and version of the installed package that a source of docstrings was made from."""
    if name == DOCSTRINGS_NAME:
        return "PSF-2.0", f"the standard library of Python {platform.python_version()}"
    distributions = metadata.packages_distributions().get(name.removeprefix(f"{DOCSTRINGS_NAME}_"), [])
    if not name.startswith(DOCSTRINGS_NAME) or not distributions:
        return "", ""
    package = metadata.metadata(distributions[0])
    licence: str = (package.get_all("License-Expression") or package.get_all("License") or [""])[0]
    if not licence or "\n" in licence:  # the whole text, or nothing: then its classifiers name it
        classifiers = [value for value in package.get_all("Classifier") or [] if value.startswith("License ::")]
        licence = ", ".join(value.rpartition(" :: ")[2] for value in classifiers)
    return licence, f"the functions of {distributions[0]} {package['Version']}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.describe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output directory of training.train")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="CSV file with the columns category, name, licence and source"
    )
    parser.add_argument("--scores", type=Path, required=True, help="report of training.evaluate for the shipped model")
    parser.add_argument(
        "--baseline", type=Path, required=True, help="report of training.evaluate for the model to compare with"
    )
    parser.add_argument("--hardware", required=True, help="the hardware of the training, in words")
    parser.add_argument("--use", required=True, help="what the model is and is not for, in a sentence or two")
    options = parser.parse_args(arguments)
    with options.manifest.open(encoding="utf-8", newline="") as file:
        manifest = list(csv.DictReader(file))
    scores, baseline = (json.loads(path.read_text(encoding="utf-8")) for path in (options.scores, options.baseline))
    print(describe(options.runs, manifest, scores, baseline, options.hardware, options.use))


if __name__ == "__main__":
    main()
