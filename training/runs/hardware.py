"""The devices of a run and the encoder on them: precision, attention, gradient checkpointing.

A recipe that asks for what this machine cannot do fails here, before anything is loaded.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import __version__ as version

from training.encoders.encoder import AnyEncoder, Encoder
from training.recipes.recipe import Recipe, RecipeError


def open_accelerator(recipe: Recipe, output: Path) -> Accelerator:
    """The devices of all processes, with the recipe's precision. Raises RecipeError for what is missing here."""
    hardware = recipe.hardware
    if hardware.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("hardware.precision = 'fp16' needs a GPU, but this machine has none; set bf16 or fp32")
    if hardware.attention == "flash_attention_2":
        _check_flash_attention(hardware.precision)
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise RecipeError("tensorboard = true needs a package that is not installed: pip install tensorboard")
    trackers = ["tensorboard"] if recipe.tensorboard else None
    mixed_precision = "no" if hardware.precision == "fp32" else hardware.precision
    accelerator = Accelerator(mixed_precision=mixed_precision, log_with=trackers, project_dir=output)
    accelerator.init_trackers("tensorboard")
    return accelerator


def _check_flash_attention(precision: str) -> None:
    asked = "hardware.attention = 'flash_attention_2'"
    if not torch.cuda.is_available():
        raise RecipeError(f"{asked} needs a GPU, but this machine has none; set sdpa")
    if find_spec("flash_attn") is None:
        raise RecipeError(f"{asked} needs a package that is not installed: pip install flash-attn, or set sdpa")
    if precision == "fp32":
        raise RecipeError(f"{asked} computes in 16 bits; set hardware.precision = 'bf16', or attention = 'sdpa'")


def prepare_model(encoder: AnyEncoder, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """The encoder on its device, with mixed precision, and without DDP (why: loss/gather.py)."""
    if isinstance(encoder, Encoder):
        _set_attention(encoder, recipe.hardware.attention)
        if recipe.hardware.gradient_checkpointing:
            later = hasattr(encoder.backbone, "activation_checkpointing_enable")  # its name in late transformers 5
            name = "activation_checkpointing_enable" if later else "gradient_checkpointing_enable"
            getattr(encoder.backbone, name)({"use_reentrant": False})
        if recipe.hardware.compile:
            encoder.backbone.compile(dynamic=True)  # in place, so the names of its weights stay
    model: nn.Module = accelerator.prepare_model(encoder, evaluation_mode=True)  # which only leaves DDP out
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
