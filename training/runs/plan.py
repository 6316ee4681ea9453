"""What a run would read, take and cost, before anything is downloaded or trained: `train --dry-run`, and MFU.

All of it is arithmetic over the recipe and the encoder's shape. Memory and hours are estimates, and say so.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from training.data.sources import Survey, survey_sources
from training.encoders.encoder import AnyEncoder, StaticEncoder, make_random_encoder
from training.encoders.encoder_files import load_encoder
from training.loss.gather import process_count
from training.recipes.recipe import EncoderRecipe, Hardware, Recipe, Stage
from training.runs.start import describe_architecture

ASSUMED_MFU = 0.4
"""Of PyTorch's BERT with fused attention in 16 bits on data centre GPUs, in order of magnitude; not measured here."""
ACTIVATION_BYTES = 34
"""Of a token in a layer, for each hidden dimension in 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1,
without the attention matrices, which fused attention does not keep)."""


class Shape(NamedTuple):
    """What of an encoder decides its cost."""

    parameters: int
    matrix_numbers: int
    """Of the parameters, those that every token is multiplied by: all matrices but the embeddings."""
    layers: int
    hidden: int


def shape_of(encoder: AnyEncoder) -> Shape:
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    if isinstance(encoder, StaticEncoder):
        return Shape(parameters, 0, 0, encoder.dim)
    tables = {id(module.weight) for module in encoder.modules() if isinstance(module, nn.Embedding)}
    matrices = [matrix for matrix in encoder.parameters() if matrix.ndim >= 2 and id(matrix) not in tables]
    config = encoder.backbone.config
    return Shape(
        parameters,
        sum(matrix.numel() for matrix in matrices),
        int(config.num_hidden_layers),  # type: ignore[union-attr, arg-type]
        int(config.hidden_size),  # type: ignore[union-attr, arg-type]
    )


def model_flops(shape: Shape, lengths: Sequence[int]) -> float:
    """Floating-point operations that a step needs for texts of these lengths, forward and backward.

    6 for each number of a matrix and token, and 12 x layers x hidden for each pair of tokens of a text (PaLM, arXiv
    2204.02311, appendix B). Padding, and what is computed twice, are no model FLOPs.
    """
    return 6.0 * shape.matrix_numbers * sum(lengths) + 12.0 * shape.layers * shape.hidden * sum(
        length * length for length in lengths
    )


def utilization(shape: Shape, lengths: Sequence[int], seconds: float, hardware: Hardware) -> float:
    """MFU: the share of a device's peak that this process's texts used; 0 where the recipe does not name the peak."""
    peak = hardware.peak_tflops * 1e12
    return model_flops(shape, lengths) / seconds / peak if peak else 0.0


def print_plan(recipe: Recipe, data: Path | None) -> None:
    """Prints what each stage would read and take. Nothing is downloaded; what is not on this disk counts as stated."""
    shape = _find_shape(recipe.encoder)
    print(f"{recipe.name}: {recipe.description}")
    print(f"encoder: {_describe(shape, recipe.encoder)}")
    for name, stage in recipe.stages.items():
        if stage.steps or stage.epochs:
            surveys = survey_sources(stage.sources, data, stage.exclude, stage.shards)
            _print_stage(name, stage, surveys, shape, recipe.hardware)
    if shape:
        print(f"memory of a device: about {memory_bytes(shape, recipe) / 1e9:.1f} GB (estimate)")


def memory_bytes(shape: Shape, recipe: Recipe) -> float:
    """Weights, gradients and AdamW's state in float32, activations, and the similarities of a block of rows."""
    hardware = recipe.hardware
    state = 8 / process_count() if hardware.optimizer_sharding else 8
    wide = 2 if hardware.precision == "fp32" else 1
    a_layer = ACTIVATION_BYTES * wide * shape.hidden
    kept_a_token = 2 * wide * shape.hidden * shape.layers if hardware.gradient_checkpointing else a_layer * shape.layers
    tokens = hardware.kept_tokens + hardware.chunk_tokens
    activations = tokens * kept_a_token + hardware.gradient_checkpointing * hardware.chunk_tokens * a_layer
    largest = max(stage.batch_size * (2 + stage.negatives) for stage in recipe.stages.values())
    similarities = 4 * 4 * min(hardware.block_rows, largest) * largest
    return shape.parameters * (8 + state) + activations + similarities


def step_count(stage: Stage, sizes: Sequence[int]) -> int:
    """Optimizer steps of a stage over sources of these numbers of pairs. An epoch is a pass over each of them."""
    if stage.steps:
        return stage.steps
    if stage.mixed_sources:
        return math.ceil(stage.epochs * sum(sizes) / stage.batch_size)
    return math.ceil(stage.epochs * sum(math.ceil(size / stage.batch_size) for size in sizes))


def step_flops(shape: Shape, stage: Stage, hardware: Hardware) -> float:
    """Operations of a step on one device whose texts all have `max_tokens`, with what is computed twice."""
    texts = stage.batch_size * (2 + stage.negatives)
    passes = 3 + (texts * stage.max_tokens > hardware.kept_tokens) + hardware.gradient_checkpointing  # backward is two
    return model_flops(shape, [stage.max_tokens]) * texts * passes / 3


def _print_stage(name: str, stage: Stage, surveys: Sequence[Survey], shape: Shape | None, hardware: Hardware) -> None:
    print(f"\n{name}: batches of {stage.batch_size:,} pairs, {stage.max_tokens} tokens a text, {stage.loss} loss")
    for source in surveys:
        columns = ", ".join(f"{role} = {' + '.join(of_role)}" for role, of_role in source.columns.items())
        print(f"  {_rows(source)}  {source.name}: {source.where}{f' ({columns})' if columns else ''}")
    known = [source.rows for source in surveys if source.rows is not None]
    steps = step_count(stage, known)
    complete = stage.steps or len(known) == len(surveys)
    print(
        f"  rows: {sum(known):,} in {len(known)} of {len(surveys)} sources\n"
        f"  steps: {'' if complete else 'at least '}{steps:,}, {steps * stage.batch_size:,} pairs"
    )
    if shape and hardware.peak_tflops and shape.matrix_numbers:
        hours = steps * step_flops(shape, stage, hardware) / (hardware.peak_tflops * 1e12 * ASSUMED_MFU) / 3600
        print(
            f"  hours of one device, or of all together, for these steps: {hours:,.1f} (estimate: every text of full "
            f"length, at {ASSUMED_MFU:.0%} of {hardware.peak_tflops:g} TFLOP/s)"
        )
    else:
        print("  hours: not known (hardware.peak_tflops is not set, or the encoder's shape is not known)")


def _rows(source: Survey) -> str:
    if source.rows is None:
        return f"{'rows not known':>20}"
    return f"{f'{source.rows:,}' if source.exact else f'about {source.rows:,}':>20}"


def _describe(shape: Shape | None, recipe: EncoderRecipe) -> str:
    start = recipe.start or f"a {recipe.kind} with random weights"
    if shape is None:
        return f"{start}, whose shape is not known here (encoder.architecture or --encoder DIR tells it)"
    return f"{start}, {shape.parameters / 1e6:.1f} M parameters, {shape.layers} layers of {shape.hidden}"


def _find_shape(recipe: EncoderRecipe) -> Shape | None:
    if recipe.start and Path(recipe.start).is_dir():
        return shape_of(load_encoder(recipe.start, None))
    if recipe.architecture is None:
        return None
    with torch.device("meta"):
        fields = describe_architecture(recipe.architecture, pad_id=0)
        return shape_of(make_random_encoder(fields, recipe.architecture.vocabulary, recipe.architecture.positions))
