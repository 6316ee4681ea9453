"""Graphs of architectures that trace.py does not cover, by optimum-onnx, with our pooling and unit length at their end.

optimum knows how to trace many more architectures: relative positions, decoders, encoders of encoder-decoders. It pins
transformers below 4.58, so it is an extra of its own. Its graph ends in last_hidden_state; the same pooling as in
training is traced alone and appended. parity/measure.py judges the whole as it judges ours.
"""

import copy
import logging
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from export.graphs.trace import OUTPUT_NAMES, append_pooling, save_clean, write_pooling
from gte_sdk.errors import ModelFormatError
from gte_sdk.runtime.tokens import TokenBatch
from training.encoders.encoder import Encoder

INSTALL = "pip install '.[optimum]'"
_TASK = "feature-extraction"


def check_optimum(model_type: str) -> None:
    """Raises ModelFormatError without the extra, and for an architecture that optimum does not know."""
    _find_export_configuration(model_type)


def write_optimum_graph(encoder: Encoder, path: Path, opset: int) -> None:
    """Writes the encoder as an ONNX graph with float32 weights, as trace.write_graph does.

    Raises ModelFormatError if optimum fails, or its graph has other inputs than token ids, mask and segments.
    """
    backbone: Any = copy.deepcopy(encoder.backbone).float().cpu().eval()
    make_configuration = _find_export_configuration(backbone.config.model_type)
    from optimum.exporters.onnx import export

    configuration = make_configuration(backbone.config)
    if hasattr(configuration, "with_behavior"):  # an encoder-decoder: only its encoder embeds
        configuration = configuration.with_behavior("encoder")
    level = logging.getLogger("optimum").level
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            parts = [Path(folder) / f"{part}.onnx" for part in ("states", "pooling")]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of every shape that tracing reads; parity checks the result
                export(backbone, configuration, parts[0], opset=opset)
            write_pooling(encoder, parts[1], opset)
            model, pooling = (onnx.load(part) for part in parts)
    except Exception as error:  # optimum's, PyTorch's and onnx's own exceptions share no narrower base
        raise ModelFormatError(
            f"optimum-onnx {version('optimum-onnx')} failed to export {backbone.config.model_type!r}: {error!r}"
        ) from error
    finally:
        logging.getLogger("optimum").setLevel(level)
    _take_states_only(model, path)
    append_pooling(model, pooling)
    save_clean(model, path, encoder.dim)


def _find_export_configuration(model_type: str) -> Any:
    """optimum's constructor of the export configuration of an architecture."""
    try:
        import optimum.exporters.onnx.model_configs  # noqa: F401  registers the architectures
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise ModelFormatError(
            f"--exporter optimum needs optimum-onnx ({error}); in an environment of its own, because it needs "
            f"transformers below 4.58, from the checkout: {INSTALL}"
        ) from error
    try:
        return TasksManager.get_exporter_config_constructor(
            "onnx", task=_TASK, model_type=model_type, library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise ModelFormatError(
            f"optimum-onnx {version('optimum-onnx')} does not know how to export {model_type!r}: {error}"
        ) from error


def _number_positions(graph: onnx.GraphProto) -> None:
    """Counts the positions inside the graph, from 0, where optimum makes them an input, as it does for decoders."""
    for value in [value for value in graph.input if value.name == "position_ids"]:
        graph.input.remove(value)
        one = helper.make_tensor("positions/one", TensorProto.INT64, [1], [1])
        nodes = [
            helper.make_node("Shape", ["input_ids"], ["positions/shape"]),
            helper.make_node("ConstantOfShape", ["positions/shape"], ["positions/ones"], value=one),
            helper.make_node("CumSum", ["positions/ones", "positions/axis"], ["position_ids"], exclusive=1),
        ]
        for place, node in enumerate(nodes):
            graph.node.insert(place, node)
        graph.initializer.append(helper.make_tensor("positions/axis", TensorProto.INT64, [], [1]))


def _take_states_only(model: onnx.ModelProto, path: Path) -> None:
    """Leaves last_hidden_state as the only output, with the names of our dimensions."""
    _number_positions(model.graph)
    inputs = [value.name for value in model.graph.input]
    if not {"input_ids", "attention_mask"} <= set(inputs) <= set(TokenBatch._fields):
        raise ModelFormatError(f"{path}: optimum's graph has the inputs {inputs} where {TokenBatch._fields} belong")
    states = [value for value in model.graph.output if value.name == OUTPUT_NAMES[0]]
    if len(states) != 1:
        raise ModelFormatError(f"{path}: optimum's graph has no output {OUTPUT_NAMES[0]}")
    kept = copy.deepcopy(states[0])
    del model.graph.output[:]
    model.graph.output.append(kept)
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("batch", "sequence"), strict=False):
            dimension.dim_param = name
