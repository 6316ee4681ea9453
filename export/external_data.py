"""Graphs of more than 2 GiB: ONNX's external data, because a protobuf message holds no more.

The weights are in one file beside the graph, under the name that optimum and transformers.js give it:
model.onnx_data beside model.onnx. gte.json records its hash as that of every file, and the runtime checks both.
"""

import math
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from gte_sdk.model_files.graph_file import external_locations

# protobuf's limit, less what a graph without its weights takes.
LARGEST_FILE = 2**31 - 2**23
# Smaller tensors stay in the graph, where readers look for shapes and axes.
_LEAST_BYTES = 1024


def exceeds_one_file(weight_bytes: int) -> bool:
    """Whether weights of so many bytes need a file of their own."""
    return weight_bytes > LARGEST_FILE


def has_external_data(graph: Path) -> bool:
    return bool(external_locations(graph))


def save_graph(model: ModelProto, path: Path) -> None:
    """Writes a graph whose weights are in memory, once it is checked, as one file or with external data.

    `model` is without its weights afterwards if they are external.
    """
    data = _data_file(path)
    data.unlink(missing_ok=True)  # or the weights would be written behind the old ones
    if not exceeds_one_file(sum(map(_tensor_bytes, model.graph.initializer))):
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=_LEAST_BYTES)
    onnx.checker.check_model(path)


def optimize_graph(source: Path, target: Path) -> None:
    """Writes a graph with external data with its constants folded, by ONNX Runtime, and with external data again."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _data_file(target).name)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def take_weights_in(model: ModelProto, folder: Path) -> None:
    """Reads the external weights of a graph that was loaded from `folder` without them."""
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT  # older versions of onnx leave these
            del tensor.external_data[:]


def remove_graph(graph: Path) -> None:
    """Removes a graph that save_graph wrote."""
    graph.unlink()
    _data_file(graph).unlink(missing_ok=True)


def graph_bytes(graph: Path) -> int:
    """Bytes of a graph that save_graph wrote, with its weights."""
    return sum(file.stat().st_size for file in (graph, _data_file(graph)) if file.is_file())


def _data_file(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}_data")


def _tensor_bytes(tensor: TensorProto) -> int:
    # len(tensor.raw_data) would copy the data.
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
