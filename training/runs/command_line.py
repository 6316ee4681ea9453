"""The command line of training: its options, the recipe that they choose, and errors without a traceback."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gte_sdk.errors import GteError
from training.data.pairs import PairsError
from training.evaluate.protocols import SetError
from training.recipes.recipe import Recipe, RecipeError, Stage, load_recipe
from training.runs.checkpoint import CheckpointError


class TrainingError(RuntimeError):
    """Training that cannot continue. The message says at which step, and what is still good."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command. An error that its user can fix ends it with the message alone, without a traceback."""
    try:
        main()
    except (RecipeError, PairsError, SetError, TrainingError, CheckpointError, GteError) as error:
        raise SystemExit(f"error: {error}") from None


def parse_options(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="TOML file, or the name of one in training/recipes")
    parser.add_argument("--output", type=Path, help="directory of the run; an existing run continues")
    parser.add_argument("--print", action="store_true", help="print every value of the recipe and stop")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print sources, rows, steps, memory and hours, and stop",
    )
    parser.add_argument("--data", type=Path, help="directory that the recipe's sources are relative to")
    parser.add_argument("--evaluation", type=Path, help="directory that the recipe's evaluation sets are relative to")
    parser.add_argument("--encoder", help="directory or Hub name to start from instead of the recipe's")
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="[NAME=]DIRECTORY",
        help="directory or Hub name of the recipe's teacher NAME, or of every teacher; repeatable",
    )
    parser.add_argument("--tokenizer", help="directory or Hub name of the tokenizer instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed to use instead of the recipe's")
    parser.add_argument("--stop-after", type=int, help="write a checkpoint and stop after this many steps")
    options = parser.parse_args(arguments)
    if options.output is None and not (options.print or options.dry_run):
        parser.error("give the directory of the run with --output DIR")
    if options.stop_after is not None and options.stop_after < 1:
        parser.error(f"--stop-after {options.stop_after} must be at least 1")
    return options


def choose_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line names, with the changes that its options ask for."""
    recipe = load_recipe(options.recipe)
    changes = {"start": options.encoder, "tokenizer": options.tokenizer}
    encoder = dataclasses.replace(recipe.encoder, **{key: value for key, value in changes.items() if value is not None})
    seed = recipe.seed if options.seed is None else options.seed
    stages = recipe.stages
    for teacher in options.teacher:
        stages = _set_teacher(stages, teacher)
    return dataclasses.replace(recipe, encoder=encoder, stages=stages, seed=seed)


def _set_teacher(stages: Mapping[str, Stage], teacher: str) -> dict[str, Stage]:
    """The stages with another directory for the teacher that `teacher` names, as in NAME=DIRECTORY, or for all."""
    chosen, _, directory = teacher.rpartition("=")
    known = sorted({name for stage in stages.values() for name in stage.distillation})
    if chosen and chosen not in known:
        raise RecipeError(f"--teacher {teacher}: the recipe has no teacher {chosen!r} but {', '.join(known) or 'none'}")
    return {
        name: dataclasses.replace(
            stage,
            distillation={
                key: dataclasses.replace(value, teacher=directory) if chosen in ("", key) else value
                for key, value in stage.distillation.items()
            },
        )
        for name, stage in stages.items()
    }
