"""What a session of training begins with: its command line, the recipe, the devices, and the run's directory.

What this machine cannot do is said here, before anything is loaded.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import __version__ as version

from gte_sdk.errors import GteError
from training.data.pairs import PairsError
from training.encoders.encoder import AnyEncoder, Encoder
from training.evaluation.protocols import SetError
from training.recipe import Recipe, RecipeError, Stage, dump_recipe, load_recipe
from training.runs.checkpoint import CheckpointError


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says where it stood and what is still good."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command; what its user can put right ends it with the message alone, without a traceback."""
    try:
        main()
    except (RecipeError, PairsError, SetError, TrainingError, CheckpointError, GteError) as error:
        raise SystemExit(f"error: {error}") from None


def parse(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
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


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line names, with what the command line changes in it."""
    recipe = load_recipe(options.recipe)
    changes = {"start": options.encoder, "tokenizer": options.tokenizer}
    encoder = dataclasses.replace(recipe.encoder, **{key: value for key, value in changes.items() if value is not None})
    seed = recipe.seed if options.seed is None else options.seed
    stages = {name: _taught_by(stage, options.teacher) for name, stage in recipe.stages.items()}
    return dataclasses.replace(recipe, encoder=encoder, stages=stages, seed=seed)


def _taught_by(stage: Stage, teacher: str | None) -> Stage:
    if teacher is None or stage.distillation is None:
        return stage
    return dataclasses.replace(stage, distillation=dataclasses.replace(stage.distillation, teacher=teacher))


def open_accelerator(recipe: Recipe, output: Path) -> Accelerator:
    """The devices of all processes, with the recipe's precision. Raises RecipeError for what this machine has not."""
    hardware = recipe.hardware
    if hardware.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("hardware.precision = 'fp16' needs a GPU, and none is here; set bf16 or fp32")
    if hardware.attention == "flash_attention_2":
        _check_flash_attention(hardware.precision)
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise RecipeError("tensorboard = true needs a package that is not here: pip install tensorboard")
    trackers = ["tensorboard"] if recipe.tensorboard else None
    mixed_precision = "no" if hardware.precision == "fp32" else hardware.precision
    accelerator = Accelerator(mixed_precision=mixed_precision, log_with=trackers, project_dir=output)
    accelerator.init_trackers("tensorboard")
    return accelerator


def _check_flash_attention(precision: str) -> None:
    asked = "hardware.attention = 'flash_attention_2'"
    if not torch.cuda.is_available():
        raise RecipeError(f"{asked} needs a GPU, and none is here; set sdpa")
    if find_spec("flash_attn") is None:
        raise RecipeError(f"{asked} needs a package that is not here: pip install flash-attn, or set sdpa")
    if precision == "fp32":
        raise RecipeError(f"{asked} computes in 16 bits; set hardware.precision = 'bf16', or attention = 'sdpa'")


def claim_output(output: Path, recipe: Recipe, accelerator: Accelerator) -> None:
    """Copies the recipe, every value of it, into the output, where a run of another one is not written over."""
    path, text = output / "recipe.toml", dump_recipe(recipe)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise RecipeError(f"{output} holds a run of another recipe or seed ({path} differs); choose another --output")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def prepare_model(encoder: AnyEncoder, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """The encoder on its device, wrapped for mixed precision and several processes."""
    if isinstance(encoder, Encoder):
        _set_attention(encoder, recipe.hardware.attention)
        if recipe.hardware.gradient_checkpointing:
            later = hasattr(encoder.backbone, "activation_checkpointing_enable")  # its name in late transformers 5
            name = "activation_checkpointing_enable" if later else "gradient_checkpointing_enable"
            getattr(encoder.backbone, name)({"use_reentrant": False})
    model: nn.Module = accelerator.prepare(encoder)
    return model


def _set_attention(encoder: Encoder, attention: str) -> None:
    try:
        encoder.backbone.set_attn_implementation(attention)  # type: ignore[operator]
    except (ValueError, ImportError) as error:
        raise RecipeError(f"hardware.attention = {attention!r}: {error}") from error
    chosen = encoder.backbone.config._attn_implementation  # type: ignore[union-attr]
    if chosen != attention:  # transformers only warns, and keeps what the backbone has
        raise RecipeError(
            f"hardware.attention = {attention!r}: {type(encoder.backbone).__name__} of transformers {version} has "
            f"{chosen!r} only; set that" + (", or install transformers 5" if version < "5" else "")
        )
