"""Writes a model with float32 weights as a model directory of int8 weights, with everything that a directory proves.

It is what `variant="int8"` makes as a model opens, for machines that should not quantize, or have no float32 weights.
The same model gives the same bytes on every machine.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gte_sdk.errors import InputError
from gte_sdk.model_files.contents import LEGAL_NAMES
from gte_sdk.model_files.directory import (
    CARD,
    GOLDEN_JSON,
    INT8_WEIGHTS,
    PARITY_JSON,
    SPECIAL_TOKENS_JSON,
    TOKENIZER_JSON,
    ModelDir,
    available_variants,
    checked_file,
    fingerprint_of_files,
    sha256_of_file,
    write_gte_json,
)
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    MODULES_JSON,
    POOLING_JSON,
    SENTENCE_TRANSFORMERS_JSON,
    TOKENIZER_CONFIG_JSON,
)
from gte_sdk.model_files.text_settings import SENTENCE_BERT_FILES
from gte_sdk.runtime.engine import cut_rows
from gte_sdk.runtime.golden import Golden, GoldenVectors, golden_fields
from gte_sdk.runtime.int8 import quantize
from gte_sdk.runtime.int8.at_open import Quantized, compare, facts_of, quantize_model, weight_names
from gte_sdk.runtime.int8.calibrate import bundled_texts
from gte_sdk.runtime.int8.card import describe_source, format_int8_card
from gte_sdk.runtime.int8.weights_file import write_int8
from gte_sdk.runtime.native.description import NotCoveredError
from gte_sdk.runtime.native.engine import ARITHMETIC, refuse_other_modules, run_native
from gte_sdk.runtime.text_tokenizer import obey_bert_settings
from gte_sdk.runtime.tokens import load_tokenizer, tokenize

# Of numbers that depend on a processor's order of sums in the digits behind.
_DIGITS = 10**6
_COPIED = (
    CONFIG_JSON, TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, SPECIAL_TOKENS_JSON, MODULES_JSON, POOLING_JSON,
    *SENTENCE_BERT_FILES, SENTENCE_TRANSFORMERS_JSON, *LEGAL_NAMES,
)  # fmt: skip


def write_int8_directory(
    description: ModelDir,
    folder: Path,
    tokenizer: Tokenizer,
    threads: int,
    version: str,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Fills an empty folder, and returns the content of its parity.json.

    version: of gte-sdk. Raises InputError for a model without float32 weights, of another family than the native
    engine's, or too far from float32 in int8.
    """
    name = available_variants(description).get("fp32")
    if name is None:
        raise InputError(
            f"{description.path} has no float32 weights to convert: {sorted(available_variants(description))}"
        )
    if description.truncate_dim is not None or not description.pools_prompts:
        raise InputError(f"{description.path} has truncate_dim or include_prompt=false, which gte.json cannot say")
    golden, parity = bundled_texts("golden"), bundled_texts("parity")
    try:
        refuse_other_modules(description)
        quantized = quantize_model(description, name, [*golden, *parity], threads, tokenizer, progress)
    except (NotCoveredError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{description.path} cannot be converted to int8: {error}") from error
    golden_rows_ND = quantized.int8_rows_ND[: len(golden)]
    closeness = compare(golden_rows_ND, quantized.float_rows_ND[: len(golden)])
    if not closeness.enough:
        raise InputError(f"{description.path} loses too much in int8: {closeness}; use variant='fp32'")
    with (folder / INT8_WEIGHTS).open("wb+") as file:
        write_int8(file, quantized.weights, facts_of(closeness))
    report = _report(quantized, len(golden), (folder / INT8_WEIGHTS).stat().st_size, version)
    source = describe_source(description)
    for copied in _COPIED:
        if (description.path / copied).is_file():
            (folder / copied).parent.mkdir(exist_ok=True)
            (folder / copied).write_bytes(checked_file(description, copied).read_bytes())
    own_tokenizer = load_tokenizer(description.path / TOKENIZER_JSON)
    if obey_bert_settings(own_tokenizer, description.normalization):
        (folder / TOKENIZER_JSON).write_text(own_tokenizer.to_str(), encoding="utf-8")
    _write_json(folder / PARITY_JSON, report)
    _write_json(
        folder / GOLDEN_JSON, golden_fields(Golden(golden, {"int8": GoldenVectors(ARITHMETIC, golden_rows_ND)}))
    )
    (folder / CARD).write_text(format_int8_card(description, source, report), encoding="utf-8")
    write_gte_json(
        folder,
        name=description.name,
        dim=quantized.model.dim,
        max_tokens=description.max_tokens,
        pooling=description.pooling,
        prompts=description.prompts,
        fingerprint=fingerprint_of_files(description, name),
        licence=source.licence,
        provenance={
            "source": source.name,
            "revision": source.revision,
            "weights_sha256": [sha256_of_file(description.path / file) for file in weight_names(description, name)],
            "command": "gte convert",
            "versions": report["versions"],
        },
        matryoshka_dims=description.matryoshka_dims,
        int8_limits=_limits(quantized, description, tokenizer),
    )
    return report


def _report(quantized: Quantized, golden_count: int, size: int, version: str) -> dict[str, Any]:
    """parity.json as the export writes it, of what was measured here. Cosines have digits that all processors share."""
    int8_ND, float_ND = (
        rows[golden_count:].astype(np.float64) for rows in (quantized.int8_rows_ND, quantized.float_rows_ND)
    )
    cosines_N = np.einsum("nd,nd->n", int8_ND, float_ND)
    quantiles = {str(share): round(float(np.quantile(cosines_N, share)), 6) for share in (0.05, 0.25, 0.5)}
    cosine = {
        "mean": round(float(cosines_N.mean()), 6),
        "minimum": round(float(cosines_N.min()), 6),
        "quantiles": quantiles,
    }
    return {
        "texts": len(cosines_N),
        "reference": f"fp32 on the native engine ({ARITHMETIC})",
        "precisions": {"int8": {"bytes": size, "cosine": cosine}},
        "quantization": {"method": "per-token", "calibration": "bundled", "quantizer": quantize.VERSION},
        "versions": {"gte-sdk": version},
    }


def _limits(quantized: Quantized, description: ModelDir, tokenizer: Tokenizer) -> dict[str, float]:
    """The field int8_limits of gte.json, over all bundled texts."""
    ids = tokenize(tokenizer, bundled_texts("calibration"), description.max_tokens).ids
    rows_ND = np.concatenate([quantized.int8_rows_ND, run_native(quantized.model, ids)])
    dims = {rows_ND.shape[1], *description.matryoshka_dims}
    largest = {str(dim): float(np.abs(cut_rows(rows_ND, dim)).max()) for dim in sorted(dims, reverse=True)}
    return {dim: math.ceil(limit * _DIGITS) / _DIGITS for dim, limit in largest.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
