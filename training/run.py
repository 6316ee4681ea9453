"""What all stages of a run share."""

from pathlib import Path
from typing import NamedTuple

from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import nn

from training.encoders.encoder import AnyEncoder
from training.recipe import Recipe


class Run(NamedTuple):
    recipe: Recipe
    output: Path
    accelerator: Accelerator
    encoder: AnyEncoder
    model: nn.Module
    """The encoder, wrapped for mixed precision and several processes."""
    tokenizer: Tokenizer
    tokenizer_directory: Path
    last_step: int
    """The step of the whole run with which this session ends."""
