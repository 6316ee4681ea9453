"""Makes int8 graphs with ONNX Runtime's own quantizers, dynamic or static, for one instruction set.

They are for comparison, and for tools that read QDQ graphs. The default is quantize.py, which is closer to fp32 and the
same on every CPU. Static graphs have one scale per tensor, from the calibration texts. If a few tokens are far larger
than all others, that scale leaves the others hardly any steps, so such a product stays in float. (Levelled channels,
which help with one scale per token, do not help here: all-MiniLM-L6-v2 has a mean cosine of .9222 with and .9223
without.)
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.graphs.calibrate import measure_token_spread
from export.graphs.quantize import MINIMUM_TABLE_ROWS, QuantizationSummary
from gte_sdk.runtime.tokens import TokenBatch

# A product stays in float if the largest token of its input is more than this many times the median one.
LARGEST_SPREAD = 4.0


class InstructionSet(NamedTuple):
    file: str
    """The name under which models on the Hub publish such a graph."""
    weights: QuantType
    activations: QuantType


# x86 without VNNI saturates uint8 x int8 sums (onnxruntime#6004), but not uint8 x uint8, which is the slower kernel.
INSTRUCTION_SETS = {
    "avx2": InstructionSet("onnx/model_quint8_avx2.onnx", QuantType.QUInt8, QuantType.QUInt8),
    "vnni": InstructionSet("onnx/model_qint8_avx512_vnni.onnx", QuantType.QInt8, QuantType.QUInt8),
    "arm64": InstructionSet("onnx/model_qint8_arm64.onnx", QuantType.QInt8, QuantType.QInt8),
}


def quantize_with_onnxruntime(
    source: Path, target: Path, instruction_set: str, calibration: Sequence[TokenBatch] | None
) -> QuantizationSummary:
    """Writes an int8 version of the fp32 graph `source` to `target`: static on `calibration`, or dynamic if it is None.

    Weights have a scale per output channel, tables a single one. Products of two activations (attention) stay in float.
    """
    wanted = INSTRUCTION_SETS[instruction_set]
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)  # folds constants, names every node
        model = onnx.load(prepared)
        kept = _find_products_of_activations(model) | _find_small_tables(model)
        if calibration is None:
            quantize_dynamic(
                str(prepared),
                str(target),
                per_channel=True,
                weight_type=wanted.weights,
                op_types_to_quantize=["MatMul", "Gather"],
                nodes_to_exclude=list(kept),
            )
        else:
            spreads = measure_token_spread(prepared, _find_inputs_of_weights(model), calibration)
            kept |= _find_uneven_products(model, spreads)
            quantize_static(
                str(prepared),
                str(target),
                _Batches(model, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=wanted.weights,
                activation_type=wanted.activations,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["MatMul", "Gather"],
                nodes_to_exclude=list(kept),
            )
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    weight_input = {"Gather": 0, "MatMul": 1}
    quantized = [
        node.name
        for node in model.graph.node
        if node.op_type in weight_input and node.input[weight_input[node.op_type]] in matrices and node.name not in kept
    ]
    return QuantizationSummary(quantized, kept)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """The calibration data in the class that ONNX Runtime asks for."""

    def __init__(self, model: onnx.ModelProto, batches: Sequence[TokenBatch]) -> None:
        names = {node.name for node in model.graph.input}
        self.feeds: Iterator[dict[str, Any]] = iter(
            [{name: array for name, array in batch._asdict().items() if name in names} for batch in batches]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def _find_inputs_of_weights(model: onnx.ModelProto) -> list[str]:
    """The activations that are multiplied by weights, each once."""
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return list(dict.fromkeys(node.input[0] for node in nodes))


def _find_products_of_activations(model: onnx.ModelProto) -> dict[str, str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        node.name: "a product of two activations, which have no scale that fits every text"
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] not in weights
    }


def _find_small_tables(model: onnx.ModelProto) -> dict[str, str]:
    rows = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return {
        node.name: f"a table of {rows[node.input[0]]} rows is added to every token"
        for node in model.graph.node
        if node.op_type == "Gather" and rows.get(node.input[0], MINIMUM_TABLE_ROWS) < MINIMUM_TABLE_ROWS
    }


def _find_uneven_products(model: onnx.ModelProto, spreads: Mapping[str, float]) -> dict[str, str]:
    return {
        node.name: f"the largest token of its input is {spreads[node.input[0]]:.0f} times the median one"
        for node in model.graph.node
        if node.op_type == "MatMul" and spreads.get(node.input[0], 0) > LARGEST_SPREAD
    }
