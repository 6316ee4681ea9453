"""The parameters in an fp32 ONNX graph, under transformers' names.

PyTorch's exporter keeps the names of embeddings, biases and normalizations. It turns the weights of a product around
and names them onnx::MatMul_123; their node is called after the module: /encoder/layer.0/attention/self/query/MatMul.
Equal tensors are stored once, with an Identity for each other name.
"""

import re
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from gte_sdk.model_files.published import ModelPath
from gte_sdk.runtime.native.description import NotCoveredError
from gte_sdk.runtime.native.onnx_file import ExternalFile, Node, OnnxFile, read_onnx

# The products that an encoder of the family has; the pooler's is not used.
_OWN_PRODUCT = re.compile(r"(^|\.)(layers?\.\d+\.|embeddings_project|pooler\.)")
_ANONYMOUS = re.compile(r"onnx::\w+|val_\d+|\d+")


def read_graph_parameters(path: ModelPath, external_file: ExternalFile) -> dict[str, NDArray[Any]]:
    """The parameters by name. external_file: finds the files that hold weights of the graph outside of it.

    Raises NotCoveredError for a graph with products of other weights than the family has, ValueError for damage.
    """
    graph = read_onnx(path, external_file)
    parameters = dict(graph.weights)
    for node in graph.nodes:
        if node.operator == "Identity" and node.inputs[0] in parameters:
            parameters[node.outputs[0]] = parameters[node.inputs[0]]
    named = dict(_products(graph, parameters))
    if other := [name for name in named if _OWN_PRODUCT.search(name) is None]:
        raise NotCoveredError(f"its product {other[0]} is none of an encoder's")
    return {**parameters, **named}


def _products(graph: OnnxFile, parameters: dict[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and weights (outputs, inputs) of each product with a parameter."""
    for node in graph.nodes:
        if node.operator not in ("MatMul", "Gemm") or len(node.inputs) < 2 or node.inputs[1] not in parameters:
            continue
        weights = parameters[node.inputs[1]]
        if weights.ndim != 2:
            continue
        yield _name_of(node), weights if node.transposes_weights else weights.T


def _name_of(node: Node) -> str:
    if _ANONYMOUS.fullmatch(node.inputs[1]) is None:
        return node.inputs[1]
    return node.name.strip("/").rpartition("/")[0].replace("/", ".") + ".weight"
