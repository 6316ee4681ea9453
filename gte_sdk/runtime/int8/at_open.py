"""Opens a model in int8 of which there are only float32 weights: calibrates, quantizes, compares, and keeps the result.

The first time it takes about as long as embedding the bundled texts in float32. After that the weights come from the
cache. They are used only if the vectors of the golden texts stay close to those of the float32 encoder.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import INT8_WEIGHTS, ModelDir, checked_file, sha256_of_file
from gte_sdk.model_files.graph_file import external_data_names
from gte_sdk.model_files.published import CONFIG_JSON
from gte_sdk.model_files.user_cache import cached_file, keep, remembered, remembered_sha256
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import return_free_memory
from gte_sdk.runtime.int8 import quantize
from gte_sdk.runtime.int8.calibrate import bundled_texts, measure_maxima
from gte_sdk.runtime.int8.progress import progress_line
from gte_sdk.runtime.int8.weights_file import FORMAT_VERSION, read_int8, write_int8
from gte_sdk.runtime.native.description import EncoderWeights, NotCoveredError
from gte_sdk.runtime.native.engine import (
    ARITHMETIC,
    NativeModel,
    load_encoder,
    native_engine,
    refuse_other_modules,
    run_native,
)
from gte_sdk.runtime.native.weights import read_weights
from gte_sdk.runtime.tokens import tokenize

# The least cosines of int8 vectors to float32 ones over the golden texts, as mean and for any text.
LEAST_MEAN, LEAST_COSINE = 0.995, 0.98
# The share of the time that calibrating takes; quantizing takes the rest.
_CALIBRATION = 0.75
# Of the bundled texts are read at most as many tokens, whatever limit a model or its user sets.
_MOST_TOKENS = 256


class Closeness(NamedTuple):
    """Cosines of int8 vectors to the float32 vectors of the same texts."""

    mean_cosine: float
    least_cosine: float

    @property
    def enough(self) -> bool:
        return self.mean_cosine >= LEAST_MEAN and self.least_cosine >= LEAST_COSINE  # false for NaN

    def __str__(self) -> str:
        return (
            f"mean cosine {self.mean_cosine:.4f} (at least {LEAST_MEAN}), "
            f"least cosine {self.least_cosine:.4f} (at least {LEAST_COSINE})"
        )


class Quantized(NamedTuple):
    weights: EncoderWeights
    """Its layers are in memory."""
    model: NativeModel
    float_rows_ND: NDArray[np.float32]
    """The float32 encoder's vectors of the texts."""
    int8_rows_ND: NDArray[np.float32]


class LossError(Exception):
    """A model whose int8 vectors are too far from its float32 vectors. Never leaves gte_sdk/runtime."""


def open_int8_file(description: ModelDir, settings: EngineSettings) -> Engine:
    """The engine for the model_int8.safetensors of a model directory. Raises ModelFormatError."""

    def load() -> NativeModel:
        path = checked_file(description, INT8_WEIGHTS)
        try:
            weights = read_int8(path, description.pooling, settings.threads).weights
            return load_encoder(weights.reading(description.max_tokens), settings.threads)
        except (NotCoveredError, ValueError, TypeError) as error:  # shapes that do not fit together
            raise ModelFormatError(f"{path} does not hold an int8 encoder: {error}; convert the model again") from error

    return native_engine(load, description, INT8_WEIGHTS, "int8", settings)


def open_quantized(description: ModelDir, settings: EngineSettings, tokenizer: Tokenizer, name: str) -> Engine:
    """The engine for the float32 weights in the file `name`, quantized.

    Raises NotCoveredError with the reason for a model that is not of the native engine's family, LossError for one that
    loses too much.
    """
    refuse_other_modules(description)

    def load() -> NativeModel:
        try:
            return _load(description, name, settings.threads, tokenizer)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise NotCoveredError(f"it is no encoder of the family: {error}") from error

    return native_engine(load, description, name, "int8", settings)


def _load(description: ModelDir, name: str, threads: int, tokenizer: Tokenizer) -> NativeModel:
    path = cached_file(_ingredients(description, name))
    if path is not None and (kept := _read_kept(path, description, threads)) is not None:
        return kept
    model = _make(description, name, threads, tokenizer, path)
    return_free_memory()
    return model


def _make(description: ModelDir, name: str, threads: int, tokenizer: Tokenizer, path: Path | None) -> NativeModel:
    golden = bundled_texts("golden")
    with progress_line(f"gte: quantizing {description.name} to int8, once") as progress:
        quantized = quantize_model(description, name, golden, threads, tokenizer, progress)
    closeness = compare(quantized.int8_rows_ND, quantized.float_rows_ND)
    keep(path, lambda file: write_int8(file, quantized.weights, facts_of(closeness)))
    if not closeness.enough:
        raise LossError(f"{description.path} loses too much in int8: {closeness}")
    return quantized.model


def quantize_model(
    description: ModelDir,
    name: str,
    texts: Sequence[str],
    threads: int,
    tokenizer: Tokenizer,
    progress: Callable[[float], None],
) -> Quantized:
    """Quantizes the float32 weights in the file `name` and embeds texts before and after.

    The float32 encoder is gone before the int8 one exists. Raises NotCoveredError for a model of another family.
    """
    weights = read_weights(description, name, "fp32")
    limit = min(weights.most_tokens, _MOST_TOKENS)
    calibration, ids = (tokenize(tokenizer, each, limit).ids for each in (bundled_texts("calibration"), texts))
    floats = load_encoder(weights, threads)
    maxima = measure_maxima(floats, calibration, lambda share: progress(_CALIBRATION * share))
    float_rows_ND = run_native(floats, ids)
    del floats
    return_free_memory()
    lazy = quantize.quantize_encoder(read_weights(description, name, "fp32"), maxima)
    layers = []
    for layer in lazy.layers:
        layers.append(layer)
        progress(_CALIBRATION + (1 - _CALIBRATION) * len(layers) / len(maxima))
    quantized = lazy._replace(layers=layers)
    model = load_encoder(quantized.reading(description.max_tokens), threads)
    return Quantized(quantized, model, float_rows_ND, run_native(model, ids))


def compare(int8_rows_ND: NDArray[np.float32], float_rows_ND: NDArray[np.float32]) -> Closeness:
    """The rows have unit length. Six digits, which all processors agree on."""
    cosines_N = np.einsum("nd,nd->n", int8_rows_ND.astype(np.float64), float_rows_ND.astype(np.float64))
    return Closeness(round(float(cosines_N.mean()), 6), round(float(cosines_N.min()), 6))


def facts_of(closeness: Closeness) -> dict[str, Any]:
    """What model_int8.safetensors says about its weights."""
    return {"quantizer": quantize.VERSION, "golden_texts": closeness._asdict()}


def _read_kept(path: Path, description: ModelDir, threads: int) -> NativeModel | None:
    """The model in the cache; None if it is not there or damaged. Raises LossError if it is known to be so."""
    if not path.is_file():
        return None
    try:
        weights, facts = read_int8(path, description.pooling, threads)
        closeness = Closeness(**facts["golden_texts"])
        if not closeness.enough:
            raise LossError(f"{description.path} loses too much in int8: {closeness}")
        return load_encoder(weights.reading(description.max_tokens), threads)
    except (ModelFormatError, OSError, LookupError, TypeError):
        return None  # it is made anew


def _ingredients(description: ModelDir, name: str) -> dict[str, Any]:
    """Everything that the kept weights depend on."""
    config, tokenizer = (checked_file(description, file) for file in (CONFIG_JSON, description.tokenizer))
    return {
        "weights": [_sha256(description, file) for file in weight_names(description, name)],
        "config": sha256_of_file(config),
        "tokenizer": sha256_of_file(tokenizer),
        "lowercase": description.lowercase,
        "normalization": description.normalization,
        "pooling": description.pooling,
        "versions": [quantize.VERSION, FORMAT_VERSION, ARITHMETIC],
    }


def weight_names(description: ModelDir, name: str) -> list[str]:
    """The file and those that it names, which hold the weights together. A graph is not read if nothing changed it."""

    def others() -> str:
        return json.dumps(external_data_names(description.path, name))

    path = description.path / name
    return [name, *json.loads(remembered(path, "other files", others) if name.endswith(".onnx") else others())]


def _sha256(description: ModelDir, name: str) -> str:
    """Of a file of the directory, which is not read if nothing changed it. Raises ModelFormatError as checked_file."""
    if not (description.path / name).is_file():
        checked_file(description, name)
    digest = remembered_sha256(description.path / name)
    record = description.files.get(name)
    if description.files and (record is None or digest != record.sha256):
        checked_file(description, name)
    return digest
