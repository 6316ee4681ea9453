"""The files of a run to look at: recipe.toml, run.json (all that made it), log.csv (a line a step) and loss.png."""

import csv
import dataclasses
import importlib.metadata
import io
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from gte_sdk.atomic_file import replace_whole
from training.data.pairs import PairsError, Source
from training.data.sources import describe_sources
from training.recipes.recipe import Recipe, RecipeError, dump_recipe
from training.runs.checkpoint import RunState
from training.runs.nodes import wait_for_all

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "gte-sdk")


class LogLine(NamedTuple):
    stage: str
    step: int
    """Step of the whole run, from 1."""
    loss: float
    learning_rate: float
    tokens: int
    """Tokens of all processes, without padding."""
    seconds: float
    source: str
    mfu: float = 0.0
    """Model FLOPs utilization of the main process's device, 0 to 1; 0 where the recipe names no peak, and in logs from
    before this column."""


def open_log(path: Path, after_step: int) -> list[LogLine]:
    """The lines of earlier sessions up to `after_step`. Lines after the last checkpoint are dropped."""
    lines = [line for line in read_log(path) if line.step <= after_step] if path.is_file() else []
    table = io.StringIO(newline="")
    csv.writer(table).writerows([LogLine._fields, *lines])
    with replace_whole(path) as file:
        file.write(table.getvalue().encode())
    return lines


def append_log(path: Path, line: LogLine) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(line)


def read_log(path: Path) -> list[LogLine]:
    whole_lines = [line for line in path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
    return [  # without a last line that a full disk cut off
        LogLine(stage, int(step), float(loss), float(rate), int(tokens), float(seconds), source, *map(float, mfu))
        for stage, step, loss, rate, tokens, seconds, source, *mfu in list(csv.reader(whole_lines))[1:]
    ]


def plot_losses(lines: list[LogLine], path: Path) -> None:
    """Plots the loss of every step and its running mean, in a colour for each stage."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for stage in dict.fromkeys(line.stage for line in lines):
        steps = [line.step for line in lines if line.stage == stage]
        losses = torch.tensor([line.loss for line in lines if line.stage == stage])
        window = max(1, len(losses) // 50)
        means = losses.cumsum(0)
        means[window:] = means[window:] - losses.cumsum(0)[:-window]
        means = means / torch.arange(1, len(losses) + 1).clamp(max=window)
        (curve,) = axes.plot(steps, means.tolist(), label=stage)
        axes.plot(steps, losses.tolist(), color=curve.get_color(), alpha=0.2, linewidth=0.8)
    axes.legend()
    figure.savefig(path, dpi=120)


def claim_output(output: Path, recipe: Recipe, accelerator: Accelerator) -> None:
    """Writes the recipe, with every value, into the output. Raises RecipeError if a run of another recipe is there."""
    path, text = output / "recipe.toml", dump_recipe(recipe)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise RecipeError(f"{output} holds a run of another recipe or seed ({path} differs); choose another --output")
    wait_for_all()
    if accelerator.is_main_process and not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        with replace_whole(path) as file:
            file.write(text.encode())


def record_run(
    output: Path,
    recipe: Recipe,
    accelerator: Accelerator,
    sources: Mapping[str, Sequence[Source]],
    state: RunState | None,
) -> None:
    """Opens log.csv and writes run.json: the recipe, the data with hashes, and the sessions.

    Of each session it keeps commit, versions, machine and command.

    Raises PairsError if the data of a run that continues has changed.
    """
    path = output / "run.json"
    data = {name: describe_sources(of_stage) for name, of_stage in sources.items()}
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"sessions": []}
    if state and earlier["data"] != data:
        raise PairsError(f"the data differs from what {path} records; restore it, or choose another --output")
    open_log(output / "log.csv", state["step"] if state else 0)
    session = {"from_step": state["step"] if state else 0, **describe_session(accelerator)}
    sessions = [*earlier["sessions"], session]
    write_json(path, {"recipe": dataclasses.asdict(recipe), "data": data, "sessions": sessions})


def describe_session(accelerator: Accelerator) -> dict[str, Any]:
    """Commit, versions, machine and command of this session."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES if _installed(package)},
        "device": f"{device.type}: {name}",
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, value: Any) -> None:
    with replace_whole(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    """The checkout's commit, with `+changes` if files differ from it; "unknown" outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
