"""fp32 graph to fp16, for GPUs: half the file, about twice the speed there, and far slower than fp32 on a CPU.

The transformer computes in float16. What follows it, pooling and unit length, stays in float32, so that the rows have
unit length to the last digit; inputs and outputs keep their types.
"""

from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.utils import Extractor
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graphs.trace import OUTPUT_NAMES


def convert_to_half(source: Path, target: Path) -> None:
    """Writes the fp16 version of the fp32 graph `source` to `target`."""
    model = onnx.load(source)
    hidden, sentence = OUTPUT_NAMES
    inputs = [node.name for node in model.graph.input]
    half = convert_float_to_float16(Extractor(model).extract_model(inputs, [hidden]), keep_io_types=True)
    # The converter would round every value between two nodes that it is told to leave alone: it does not see these.
    pooling = Extractor(model).extract_model([hidden, "attention_mask"], [sentence])
    _rename(pooling, keep={hidden, "attention_mask", sentence, ""})
    half.graph.node.extend(pooling.graph.node)
    half.graph.initializer.extend(pooling.graph.initializer)
    half.graph.output.extend(pooling.graph.output)
    onnx.checker.check_model(half)
    onnx.save(half, target)


def _rename(model: ModelProto, keep: set[str]) -> None:
    """Puts a prefix before the names of all nodes and tensors but `keep`: the transformer may have the same."""
    for node in model.graph.node:
        node.name = f"pooling/{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in keep else f"pooling/{name}" for name in names]
    for tensor in model.graph.initializer:
        tensor.name = f"pooling/{tensor.name}"
