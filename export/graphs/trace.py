"""Traces the encoder into an ONNX graph, cleans the graph and checks it.

It uses torch.onnx's tracing exporter with plain ("eager") attention. Its graphs keep the patterns of GELU, layer
normalization and attention that ONNX Runtime fuses when it loads them. The newer exporter rewrites these patterns,
which costs 8 to 17 % of the tokens per second. parity/measure.py finds what tracing could get wrong.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from export.external_data import save_graph
from training.encoders.encoder import (
    AnyEncoder,
    Encoder,
    EncoderOutput,
    Pooling,
    StaticEncoder,
    mean_pool,
    pool_states,
)

OPSET = 18
OUTPUT_NAMES = ("last_hidden_state", "sentence_embedding")
# ONNX Runtime fuses attention only if padding is masked by this sum; transformers 5 builds the mask from comparisons.
_ADDED_MASK_ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")


def list_inputs(encoder: AnyEncoder) -> list[str]:
    """The names of the graph's inputs. token_type_ids is one only if the architecture has segments."""
    names = ["input_ids", "attention_mask"]
    if not isinstance(encoder, StaticEncoder) and getattr(encoder.backbone.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return names


def write_graph(encoder: AnyEncoder, path: Path, opset: int = OPSET) -> None:
    """Writes the encoder, with pooling and unit length, as an ONNX graph with float32 weights.

    The inputs are (n, t) int64 with both dimensions free. The outputs are last_hidden_state (n, t, h) and
    sentence_embedding (n, d). The encoder itself does not change.
    """
    names = list_inputs(encoder)
    traced = _prepare_for_tracing(encoder)
    token_ids_NT = torch.arange(5, 19).reshape(2, 7) % 11 + 1
    attention_mask_NT = torch.ones_like(token_ids_NT)
    attention_mask_NT[1, 4:] = 0
    examples = (token_ids_NT, attention_mask_NT, torch.zeros_like(token_ids_NT))[: len(names)]
    free: dict[str, dict[int, str]] = {name: {0: "batch", 1: "sequence"} for name in (*names, OUTPUT_NAMES[0])}
    free[OUTPUT_NAMES[1]] = {0: "batch"}
    # The exporter writes a file for each weight where they take more than 2 GiB.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, torch.no_grad(), _without_warnings():
        exported = Path(folder) / path.name
        torch.onnx.export(
            traced,
            examples,
            str(exported),
            input_names=names,
            output_names=list(OUTPUT_NAMES),
            dynamic_axes=free,
            opset_version=opset,
            dynamo=False,
        )
        del traced  # its weights would be in memory twice
        model = onnx.load(exported)
    save_clean(model, path, encoder.dim)


def write_pooling(encoder: Encoder, path: Path, opset: int) -> None:
    """Writes what follows the transformer, from last_hidden_state and attention_mask to sentence_embedding (n, d)."""
    names = [OUTPUT_NAMES[0], "attention_mask"]
    mask_NT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    states_NTD = torch.ones(2, 4, int(encoder.backbone.config.hidden_size))  # type: ignore[union-attr, arg-type]
    free = {name: {0: "batch", 1: "sequence"} for name in names} | {OUTPUT_NAMES[1]: {0: "batch"}}
    with torch.no_grad(), _without_warnings():
        torch.onnx.export(
            _Pooling(encoder.pooling, copy.deepcopy(encoder.dense)).float().cpu().eval(),
            (states_NTD, mask_NT),
            str(path),
            input_names=names,
            output_names=[OUTPUT_NAMES[1]],
            dynamic_axes=free,
            opset_version=opset,
            dynamo=False,
        )


def append_pooling(model: onnx.ModelProto, pooling: onnx.ModelProto) -> None:
    """Appends a graph from last_hidden_state and attention_mask to sentence_embedding to one that ends before it."""
    _prefix_names(pooling, "pooling/", keep={*OUTPUT_NAMES, "attention_mask", ""})
    model.graph.node.extend(pooling.graph.node)
    model.graph.initializer.extend(pooling.graph.initializer)
    model.graph.output.extend(pooling.graph.output)


def save_clean(model: onnx.ModelProto, path: Path, dim: int) -> None:
    """Writes a graph of the exporter without what depends on this machine, once it is checked."""
    _give_each_weight_its_own(model.graph)
    _declare_width(model, OUTPUT_NAMES[1], dim)
    for node in model.graph.node:  # they may contain paths of this machine
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    save_graph(model, path)


class _FoldedTable(nn.Module):
    """A static encoder with the token weights folded into the table: the same vectors with one look-up, not two."""

    def __init__(self, table_VD: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table_VD.float().cpu())  # type: ignore[no-untyped-call]

    def forward(self, input_ids_NT: Tensor, attention_mask_NT: Tensor) -> EncoderOutput:
        rows_NTD = self.embedding(input_ids_NT)
        return EncoderOutput(rows_NTD, normalize(mean_pool(rows_NTD, attention_mask_NT), dim=1))


class _Pooling(nn.Module):
    """What follows the transformer in an encoder."""

    def __init__(self, pooling: Pooling, dense: nn.Sequential | None) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.dense = dense

    def forward(self, last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
        return pool_states(last_hidden_state_NTD, attention_mask_NT, self.pooling, self.dense)


def _prepare_for_tracing(encoder: AnyEncoder) -> nn.Module:
    if isinstance(encoder, StaticEncoder):
        return _FoldedTable(encoder.fold_table())
    traced = copy.deepcopy(encoder).float().cpu().eval()
    backbone: Any = traced.backbone
    backbone.set_attn_implementation("eager")
    if backbone.config.model_type in _ADDED_MASK_ARCHITECTURES and _takes_ready_masks(backbone):
        backbone.register_forward_pre_hook(_add_mask, with_kwargs=True)
    return traced


def _takes_ready_masks(backbone: Any) -> bool:
    """Whether transformers uses a (n, 1, 1, t) mask as it is: true of version 5. Version 4.57 makes the same sum."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def _add_mask(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask_N11T: Tensor = keywords["attention_mask"][:, None, None, :].float()
    return arguments, {**keywords, "attention_mask": (1.0 - mask_N11T) * torch.finfo(torch.float32).min}


def _give_each_weight_its_own(graph: onnx.GraphProto) -> None:
    """Gives back the tensors that the exporter merged because they were equal, such as two biases of zeros.

    The exporter leaves Identity nodes with their names. Quantization needs the tensors apart, because it scales a
    weight by the activations that it multiplies, and gte_sdk/runtime/native finds weights by their names.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        graph.node.remove(node)
        own = graph.initializer.add()
        own.CopyFrom(weights[node.input[0]])
        own.name = node.output[0]


def _prefix_names(model: onnx.ModelProto, prefix: str, keep: set[str]) -> None:
    """Prefixes the names of all nodes and tensors but those in `keep`, because the transformer may use the same."""
    for node in model.graph.node:
        node.name = f"{prefix}{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in keep else f"{prefix}{name}" for name in names]
    for tensor in model.graph.initializer:
        tensor.name = f"{prefix}{tensor.name}"


def _declare_width(graph: onnx.ModelProto, output_name: str, width: int) -> None:
    """Declares the dimension of the pooled vectors, which tracing loses and readers need."""
    for output in graph.graph.output:
        if output.name == output_name:
            output.type.tensor_type.shape.dim[-1].ClearField("dim_param")
            output.type.tensor_type.shape.dim[-1].dim_value = width


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences tracing, which warns of every shape it reads and of its own age; parity/measure.py checks the result."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
