"""Tiny real models for the tests: a token table as an ONNX graph, so that every vector can be computed by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "fast", "slow", "query", "document", ":"]
DIM = 5
TABLE = np.random.default_rng(7).standard_normal((len(WORDS), DIM)).astype(np.float32)


def write_tiny_model(
    path: Path,
    *,
    pooling: str = "mean",
    output: str = "last_hidden_state",
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    graph_name: str = "onnx/model.onnx",
    prompts: dict[str, str] | None = None,
    matryoshka_dims: Sequence[int] = (),
    table: NDArray[np.float32] = TABLE,
) -> Path:
    """A Hub-like directory without gte.json; `output` is last_hidden_state, or sentence_embedding, the plain sum."""
    (path / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (path / graph_name).parent.mkdir(exist_ok=True)
    tiny_tokenizer().save(str(path / "tokenizer.json"))
    # No architecture of the native engine, so that the graph is what runs.
    write_json(path / "config.json", {"model_type": "albert", "hidden_size": DIM, "max_position_embeddings": 32})
    write_json(path / "1_Pooling" / "config.json", {"pooling_mode": pooling})
    write_json(
        path / "config_sentence_transformers.json", {"prompts": prompts or {}, "matryoshka_dims": [*matryoshka_dims]}
    )
    onnx.save(table_graph(output, inputs, table), str(path / graph_name))
    return path


def table_graph(output: str, inputs: tuple[str, ...], table: NDArray[np.float32] = TABLE) -> Any:
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["tokens"])]
    if output == "sentence_embedding":
        nodes.append(helper.make_node("ReduceSum", ["tokens", "axis"], [output], keepdims=0))
        shape: list[str | int] = ["batch", DIM]
    else:
        nodes.append(helper.make_node("Identity", ["tokens"], [output]))
        shape = ["batch", "sequence", DIM]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment, unused-ignore]
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment, unused-ignore]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # A tokenizer.json may carry its own padding and truncation; the SDK must not follow them.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20, pad_id=0, pad_token="[PAD]")
    return tokenizer


def tiny_vector(words: str, pooling: str = "mean") -> NDArray[np.float64]:
    """The vector of a text in float64, straight from the definition: pool [CLS] words [SEP], then unit length."""
    ids = [2, *(WORDS.index(word) if word in WORDS else 1 for word in words.split()), 3]
    rows = TABLE[ids].astype(np.float64)
    pooled = {
        "mean": rows.mean(axis=0),
        "cls": rows[0],
        "lasttoken": rows[-1],
        "max": rows.max(axis=0),
        "weightedmean": np.average(rows, axis=0, weights=range(1, len(rows) + 1)),
        "mean_sqrt_len_tokens": rows.sum(axis=0) / len(rows) ** 0.5,
        "sum": rows.sum(axis=0),
    }[pooling]
    return np.asarray(pooled / np.linalg.norm(pooled))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
