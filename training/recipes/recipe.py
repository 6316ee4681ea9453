"""Recipes: every constant of a training run, in one TOML file with typed keys.

A recipe may extend another file and give only what differs. Reading is strict, because a typing mistake costs a
training run: an unknown key, a value of another type or a number out of range is an error that names the key.
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

RECIPES = Path(__file__).parent

DistillationKind = Literal["vectors", "similarities", "rankings"]
DistilledTexts = Literal["queries", "documents", "both"]


class RecipeError(ValueError):
    """A recipe that is missing or cannot be run. The message names the file and the key."""


@dataclass(frozen=True)
class Architecture:
    """A BERT with random weights, for training from scratch; or, beside a `start`, what --dry-run counts on."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    positions: int = 512
    vocabulary: int = 30522
    """Most word pieces of the tokenizer that is made from the first stage's texts if the recipe names none."""


@dataclass(frozen=True)
class EncoderRecipe:
    kind: Literal["transformer", "static"] = "transformer"
    start: str = ""
    """A directory or Hub name to start from. Empty: random weights of `architecture`, or of `dim` if static. A static
    encoder that starts from a transformer gets the transformer's vector of each token."""
    tokenizer: str = ""
    """A directory or Hub name of the tokenizer for random weights. Empty: one is made from the first stage's texts."""
    added_words: int = 0
    """How many words of the first stage's texts a static encoder's tokenizer gets in addition to those it has."""
    split_case: bool = False
    """Whether a static encoder's tokenizer first cuts identifiers into words: createdAt becomes created At."""
    architecture: Architecture | None = None
    dim: int = 256
    """Dimensions of a static encoder."""
    keep_space: bool = False
    """Whether a static encoder starts from the transformer's first `dim` dimensions, not from principal components.
    With a teacher of kind "vectors", it stays in the transformer's space and can search its vectors."""
    max_tokens: int = 512
    """The most tokens of a text that the trained model reads."""
    freeze_token_embeddings: bool = False
    dropout: float = -1.0
    """Dropout of hidden states and attention in training. Below 0: that of the start."""


@dataclass(frozen=True)
class Distillation:
    """One teacher of a stage, which may have several."""

    teacher: str = "start"
    """A Hub name, or the directory of a checkpoint, of an exported model, whose int8 graph is fast on a CPU, or of
    vectors from training.runs.teaching.teacher_vectors. "start" is the run's own encoder before the first step."""
    weight: float = 1.0
    """0: the teacher is not used."""
    category_weights: dict[str, float] = field(default_factory=dict)
    """Instead of `weight`, for batches of these categories. A category is what precedes __ in a source's name."""
    kind: DistillationKind = "vectors"
    """The teacher's vectors; or, in each dimension of `matryoshka`, its cosines between all texts of a batch, or how it
    ranks all others for each of them. See the losses in training/loss/losses.py."""
    temperature: float = 0.05
    """Of "rankings". Lower: the nearest texts only."""
    texts: DistilledTexts = "both"
    without_vectors: Literal["refuse", "leave_out"] = "refuse"
    """What to do with a pair that has a text without a vector in the directory: refuse to start the run, or leave the
    pair out of the stage."""

    def weight_of(self, category: str) -> float:
        return self.category_weights.get(category, self.weight)

    @property
    def weighs(self) -> bool:
        return self.weight > 0 or any(self.category_weights.values())


@dataclass(frozen=True)
class Mining:
    """Hard negatives, mined before the stage's first step with the encoder at that time; see data/mining.py."""

    sources: tuple[str, ...] = ("*",)
    """Patterns of names of sources to mine. The other sources keep the negatives that they have."""
    count: int = 15
    first_rank: int = 10
    last_rank: int = 100
    max_ratio: float = 0.95
    max_tokens: int = 128
    corpus: tuple[str, ...] = ()
    """Files with more candidates, beside the documents of the source itself: .parquet with a column `text`, or .jsonl;
    paths below --data."""


@dataclass(frozen=True)
class Shards:
    """One source of many files, see data/shards.py."""

    files: tuple[str, ...]
    """Patterns of .parquet and .jsonl files, the latter also as .gz and .zst: paths below --data, or URLs such as
    hf://datasets/OWNER/NAME@REVISION/DIR/*.parquet, s3://BUCKET/DIR/* and gs://BUCKET/DIR/*."""
    columns: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Which columns hold query, document, negatives and label, where they have other names. Several are joined."""
    rows: int = 0
    """About how many there are, for --dry-run, which does not read the files; 0: not known."""


@dataclass(frozen=True)
class Stage:
    batch_size: int
    learning_rate: float
    max_tokens: int
    steps: int = 0
    """Optimizer steps. 0: `epochs` decides. If both are 0, the stage is skipped."""
    epochs: float = 0.0
    """Passes over every source: each pair is read once in each, and alpha plays no part."""
    sources: tuple[str, ...] = ()
    """Files, each of them a source; see data/sources.py."""
    shards: dict[str, Shards] = field(default_factory=dict)
    """More sources, of many files each, by their names."""
    exclude: tuple[str, ...] = ()
    commercial: tuple[str, ...] = ()
    """Values of the manifest's column `commercial` to admit. Empty: the manifest is not read."""
    linked_labels: tuple[str, ...] = ()
    """Patterns of names of sources whose query and document are two texts of one class, such as an intent, that no
    column names: what pairs connect has one label, see label_by_links."""
    alpha: float = 0.5
    mixed_sources: bool = False
    max_sources: int = 0
    """Use only this many sources, in an order that the seed shuffles. 0: all."""
    loss: str = "improved"
    """"improved", "vanilla" (see contrastive_loss), or a function of one's own by its dotted name, see `Loss` in
    training/loss/losses.py."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """What the loss is multiplied by in batches of these categories of sources; 1 in the others. 0: a batch is for the
    teachers only."""
    temperature: float = 0.01
    negatives: int = 0
    """Most hard negatives of a query."""
    random_negatives: bool = False
    """Whether a query with fewer gets other documents of its source, drawn at random, so that every group of query,
    answer and negatives has the same size, as the paper's of 16."""
    false_negative_margin: float = -1.0
    """See contrastive_loss. Below 0: no term is left out."""
    matryoshka: tuple[int, ...] = ()
    """Dimensions to average the loss over, the full dimension included. Empty: the full dimension only."""
    distillation: dict[str, Distillation] = field(default_factory=dict)
    """Any number of teachers, whose losses are added. A recipe that extends this one changes them by their names."""
    mining: Mining | None = None
    warmup: float = 0.05
    """Fraction of the steps with linear warm-up; linear decay to 0 follows."""
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.999)
    clip_norm: float = 1.0
    frozen_layers: int = 0
    """How many of the lowest layers, with the embeddings below them, do not change in this stage. They need no backward
    pass."""
    average_last: float = 0.0
    """Fraction of the steps, the last ones, whose weights are averaged to the stage's result. 0: the last weights."""


@dataclass(frozen=True)
class Hardware:
    """Keys that change speed and memory, and the result only by rounding, except for chunk_tokens with dropout."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the encoder's matrix products; weights, pooling and losses stay float32. fp16 needs a GPU. bf16 is fast on a
    CPU with instructions for it (AVX-512 BF16, AMX) and slow on others."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """The backbone's implementation. eager is the fastest for short texts on a CPU. flash_attention_2 needs the package
    flash-attn, a GPU and 16 bits; it skips padding, because transformers packs the texts before the kernel."""
    feed_workers: int = 0
    """Processes for each that trains, which tokenize batches ahead of the step, and read new shards; 0: a thread."""
    chunk_tokens: int = 16384
    """Most padded tokens in the encoder at once, on each device. Dropout draws for a chunk at a time, so another size
    gives other random numbers, as another seed does; without dropout it gives the same result."""
    kept_tokens: int = 16384
    """Most padded tokens whose graphs stay in memory, see loss/grad_cache.py. A smaller batch needs no second pass."""
    peak_tflops: float = 0.0
    """What a device can compute in this precision, from its data sheet. The model FLOPs utilization (MFU) in bar and
    log, and the hours of --dry-run, are shares of it; 0: neither is reported."""
    compile: bool = False
    """Whether torch.compile fuses the backbone. It needs a C++ compiler, and a minute or more at the start."""
    block_rows: int = 1024
    """Rows of the similarity matrices in memory at once."""
    gradient_checkpointing: bool = False
    optimizer_sharding: bool = False
    """ZeRO stage 1: each process keeps its share of AdamW's state."""


@dataclass(frozen=True)
class Evaluation:
    sets: tuple[str, ...] = ()
    """Patterns of directories below --evaluation DIR, such as sts/*."""
    after_stages: bool = True
    """Whether to measure the encoder on `sets` after every stage."""
    refuse_texts: bool = True
    """Whether to leave out training pairs with a text of one of the `sets`."""


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
    """A recipe by path, or by its name in training/recipes (`smoke`, `ablation/vanilla`).

    Raises RecipeError if it is missing, is not TOML, or is not a recipe.
    """
    table = _read(_locate(name_or_path, Path.cwd()))
    recipe: Recipe = _build(Recipe, table, name_or_path, "")
    for name, stage in recipe.stages.items():
        _check_stage(stage, f"{name_or_path}: stages.{name}")
    if not any(stage.steps or stage.epochs for stage in recipe.stages.values()):
        raise RecipeError(f"{name_or_path}: no stage has steps or epochs, so there is nothing to train")
    for key, value in (("chunk_tokens", recipe.hardware.chunk_tokens), ("block_rows", recipe.hardware.block_rows)):
        if value < 1:
            raise RecipeError(f"{name_or_path}: hardware.{key} = {value} must be at least 1")
    if not recipe.encoder.start and recipe.encoder.kind == "transformer" and recipe.encoder.architecture is None:
        raise RecipeError(f"{name_or_path}: encoder needs `start` (a directory or Hub name) or `architecture`")
    _check_tokenizer(recipe.encoder, f"{name_or_path}: encoder")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML with every key, defaults included. load_recipe reads it back."""
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
    for path in (beside / name, beside / f"{name}.toml", RECIPES / f"{name}.toml"):
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
    """`base` with the values of `changes`, merged table by table."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(kind: Any, value: Any, file: str, key: str) -> Any:
    """`value` as `kind`: a dataclass, a dict of them, a tuple, an optional value, a literal or a plain type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build_dataclass(kind, value, file, key)
    if origin is dict and isinstance(value, dict):
        return {name: _build(typing.get_args(kind)[1], entry, file, f"{key}.{name}") for name, entry in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_build(typing.get_args(kind)[0], entry, file, key) for entry in value)
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        as_list = [part for part in parts if typing.get_origin(part) is tuple and isinstance(value, list)]
        return _build((as_list or parts)[0], value, file, key)
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
    of_a_start = encoder.added_words or encoder.split_case or encoder.keep_space
    if of_a_start and not (encoder.kind == "static" and encoder.start):
        raise RecipeError(f'{where}: added_words, split_case and keep_space need kind = "static" and a `start`')


def _check_stage(stage: Stage, where: str) -> None:
    for key in ("batch_size", "max_tokens", "learning_rate", "temperature"):
        if getattr(stage, key) <= 0:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} must be more than 0")
    for key in ("alpha", "steps", "epochs", "negatives", "weight_decay", "max_sources", "frozen_layers"):
        if getattr(stage, key) < 0:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} must not be negative")
    for key in ("warmup", "average_last"):
        if not 0 <= getattr(stage, key) <= 1:
            raise RecipeError(f"{where}.{key} = {getattr(stage, key)} is a fraction, from 0 to 1")
    if stage.loss not in (kinds := typing.get_args(LossKind)) and "." not in stage.loss:
        allowed = f"{', '.join(kinds)}, nor a dotted name{_suggest(stage.loss, list(kinds))}"
        raise RecipeError(f"{where}.loss = {stage.loss!r} is not one of {allowed}")
    if stage.random_negatives and not stage.negatives:
        raise RecipeError(f"{where}.random_negatives needs negatives, how many each query gets")
    if len(stage.betas) != 2:
        raise RecipeError(f"{where}.betas = {list(stage.betas)} must be two numbers")
    if stage.steps and stage.epochs:
        raise RecipeError(f"{where} has both steps = {stage.steps} and epochs = {stage.epochs}; give one")
    if not stage.sources and not stage.shards:
        raise RecipeError(f"{where} has neither sources nor shards")
    if min(stage.loss_weights.values(), default=0.0) < 0:
        raise RecipeError(f"{where}.loss_weights has a negative weight")
    if stage.loss_weights and stage.mixed_sources:
        raise RecipeError(f"{where}.loss_weights needs mixed_sources = false")
    for name, distillation in stage.distillation.items():
        if distillation.category_weights and stage.mixed_sources:
            raise RecipeError(f"{where}.distillation.{name}.category_weights needs mixed_sources = false")
        if min(distillation.weight, *distillation.category_weights.values(), 0.0) < 0:
            raise RecipeError(f"{where}.distillation.{name} has a negative weight")
        if distillation.temperature <= 0:
            raise RecipeError(
                f"{where}.distillation.{name}.temperature = {distillation.temperature} must be more than 0"
            )
