"""From a file of a model directory to the description of its encoder, whichever of its forms the weights have."""

from typing import Any

from numpy.typing import NDArray

from gte_sdk.model_files.directory import ModelDir, checked_file
from gte_sdk.model_files.graph_file import WEIGHT_FILES, external_data_names, name_beside
from gte_sdk.model_files.published import CONFIG_JSON, ModelPath, read_json
from gte_sdk.runtime.native.architectures import read_encoder
from gte_sdk.runtime.native.description import EncoderWeights, NotCoveredError
from gte_sdk.runtime.native.int8_graph import read_int8_graph
from gte_sdk.runtime.native.onnx_parameters import read_graph_parameters
from gte_sdk.runtime.native.safetensors_file import map_safetensors

# Poolings of the C++ encoder by their names in a model directory; unit length makes two of them the same.
_POOLINGS = {"mean": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls", "lasttoken": "lasttoken"}


def read_weights(description: ModelDir, name: str, variant: str) -> EncoderWeights:
    """The encoder in one file of a model directory: model.safetensors or its index, an fp32 graph, our int8 graph.

    Its layers are read once, when they are asked for, and it is called again for a second reading. Raises
    NotCoveredError with the reason for anything that is no encoder of the family, ModelFormatError for a file that is
    missing, damaged or changed; the same while layers are read.
    """
    if description.pooling not in _POOLINGS:
        raise NotCoveredError(f"its pooling is {description.pooling!r}; {', '.join(_POOLINGS)} are known")
    pooling = _POOLINGS[description.pooling]
    config = read_json(checked_file(description, CONFIG_JSON))
    path = checked_file(description, name)
    if variant == "int8":
        return read_int8_graph(path, config, pooling)
    if name == WEIGHT_FILES[1]:
        tensors = _read_shards(description, name)
    elif name.endswith(".safetensors"):
        tensors = map_safetensors(path)
    else:
        try:
            tensors = read_graph_parameters(path, lambda location: _external_file(description, name, location))
        except ValueError as error:
            raise NotCoveredError(str(error)) from error  # onnxruntime's message says what is wrong with the file
    return read_encoder(config, tensors, pooling)


def weight_files(description: ModelDir, name: str) -> list[ModelPath]:
    """The file and those that it names, which hold the weights together. Raises ModelFormatError as read_weights."""
    return [checked_file(description, each) for each in (name, *external_data_names(description.path, name))]


def _read_shards(description: ModelDir, name: str) -> dict[str, NDArray[Any]]:
    """The tensors of all files that the index names."""
    tensors: dict[str, NDArray[Any]] = {}
    for file in weight_files(description, name)[1:]:
        tensors.update(map_safetensors(file))
    return tensors


def _external_file(description: ModelDir, name: str, location: str) -> ModelPath:
    return checked_file(description, name_beside(description.path, name, location))
