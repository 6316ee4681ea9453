"""Converts an fp32 graph to fp16 for GPUs: half the size and about twice the speed there, far slower on a CPU.

The transformer computes in float16. Pooling and unit length stay in float32, so that vectors have unit length to the
last digit. Inputs and outputs keep their types.
"""

from pathlib import Path

import onnx
from onnx.utils import Extractor
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graphs.trace import OUTPUT_NAMES, append_pooling


def convert_to_half(source: Path, target: Path) -> None:
    """Writes the fp16 version of the fp32 graph `source` to `target`."""
    model = onnx.load(source)
    hidden, sentence = OUTPUT_NAMES
    inputs = [node.name for node in model.graph.input]
    half = convert_float_to_float16(Extractor(model).extract_model(inputs, [hidden]), keep_io_types=True)
    # The converter does not see these nodes, because it rounds every value between two nodes that it leaves in float32.
    pooling = Extractor(model).extract_model([hidden, "attention_mask"], [sentence])
    append_pooling(half, pooling)
    onnx.checker.check_model(half)
    onnx.save(half, target)
