"""Look-alikes of the family: model directories of each architecture with random weights, made without PyTorch.

They are what the Hub has: config.json, model.safetensors under transformers' names, a tokenizer, a pooling. Their
configurations differ in what an architecture may differ in: activations, position offsets, windows, rotary bases.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

Tensors = dict[str, NDArray[np.float32]]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

VOCABULARY, HIDDEN, WIDE, LAYERS, MOST_TOKENS = 97, 64, 128, 2, 512
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
          "num_attention_heads": 4, "max_position_embeddings": MOST_TOKENS}  # fmt: skip
_OFFSET = {**_SIZES, "max_position_embeddings": MOST_TOKENS + 2, "pad_token_id": 1}
_ROTARY = {"num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
           "sep_token_id": 3}  # fmt: skip

CONFIGURATIONS: Mapping[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **_SIZES},
    "bert, tanh": {"model_type": "bert", **_SIZES, "hidden_act": "gelu_new", "type_vocab_size": 1},
    "bert, relu": {"model_type": "bert", **_SIZES, "hidden_act": "relu", "layer_norm_eps": 1e-3},
    "roberta": {"model_type": "roberta", **_OFFSET, "layer_norm_eps": 1e-5},
    "roberta, padding 4": {"model_type": "roberta", **_OFFSET, "max_position_embeddings": 517, "pad_token_id": 4},
    "xlm-roberta": {"model_type": "xlm-roberta", **_OFFSET, "type_vocab_size": 1, "hidden_act": "gelu_pytorch_tanh"},
    "camembert": {"model_type": "camembert", **_OFFSET},
    "distilbert": {"model_type": "distilbert", "vocab_size": VOCABULARY, "dim": HIDDEN, "hidden_dim": WIDE,
                   "n_layers": LAYERS, "n_heads": 4, "max_position_embeddings": MOST_TOKENS},
    "mpnet": {"model_type": "mpnet", **_OFFSET, "layer_norm_eps": 1e-5},
    "electra": {"model_type": "electra", **_SIZES, "embedding_size": 128},
    "electra, one width": {"model_type": "electra", **_SIZES, "embedding_size": HIDDEN},
    "modernbert": {"model_type": "modernbert", **_SIZES, **_ROTARY, "local_attention": 16,
                   "global_rope_theta": 80000.0, "local_rope_theta": 5000.0},
    "modernbert, biases": {"model_type": "modernbert", **_SIZES, **_ROTARY, "local_attention": 128, "norm_bias": True,
                           "attention_bias": True, "mlp_bias": True, "hidden_activation": "silu",
                           "global_attn_every_n_layers": 2},
    "gte": {"model_type": "gte", **_SIZES, "type_vocab_size": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
    "gte, linear": {"model_type": "gte", **_SIZES, "type_vocab_size": 0, "hidden_act": "gelu_new",
                    "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}},
    "new": {"model_type": "new", **_SIZES, "type_vocab_size": 0, "pack_qkv": True, "rope_theta": 500000.0,
            "rope_scaling": {"type": "ntk", "factor": 2.0}},
    # Widths that the kernels pad: heads of 12, 20, 10 and 6, and of 7, which have no halves.
    "bert, narrow": {"model_type": "bert", **_SIZES, "hidden_size": 48, "intermediate_size": 100},
    "mpnet, heads of 7": {"model_type": "mpnet", **_OFFSET, "hidden_size": 35, "num_attention_heads": 5,
                          "intermediate_size": 70, "layer_norm_eps": 1e-5},
    "electra, narrow": {"model_type": "electra", **_SIZES, "hidden_size": 100, "num_attention_heads": 5,
                        "embedding_size": 24},
    "modernbert, narrow": {"model_type": "modernbert", **_SIZES, **_ROTARY, "hidden_size": 30, "intermediate_size": 50,
                           "num_attention_heads": 3, "local_attention": 20},
    "gte, narrow": {"model_type": "gte", **_SIZES, "hidden_size": 72, "intermediate_size": 72, "type_vocab_size": 0,
                    "num_attention_heads": 12, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
}  # fmt: skip


def write_look_alike(path: Path, name: str = "bert", pooling: str = "mean", dtype: str = "F32", **config: Any) -> Path:
    """The model directory of a key of CONFIGURATIONS. config: keys to change. dtype: how safetensors names it."""
    path.mkdir(parents=True, exist_ok=True)
    fields = {**CONFIGURATIONS[name], **config}
    (path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    write_safetensors(path / "model.safetensors", random_tensors(fields), dtype)
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}), encoding="utf-8")
    padding = fields.get("pad_token_id", 0)
    write_tokenizer(path / "tokenizer.json", padding)
    return path


def write_tokenizer(path: Path, padding: int = 0) -> None:
    """Words "w0", "w1", ... have these ids; [CLS] is 95, [SEP] is 96."""
    words = {f"w{index}": index for index in range(VOCABULARY - 2) if index != padding}
    tokenizer = Tokenizer(WordLevel({**words, "[PAD]": padding, "[CLS]": 95, "[SEP]": 96}, unk_token="w7"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment, unused-ignore]
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment, unused-ignore]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 95), ("[SEP]", 96)]
    )
    tokenizer.save(str(path))


def random_texts(lengths: list[int], seed: int = 5) -> list[str]:
    """Texts of that many tokens each, [CLS] and [SEP] included."""
    choose = np.random.default_rng(seed)
    return [" ".join(f"w{index}" for index in choose.integers(7, 95, length - 2)) for length in lengths]


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, position = [], 0
    for name, array in tensors.items():
        content = _bytes_of(array, dtype)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [position, position + len(content)]}
        parts.append(content)
        position += len(content)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))


def _bytes_of(array: NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2").tobytes()
    return array.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def random_tensors(config: Mapping[str, Any], seed: int = 11) -> Tensors:
    """The parameters of an encoder, of a size that makes tokens tell texts apart."""
    numbers = np.random.default_rng(seed)
    tensors = {}
    for name, shape in _SHAPES[config["model_type"]](config):
        size = 0.4 if "embeddings" in name else 0.15 if len(shape) > 1 else 0.1
        is_norm = "norm" in name.lower() or "_ln." in name
        centre = 1.0 if is_norm and name.endswith("weight") and len(shape) == 1 else 0.0
        tensors[name] = (centre + size * numbers.standard_normal(shape)).astype(np.float32)
    return tensors


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _widths(config: Mapping[str, Any]) -> tuple[int, int]:
    """Of the hidden states and of the feed-forward; DistilBERT has names of its own."""
    return config.get("hidden_size", HIDDEN), config.get("intermediate_size", WIDE)


def _absolute(config: Mapping[str, Any], layer: str, parts: list[str], types: int) -> Shapes:
    """BERT and its relatives. parts: query, key, value, output, its norm, both of the feed-forward, its norm."""
    hidden, wide = _widths(config)
    width = config.get("embedding_size", hidden)
    yield "embeddings.word_embeddings.weight", (VOCABULARY, width)
    yield "embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    if types:
        yield "embeddings.token_type_embeddings.weight", (types, width)
    yield from _norm("embeddings.LayerNorm", width)
    if width != hidden:
        yield from _linear("embeddings_project", hidden, width)
    for index in range(config.get("num_hidden_layers", LAYERS)):
        query, key, value, output, norm, to_wide, from_wide, last_norm = (layer.format(index) + part for part in parts)
        for name in (query, key, value, output):
            yield from _linear(name, hidden, hidden)
        yield from _norm(norm, hidden)
        yield from _linear(to_wide, wide, hidden)
        yield from _linear(from_wide, hidden, wide)
        yield from _norm(last_norm, hidden)


def _bert(config: Mapping[str, Any]) -> Shapes:
    parts = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
             "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]  # fmt: skip
    return _absolute(config, "encoder.layer.{}.", parts, config.get("type_vocab_size", 2))


def _distilbert(config: Mapping[str, Any]) -> Shapes:
    parts = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm",
             "ffn.lin1", "ffn.lin2", "output_layer_norm"]  # fmt: skip
    return _absolute(config, "transformer.layer.{}.", parts, 0)


def _mpnet(config: Mapping[str, Any]) -> Shapes:
    parts = ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "attention.LayerNorm",
             "intermediate.dense", "output.dense", "output.LayerNorm"]  # fmt: skip
    yield from _absolute(config, "encoder.layer.{}.", parts, 0)
    yield "encoder.relative_attention_bias.weight", (32, config["num_attention_heads"])


def _modernbert(config: Mapping[str, Any]) -> Shapes:
    norm_bias, attention_bias, mlp_bias = (
        config.get(key, False) for key in ("norm_bias", "attention_bias", "mlp_bias")
    )
    hidden, wide = _widths(config)
    yield "embeddings.tok_embeddings.weight", (VOCABULARY, hidden)
    yield from _norm("embeddings.norm", hidden, norm_bias)
    for index in range(config["num_hidden_layers"]):
        at = f"layers.{index}."
        yield from _linear(f"{at}attn.Wqkv", 3 * hidden, hidden, attention_bias)
        yield from _linear(f"{at}attn.Wo", hidden, hidden, attention_bias)
        if index:
            yield from _norm(f"{at}attn_norm", hidden, norm_bias)
        yield from _norm(f"{at}mlp_norm", hidden, norm_bias)
        yield from _linear(f"{at}mlp.Wi", 2 * wide, hidden, mlp_bias)
        yield from _linear(f"{at}mlp.Wo", hidden, wide, mlp_bias)
    yield from _norm("final_norm", hidden, norm_bias)


def _new(config: Mapping[str, Any]) -> Shapes:
    hidden, wide = _widths(config)
    yield "embeddings.word_embeddings.weight", (VOCABULARY, hidden)
    if config["type_vocab_size"]:
        yield "embeddings.token_type_embeddings.weight", (config["type_vocab_size"], hidden)
    yield from _norm("embeddings.LayerNorm", hidden)
    for index in range(config.get("num_hidden_layers", LAYERS)):
        at = f"encoder.layer.{index}."
        if config.get("pack_qkv", True):
            yield from _linear(f"{at}attention.qkv_proj", 3 * hidden, hidden)
        else:
            for part in "qkv":
                yield from _linear(f"{at}attention.{part}_proj", hidden, hidden)
        yield from _linear(f"{at}attention.o_proj", hidden, hidden)
        yield from _norm(f"{at}attn_ln", hidden)
        yield from _linear(f"{at}mlp.up_gate_proj", 2 * wide, hidden, bias=False)
        yield from _linear(f"{at}mlp.down_proj", hidden, wide)
        yield from _norm(f"{at}mlp_ln", hidden)


_SHAPES = {
    "bert": _bert, "roberta": _bert, "xlm-roberta": _bert, "camembert": _bert, "electra": _bert,
    "distilbert": _distilbert, "mpnet": _mpnet, "modernbert": _modernbert, "gte": _new, "new": _new,
}  # fmt: skip
