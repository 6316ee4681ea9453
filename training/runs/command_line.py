"""The command line of a run: its options, the recipe that they name and change, and errors without a traceback."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from gte_sdk.errors import GteError
from training.data.pairs import PairsError
from training.evaluation.protocols import SetError
from training.recipe import Recipe, RecipeError, Stage, load_recipe
from training.runs.checkpoint import CheckpointError


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says where it stood and what is still good."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command; what its user can put right ends it with the message alone, without a traceback."""
    try:
        main()
    except (RecipeError, PairsError, SetError, TrainingError, CheckpointError, GteError) as error:
        raise SystemExit(f"error: {error}") from None


def parse_options(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a TOML file, or the name of one in training/recipes")
    parser.add_argument("--output", type=Path, required=True, help="the run's directory; an existing run continues")
    parser.add_argument("--data", type=Path, help="directory that the recipe's sources are relative to")
    parser.add_argument("--evaluation", type=Path, help="directory that the recipe's evaluation sets are relative to")
    parser.add_argument("--encoder", help="start from this directory or Hub name instead of the recipe's")
    parser.add_argument("--teacher", help="distil this directory or Hub name instead of the recipe's teachers")
    parser.add_argument("--tokenizer", help="the tokenizer of this directory or Hub name instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--stop-after", type=int, help="end this session after so many steps, with a checkpoint")
    options = parser.parse_args(arguments)
    if options.stop_after is not None and options.stop_after < 1:
        parser.error(f"--stop-after {options.stop_after} must be at least 1")
    return options


def choose_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line names, with what the command line changes in it."""
    recipe = load_recipe(options.recipe)
    changes = {"start": options.encoder, "tokenizer": options.tokenizer}
    encoder = dataclasses.replace(recipe.encoder, **{key: value for key, value in changes.items() if value is not None})
    seed = recipe.seed if options.seed is None else options.seed
    stages = {name: _set_teacher(stage, options.teacher) for name, stage in recipe.stages.items()}
    return dataclasses.replace(recipe, encoder=encoder, stages=stages, seed=seed)


def _set_teacher(stage: Stage, teacher: str | None) -> Stage:
    if teacher is None or stage.distillation is None:
        return stage
    return dataclasses.replace(stage, distillation=dataclasses.replace(stage.distillation, teacher=teacher))
