"""Recipes: every constant of a training run, in one TOML file with typed keys.

A recipe may extend another file and say only what differs. Reading is strict: a key that no one reads, a value of
another type or a number out of range is an error that names the key: a typing mistake here costs a training run.
"""

import dataclasses
import difflib
import json
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.loss.losses import LossKind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

RECIPES = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe that is not there, or says something that cannot be run; the message names the file and the key."""


@dataclass(frozen=True)
class Architecture:
    """A BERT with random weights, for training from scratch."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    positions: int = 512
    vocabulary: int = 30522
    """Word pieces, at most, of the tokenizer that is made of the first stage's texts where none is given."""


@dataclass(frozen=True)
class EncoderRecipe:
    kind: Literal["transformer", "static"] = "transformer"
    start: str = ""
    """A directory or Hub name to start from. Empty: random weights, of `architecture` or, if static, of `dim`.
    A static encoder that starts from a transformer gets the transformer's vector of each token."""
    tokenizer: str = ""
    """Where the tokenizer of random weights comes from; empty: one is made of the first stage's texts."""
    added_words: int = 0
    """Words of the first stage's texts that a static encoder's tokenizer gets besides those of its start."""
    split_case: bool = False
    """Whether a static encoder's tokenizer first cuts identifiers into words: createdAt into created At."""
    architecture: Architecture | None = None
    dim: int = 256
    """Of a static encoder."""
    max_tokens: int = 512
    """What the trained model reads of a text."""
    freeze_token_embeddings: bool = False
    dropout: float = -1.0
    """Of hidden states and attention in training; below 0: what the start says."""


@dataclass(frozen=True)
class Distillation:
    teacher: str = "start"
    """A directory (a checkpoint, or a model that the export wrote: its int8 graph is fast on a CPU) or a Hub name;
    "start" is the run's own encoder as it was before the first step."""
    weight: float = 1.0
    kind: Literal["vectors", "similarities"] = "vectors"
    texts: Literal["queries", "documents", "both"] = "both"
    skip_categories: tuple[str, ...] = ()
    """Batches of these categories (what stands before __ in a source's name) are not distilled."""


@dataclass(frozen=True)
class Mining:
    """Hard negatives, mined before the stage's first step with the encoder as it is then; see data/mining.py."""

    sources: tuple[str, ...] = ("*",)
    """Patterns of the names of sources that are mined; the others keep the negatives that they come with."""
    count: int = 15
    first_rank: int = 10
    last_rank: int = 100
    max_ratio: float = 0.95
    max_tokens: int = 128


@dataclass(frozen=True)
class Stage:
    sources: tuple[str, ...]
    batch_size: int
    learning_rate: float
    max_tokens: int
    steps: int = 0
    """Optimizer steps; where 0, `epochs` counts. Both 0: the stage is skipped."""
    epochs: float = 0.0
    exclude: tuple[str, ...] = ()
    commercial: tuple[str, ...] = ()
    """Values of the manifest's column `commercial` that are admitted; empty: the manifest is not asked."""
    alpha: float = 0.5
    mixed_sources: bool = False
    max_sources: int = 0
    """Only the first so many sources, in an order that the seed shuffles; 0: all."""
    loss: LossKind = "improved"
    temperature: float = 0.01
    negatives: int = 0
    """Hard negatives a query, at most."""
    false_negative_margin: float = -1.0
    """Below 0: no mask."""
    matryoshka: tuple[int, ...] = ()
    """Dimensions that the loss is averaged over, the whole one among them; empty: the whole one."""
    distillation: Distillation | None = None
    mining: Mining | None = None
    warmup: float = 0.05
    """Fraction of the steps; linear, and linear decay to 0 after it."""
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.999)
    clip_norm: float = 1.0
    average_last: float = 0.0
    """Fraction of the steps over whose weights the result of the stage is averaged; 0: the last weights."""


@dataclass(frozen=True)
class Hardware:
    """What changes speed and memory, and the result only by rounding."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the encoder's products; weights, pooling and losses stay float32. fp16 needs a GPU; bf16 is fast on a CPU that
    has instructions for it (AVX-512 BF16, AMX) and slow on others."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """The backbone's implementation. eager is the fastest for short texts on a CPU; flash_attention_2 needs the package
    flash-attn, a GPU and 16 bits, and leaves padding out (transformers packs the texts before the kernel)."""
    chunk_tokens: int = 16384
    """Padded tokens that go through the encoder at once, on each device."""
    kept_tokens: int = 16384
    """Padded tokens whose graphs are held, see grad_cache; a batch within it needs no second pass."""
    block_rows: int = 1024
    """Rows of the similarity matrices that are in memory at once."""
    gradient_checkpointing: bool = False
    optimizer_sharding: bool = False
    """ZeRO stage 1: each process keeps its share of AdamW's state."""


@dataclass(frozen=True)
class Evaluation:
    sets: tuple[str, ...] = ()
    """Patterns of directories under --evaluation DIR, such as sts/*."""
    after_stages: bool = True
    """Whether the encoder is measured on `sets` after every stage."""
    refuse_texts: bool = True
    """Whether training pairs with a text that stands in one of `sets` are left out."""


@dataclass(frozen=True)
class Recipe:
    name: str
    encoder: EncoderRecipe
    stages: dict[str, Stage]
    """In the order of the file."""
    seed: int = 0
    description: str = ""
    hardware: Hardware = field(default_factory=Hardware)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint_steps: int = 500
    tensorboard: bool = False


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe by path, or by its name under training/recipes (`smoke`, `ablation/vanilla`).

    Raises RecipeError for what is not there, is not TOML, or is not a recipe.
    """
    table = _read(_locate(name_or_path, Path.cwd()))
    recipe: Recipe = _build(Recipe, table, name_or_path, "")
    for name, stage in recipe.stages.items():
        _check_stage(stage, f"{name_or_path}: stages.{name}")
    if not any(stage.steps or stage.epochs for stage in recipe.stages.values()):
        raise RecipeError(f"{name_or_path}: no stage has steps or epochs, so there is nothing to train")
    for key in ("chunk_tokens", "block_rows"):
        if getattr(recipe.hardware, key) < 1:
            raise RecipeError(f"{name_or_path}: hardware.{key} = {getattr(recipe.hardware, key)} must be at least 1")
    if not recipe.encoder.start and recipe.encoder.kind == "transformer" and recipe.encoder.architecture is None:
        raise RecipeError(f"{name_or_path}: encoder needs `start` (a directory or Hub name) or `architecture`")
    _check_tokenizer(recipe.encoder, f"{name_or_path}: encoder")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML with every key, also those that were left at their default; load_recipe reads it back."""
    lines: list[str] = []

    def write(table: dict[str, Any], path: str) -> None:
        values = {key: value for key, value in table.items() if not isinstance(value, dict) and value is not None}
        if path and (values or not table):
            lines.append(f"\n[{path}]")
        lines.extend(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        for key, value in table.items():
            if isinstance(value, dict):
                write(value, f"{path}.{key}".lstrip("."))

    write(dataclasses.asdict(recipe), "")
    return "\n".join(lines) + "\n"


def _locate(name: str, beside: Path) -> Path:
    candidates = [beside / name, beside / f"{name}.toml", RECIPES / f"{name}.toml"]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.toml"))
    raise RecipeError(f"recipe {name!r} is neither a file nor one of {', '.join(known)}{_suggest(name, known)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    if isinstance(parent := table.pop("extends", None), str):
        table = _merge(_read(_locate(parent, path.parent)), table)
    return table


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes`, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(kind: Any, value: Any, file: str, key: str) -> Any:
    """`value` as `kind`: a dataclass, a dict of dataclasses, a tuple, an optional one, a literal or a plain type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build_dataclass(kind, value, file, key)
    if origin is dict and isinstance(value, dict):
        return {name: _build(typing.get_args(kind)[1], entry, file, f"{key}.{name}") for name, entry in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_build(typing.get_args(kind)[0], entry, file, key) for entry in value)
    if origin in (typing.Union, types.UnionType):
        return _build(next(part for part in typing.get_args(kind) if part is not type(None)), value, file, key)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        allowed = [str(allowed) for allowed in typing.get_args(kind)]
        raise RecipeError(
            f"{file}: {key} = {value!r} is not one of {', '.join(allowed)}{_suggest(str(value), allowed)}"
        )
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    expected = "a table" if dataclasses.is_dataclass(kind) or origin is dict else getattr(kind, "__name__", str(kind))
    raise RecipeError(f"{file}: {key} = {value!r} is {type(value).__name__}, expected {expected}")


def _build_dataclass(kind: Any, table: dict[str, Any], file: str, key: str) -> Any:
    hints = typing.get_type_hints(kind)
    prefix = f"{key}." if key else ""
    for name in table:
        if name not in hints:
            raise RecipeError(f"{file}: unknown key {prefix}{name}{_suggest(name, list(hints))}")
    for entry in dataclasses.fields(kind):
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and entry.name not in table:
            raise RecipeError(f"{file}: {prefix}{entry.name} is missing")
    return kind(**{name: _build(hints[name], value, file, f"{prefix}{name}") for name, value in table.items()})


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _check_tokenizer(encoder: EncoderRecipe, where: str) -> None:
    if encoder.added_words < 0:
        raise RecipeError(f"{where}.added_words = {encoder.added_words} must not be negative")
    if (encoder.added_words or encoder.split_case) and not (encoder.kind == "static" and encoder.start):
        raise RecipeError(f'{where}: added_words and split_case are for kind = "static" with a `start`')


def _check_stage(stage: Stage, where: str) -> None:
    for key in ("batch_size", "max_tokens", "learning_rate", "temperature"):
        if getattr(stage, key) <= 0:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} must be more than 0")
    for key in ("alpha", "steps", "epochs", "negatives", "weight_decay", "max_sources"):
        if getattr(stage, key) < 0:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} must not be negative")
    for key in ("warmup", "average_last"):
        if not 0 <= getattr(stage, key) <= 1:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} is a fraction, from 0 to 1")
    if len(stage.betas) != 2:
        raise RecipeError(f"{where}.betas = {list(stage.betas)} must be two numbers")
    if stage.steps and stage.epochs:
        raise RecipeError(f"{where} has both steps = {stage.steps} and epochs = {stage.epochs}; give one")
    if not stage.sources:
        raise RecipeError(f"{where}.sources is empty")
