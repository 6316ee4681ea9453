"""Quantizes an fp32 graph to int8: weights, embeddings and activations, on the finest scales that integers allow.

Activations get a scale per token, found while the graph runs. With the usual scale per batch, a text's vector depends
on the rest of the batch, and one outlier token costs all others their resolution (all-MiniLM-L6-v2, 500 mixed texts:
mean cosine to fp32 .992 and worst .959 with ONNX Runtime's quantize_dynamic, .999 and .995 here). Weights get a scale
per output channel, embedding tables one per row, and the channels are levelled: gte_sdk/runtime/int8/quantize.py has
the rule, and this file writes it into a graph of standard ONNX operators.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.external_data import has_external_data, optimize_graph, save_graph, take_weights_in
from export.graphs.calibrate import measure_channel_maxima
from gte_sdk.runtime.int8.quantize import (
    GELU_SHIFT,
    level_channels,
    quantize_symmetrically,
    quantize_without_saturation,
    undo_shift,
)
from gte_sdk.runtime.tokens import TokenBatch

# A table with fewer rows (positions, segments) stays in float: it is small, and it is added to every token.
MINIMUM_TABLE_ROWS = 1024
# Rows of a table are quantized so many at a time, because the table of a large vocabulary is half of the model.
_BLOCK_ROWS = 32_768

_PREFIX = "gte_int8"
_SIGNED_ZERO, _UNSIGNED_ZERO = f"{_PREFIX}/zero_128", f"{_PREFIX}/zero_0"


class QuantizationSummary(NamedTuple):
    quantized: list[str]
    """Names of the nodes that run on integers."""
    kept_in_float: dict[str, str]
    """Names of the nodes with weights that stay in float32, and why."""


def quantize(source: Path, target: Path, calibration: Sequence[TokenBatch]) -> QuantizationSummary:
    """Writes the int8 version of the fp32 graph `source` to `target`, with channels levelled on `calibration`.

    Of a graph with external data, one matrix in float32 is in memory at a time, beside the integers.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / target.name
        if has_external_data(source):
            optimize_graph(source, prepared)
        else:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)  # folds constants, names every node
        model = onnx.load(prepared, load_external_data=False)
        rewriter = _Rewriter(model, prepared.parent)
        rewriter.level(measure_channel_maxima(prepared, rewriter.matmul_inputs(), calibration))
        rewriter.rewrite()
        take_weights_in(model, prepared.parent)
    save_graph(model, target)
    return QuantizationSummary(rewriter.quantized, rewriter.kept_in_float)


class _Rewriter:
    """Walks the nodes in order and replaces MatMul and Gather of weights by their integer forms."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        """folder: that of the graph's external data."""
        self.graph = model.graph
        self.folder = folder
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output}
        self.nodes: list[NodeProto] = []
        self.quantized: list[str] = []
        self.kept_in_float: dict[str, str] = {}
        self.quantized_inputs: dict[str, str] = {}
        self.factors: dict[str, NDArray[np.float32]] = {}
        self.constants: set[str] = set()

    def matmul_inputs(self) -> list[str]:
        """The activations that are multiplied by weights, each once."""
        return list(dict.fromkeys(node.input[0] for node in self.graph.node if self._is_weight_matmul(node)))

    def level(self, maxima: dict[str, NDArray[np.float32]]) -> None:
        """Chooses the factors of each activation from its channels' maxima and from all weights that read it."""
        for activations, maxima_K in maxima.items():
            weights_KN = [
                self._values(node.input[1])
                for node in self.graph.node
                if self._is_weight_matmul(node) and node.input[0] == activations
            ]
            self.factors[activations] = level_channels(maxima_K, weights_KN)

    def rewrite(self) -> None:
        for node in list(self.graph.node):
            if node.op_type == "Gather" and self._is_table(node.input[0]):
                self._rewrite_gather(node)
            elif self._is_weight_matmul(node):
                self._rewrite_matmul(node)
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _is_weight_matmul(self, node: NodeProto) -> bool:
        return node.op_type == "MatMul" and self._is_matrix(node.input[1])

    def _is_matrix(self, name: str) -> bool:
        return name in self.weights and len(self.weights[name].dims) == 2

    def _is_table(self, name: str) -> bool:
        return self._is_matrix(name) and self.weights[name].data_type == TensorProto.FLOAT

    def _rewrite_gather(self, node: NodeProto) -> None:
        table_VD = self._values(node.input[0])
        if len(table_VD) < MINIMUM_TABLE_ROWS:
            self.kept_in_float[node.name] = f"a table of {len(table_VD)} rows is added to every token"
            self.nodes.append(node)
            return
        starts = range(0, len(table_VD), _BLOCK_ROWS)
        blocks = [quantize_symmetrically(table_VD[start : start + _BLOCK_ROWS], axis=1) for start in starts]
        codes_VD, scales_V1 = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        name, output = node.input[0], node.output[0]
        self._constant(f"{name}/int8", codes_VD)
        self._constant(f"{name}/scale", scales_V1)
        self._add("Gather", [f"{name}/int8", node.input[1]], f"{output}/int8", axis=0)
        self._add("Gather", [f"{name}/scale", node.input[1]], f"{output}/scale", axis=0)
        self._add("Cast", [f"{output}/int8"], f"{output}/float", to=TensorProto.FLOAT)
        self._add("Mul", [f"{output}/float", f"{output}/scale"], output)
        self.quantized.append(node.name)

    def _rewrite_matmul(self, node: NodeProto) -> None:
        activations, name = node.input
        output = node.output[0]
        weights_KN = self._values(name) * self.factors[activations][:, None]
        codes_KN, scales_1N = quantize_without_saturation(weights_KN)
        self._constant(f"{name}/int8", codes_KN)
        self._constant(f"{name}/scale", scales_1N)
        shifted = self._is_gelu(activations)
        rows = self._quantize_rows(activations, weights_KN.shape[0], shifted)
        zero = _UNSIGNED_ZERO if shifted else _SIGNED_ZERO
        self._add("MatMulInteger", [f"{rows}/uint8", f"{name}/int8", zero], f"{output}/int32")
        self._add("Cast", [f"{output}/int32"], f"{output}/float", to=TensorProto.FLOAT)
        self._add("Mul", [f"{output}/float", f"{name}/scale"], f"{output}/columns")
        self._add("Mul", [f"{output}/columns", f"{rows}/scale"], f"{output}/rows")
        product = f"{output}/rows"
        if shifted:
            undo_N = undo_shift(self.factors[activations], codes_KN, scales_1N[0])
            self._constant(f"{name}/undo_shift", undo_N)
            self._add("Add", [product, f"{name}/undo_shift"], f"{output}/unshifted")
            product = f"{output}/unshifted"
        self._constant(f"{name}/width", np.array([weights_KN.shape[1]], dtype=np.int64))
        self._add("Concat", [f"{rows}/leading", f"{name}/width"], f"{output}/shape", axis=0)
        self._add("Reshape", [product, f"{output}/shape"], output)
        self.quantized.append(node.name)

    def _quantize_rows(self, activations: str, width: int, shifted: bool) -> str:
        """Adds, once per input, the nodes that turn (..., k) activations into uint8 rows (r, k) with a scale for each.

        Returns the prefix of their names: /uint8 (r, k), /scale (r, 1), /leading (the dimensions before the last).
        """
        if activations in self.quantized_inputs:
            return self.quantized_inputs[activations]
        rows = f"{activations}/rows"
        self._constant(f"{_PREFIX}/last", np.array([-1], dtype=np.int64))
        self._constant(f"{_PREFIX}/first", np.array([0], dtype=np.int64))
        self._constant(f"{_PREFIX}/tiny", np.array(1e-12, dtype=np.float32))
        self._constant(_SIGNED_ZERO, np.array(128, dtype=np.uint8))
        self._constant(_UNSIGNED_ZERO, np.array(0, dtype=np.uint8))
        self._constant(f"{_PREFIX}/flat_{width}", np.array([-1, width], dtype=np.int64))
        self._constant(f"{rows}/level", 1 / self.factors[activations])
        self._add("Reshape", [activations, f"{_PREFIX}/flat_{width}"], f"{rows}/flat")
        if shifted:
            self._constant(f"{_PREFIX}/gelu_minimum", np.array(GELU_SHIFT, dtype=np.float32))
            self._constant(f"{_PREFIX}/one_of_255", np.array(1 / 255, dtype=np.float32))
            self._add("Add", [f"{rows}/flat", f"{_PREFIX}/gelu_minimum"], f"{rows}/shifted")
            self._add("Mul", [f"{rows}/shifted", f"{rows}/level"], f"{rows}/magnitude")
            values, step, zero = f"{rows}/magnitude", f"{_PREFIX}/one_of_255", _UNSIGNED_ZERO
        else:
            self._constant(f"{_PREFIX}/one_of_127", np.array(1 / 127, dtype=np.float32))
            self._add("Mul", [f"{rows}/flat", f"{rows}/level"], f"{rows}/levelled")
            self._add("Abs", [f"{rows}/levelled"], f"{rows}/magnitude")
            values, step, zero = f"{rows}/levelled", f"{_PREFIX}/one_of_127", _SIGNED_ZERO
        self._add("ReduceMax", [f"{rows}/magnitude", f"{_PREFIX}/last"], f"{rows}/largest", keepdims=0)
        self._add("Mul", [f"{rows}/largest", step], f"{rows}/step")
        self._add("Max", [f"{rows}/step", f"{_PREFIX}/tiny"], f"{rows}/scale_1d")
        self._add("Shape", [f"{rows}/scale_1d"], f"{rows}/count")
        self._add("Expand", [zero, f"{rows}/count"], f"{rows}/zero")
        self._add("QuantizeLinear", [values, f"{rows}/scale_1d", f"{rows}/zero"], f"{rows}/uint8", axis=0)
        self._add("Unsqueeze", [f"{rows}/scale_1d", f"{_PREFIX}/last"], f"{rows}/scale")
        self._add("Shape", [activations], f"{rows}/shape")
        self._add("Slice", [f"{rows}/shape", f"{_PREFIX}/first", f"{_PREFIX}/last"], f"{rows}/leading")
        self.quantized_inputs[activations] = rows
        return rows

    def _is_gelu(self, name: str) -> bool:
        """Whether the tensor is exactly (x * (erf(x / c) + 1)) * 0.5, as torch's exporter writes GELU."""
        half = self._factors(name)
        product = self._factors(half[0]) if len(half) == 2 and self._scalar(half[1]) == 0.5 else []
        plus_one = self.producers.get(product[1]) if len(product) == 2 else None
        if plus_one is None or plus_one.op_type != "Add" or self._scalar(plus_one.input[1]) != 1.0:
            return False
        error_function = self.producers.get(plus_one.input[0])
        divided = self.producers.get(error_function.input[0]) if error_function is not None else None
        return (
            error_function is not None
            and divided is not None
            and error_function.op_type == "Erf"
            and divided.op_type == "Div"
            and divided.input[0] == product[0]
        )

    def _factors(self, name: str) -> list[str]:
        node = self.producers.get(name)
        return list(node.input) if node is not None and node.op_type == "Mul" else []

    def _scalar(self, name: str) -> float | None:
        tensor = self.weights.get(name)
        return float(self._values(name)) if tensor is not None and not tensor.dims else None

    def _values(self, name: str) -> NDArray[np.float32]:
        tensor = TensorProto()  # a copy, because older versions of onnx read external data into the tensor itself
        tensor.CopyFrom(self.weights[name])
        values: NDArray[np.float32] = numpy_helper.to_array(tensor, str(self.folder))
        return values

    def _constant(self, name: str, values: NDArray[np.generic]) -> None:
        if name not in self.constants:
            self.constants.add(name)
            self.graph.initializer.append(numpy_helper.from_array(values, name))

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> None:
        node = helper.make_node(operator, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
