"""The encoder as an ONNX graph: traced, cleaned, checked.

torch.onnx's tracing exporter is used, with plain ("eager") attention: its graphs keep the GELU, LayerNormalization and
attention patterns that ONNX Runtime fuses when it loads them, where the newer exporter rewrites them out of recognition
(measured: 8 to 17 % fewer tokens per second). What tracing could get wrong is what parity.py measures.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.encoders.encoder import AnyEncoder, EncoderOutput, StaticEncoder, mean_pool

OPSET = 18
OUTPUT_NAMES = ("last_hidden_state", "sentence_embedding")
# ONNX Runtime fuses attention where padding is hidden by this sum; transformers 5 builds it from comparisons instead.
_ADDED_MASK_ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")


def list_inputs(encoder: AnyEncoder) -> list[str]:
    """The graph's inputs: token_type_ids only where the architecture tells segments apart."""
    names = ["input_ids", "attention_mask"]
    if not isinstance(encoder, StaticEncoder) and getattr(encoder.backbone.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return names


def write_graph(encoder: AnyEncoder, path: Path, opset: int = OPSET) -> None:
    """Writes the encoder, pooling and unit length included, as one ONNX file of float32 weights.

    Inputs (n, t) int64 with both dimensions free; outputs last_hidden_state (n, t, h) and sentence_embedding (n, d).
    The encoder itself is left as it is.
    """
    names = list_inputs(encoder)
    traced = _prepare_for_tracing(encoder)
    token_ids_NT = torch.arange(5, 19).reshape(2, 7) % 11 + 1
    attention_mask_NT = torch.ones_like(token_ids_NT)
    attention_mask_NT[1, 4:] = 0
    examples = (token_ids_NT, attention_mask_NT, torch.zeros_like(token_ids_NT))[: len(names)]
    free: dict[str, dict[int, str]] = {name: {0: "batch", 1: "sequence"} for name in (*names, OUTPUT_NAMES[0])}
    free[OUTPUT_NAMES[1]] = {0: "batch"}
    with torch.no_grad(), _without_warnings():
        torch.onnx.export(
            traced,
            examples,
            str(path),
            input_names=names,
            output_names=list(OUTPUT_NAMES),
            dynamic_axes=free,
            opset_version=opset,
            dynamo=False,
        )
    graph = onnx.load(path)
    _give_each_weight_its_own(graph.graph)
    _declare_width(graph, OUTPUT_NAMES[1], encoder.dim)
    for node in graph.graph.node:  # they may hold paths of this machine
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


class _FoldedTable(nn.Module):
    """A static encoder with the token weights in the table: the same vectors from one look-up instead of two."""

    def __init__(self, table_VD: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table_VD.float().cpu())  # type: ignore[no-untyped-call]

    def forward(self, input_ids_NT: Tensor, attention_mask_NT: Tensor) -> EncoderOutput:
        rows_NTD = self.embedding(input_ids_NT)
        return EncoderOutput(rows_NTD, normalize(mean_pool(rows_NTD, attention_mask_NT), dim=1))


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
    """True for transformers 5, which uses a (n, 1, 1, t) mask as it is. 4.57 makes the same sum by itself."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def _add_mask(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask_N11T: Tensor = keywords["attention_mask"][:, None, None, :].float()
    return arguments, {**keywords, "attention_mask": (1.0 - mask_N11T) * torch.finfo(torch.float32).min}


def _give_each_weight_its_own(graph: onnx.GraphProto) -> None:
    """Undoes the exporter's merging of equal tensors, such as two biases of zeros, into one and Identity nodes.

    Quantization gives a weight the factors of the activations that it meets, which are not those of its twin, and
    gte_sdk/runtime/native.py knows weights by their names: the Identity nodes have them.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        graph.node.remove(node)
        own = graph.initializer.add()
        own.CopyFrom(weights[node.input[0]])
        own.name = node.output[0]


def _declare_width(graph: onnx.ModelProto, output_name: str, width: int) -> None:
    """Tracing loses the width of the pooled vectors; readers take the model's dimension from it."""
    for output in graph.graph.output:
        if output.name == output_name:
            output.type.tensor_type.shape.dim[-1].ClearField("dim_param")
            output.type.tensor_type.shape.dim[-1].dim_value = width


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Tracing warns of every shape it looks at and of its own age; parity.py judges its result by numbers instead."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
