"""Golden vectors: a few texts, with the vectors that each graph gave on the machine where its export was measured.

Every graph embeds these texts when it opens. So a CPU whose int8 arithmetic saturates, or a broken ONNX Runtime, is
found before one of its vectors is stored. It costs one batch of about 100 tokens. The native engine must give the same
bits. ONNX Runtime's floats differ between processors in the last digits, and an int8 value between two steps may be
rounded to either, so there the cosine decides.
"""

import base64
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import GOLDEN_JSON, GTE_JSON, ModelDir, checked_file
from gte_sdk.model_files.published import read_json
from gte_sdk.runtime.native import engine as native

# The least cosine to a golden vector. Correct engines and processors stay above .998 in int8 (docs/runtime.md).
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.99}


class GoldenVectors(NamedTuple):
    made_by: str
    """`native.ARITHMETIC` or the version of onnxruntime."""
    rows: NDArray[np.float32]
    """(n, dim) unit rows."""


class Golden(NamedTuple):
    texts: list[str]
    """Without a prompt, none longer than the model reads."""
    vectors: Mapping[str, GoldenVectors]
    """By variant."""


def read_golden(description: ModelDir) -> Golden | None:
    """The golden vectors of a model directory, or None. Raises ModelFormatError for malformed ones."""
    if GOLDEN_JSON not in description.files:
        return None
    file = checked_file(description, GOLDEN_JSON)
    fields = read_json(file)
    try:
        texts = [str(text) for text in fields["texts"]]
        vectors = {
            str(variant): GoldenVectors(
                str(entry["made_by"]),
                np.frombuffer(base64.b64decode(entry["float32"], validate=True), "<f4").reshape(len(texts), -1),
            )
            for variant, entry in fields["vectors"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFormatError(f"{file} does not hold golden vectors: {error!r}; export the model again") from error
    for _, rows_ND in vectors.values():
        if rows_ND.shape[1] != description.dim:
            raise ModelFormatError(
                f"{file} has vectors of {rows_ND.shape[1]} dimensions, but {GTE_JSON} records dim={description.dim}; "
                "export the model again"
            )
    return Golden(texts, vectors)


def golden_fields(golden: Golden) -> dict[str, object]:
    """The content of golden.json."""
    vectors = {
        variant: {"made_by": made_by, "float32": base64.b64encode(rows.astype("<f4").tobytes()).decode("ascii")}
        for variant, (made_by, rows) in golden.vectors.items()
    }
    return {"texts": golden.texts, "vectors": vectors}


def deviation(expected: GoldenVectors, rows_ND: NDArray[np.float32], variant: str, exact: bool) -> str | None:
    """How this machine's rows for the golden texts differ from the golden vectors, or None if they agree.

    exact: the rows come from the native engine, whose bits must be equal if it made the golden vectors too.
    """
    if exact and expected.made_by == native.ARITHMETIC:
        differing = int((rows_ND != expected.rows).any(axis=1).sum())
        if differing:
            return f"gives different bits for {differing} of {len(rows_ND)} golden texts"
        return None
    least = float(row_cosines(rows_ND, expected.rows).min(initial=1.0))
    if not least >= LEAST_COSINE[variant]:  # NaN too
        return f"has a cosine of {least:.4f} to its golden vectors; it must be at least {LEAST_COSINE[variant]}"
    return None


def row_cosines(rows_ND: NDArray[np.float32], others_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,): the cosine of each unit row to its counterpart.

    A text without tokens has the vector zero. Two such rows agree, so their cosine counts as 1.
    """
    cosines_N: NDArray[np.float64] = np.einsum("nd,nd->n", rows_ND.astype(np.float64), others_ND.astype(np.float64))
    cosines_N[~(rows_ND.any(axis=1) | others_ND.any(axis=1))] = 1.0
    return cosines_N
