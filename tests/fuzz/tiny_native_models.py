"""Tiny models that the native engine runs: a BERT of two layers and a table of tokens, in the wiring of our export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

import gte_sdk
from gte_sdk.model_files.directory import write_gte_json

HIDDEN, HEADS, FEED_FORWARD, LAYERS, VOCABULARY, POSITIONS = 64, 4, 128, 2, 120, 32
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS, "intermediate_size": FEED_FORWARD, "layer_norm_eps": 1e-12, "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip


def write_tiny_bert(path: Path) -> Path:
    _write(path, _bert(), CONFIG)
    return path


def write_tiny_table(path: Path) -> Path:
    """The bundled gte-nano with the first tokens of its table."""
    nano = Path(gte_sdk.__file__).parent / "models" / "gte-nano"
    model = onnx.load(str(nano / "onnx" / "model_quantized.onnx"))
    config = json.loads((nano / "config.json").read_text(encoding="utf-8"))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim >= 1 and len(array) == config["vocab_size"]:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:VOCABULARY]), tensor.name))
    _write(path, model, {**config, "vocab_size": VOCABULARY})
    return path


def describe(path: Path, dim: int) -> Path:
    """Adds gte.json, which makes it a directory of our own export."""
    write_gte_json(
        path, name="tiny", dim=dim, max_tokens=POSITIONS, pooling="mean", prompts={"query": "q: "},
        fingerprint="sha256:" + "0" * 64, licence="Apache-2.0", provenance={}, matryoshka_dims=[dim, 32],
    )  # fmt: skip
    return path


def _write(path: Path, model: Any, config: dict[str, Any]) -> None:
    (path / "onnx").mkdir(parents=True)
    (path / "onnx" / "model_quantized.onnx").write_bytes(model.SerializeToString())
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}', encoding="utf-8")
    _tokenizer().save(str(path / "tokenizer.json"))


def _tokenizer() -> Tokenizer:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *letters, *(f"##{letter}" for letter in letters), *"0123456789.,!?-"]
    words += [f"w{number}" for number in range(VOCABULARY - len(words))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def _bert() -> Any:
    random = np.random.default_rng(0)

    def floats(*shape: int, mean: float = 0.0) -> NDArray[np.float32]:
        return (mean + random.normal(0, 0.1, shape)).astype(np.float32)

    def codes(*shape: int) -> NDArray[np.int8]:
        return random.integers(-127, 128, shape).astype(np.int8)

    weights: dict[str, NDArray[Any]] = {
        "embeddings.word_embeddings.weight/int8": codes(VOCABULARY, HIDDEN),
        "embeddings.word_embeddings.weight/scale": np.abs(floats(VOCABULARY, 1)) + np.float32(0.001),
        "embeddings.position_embeddings.weight": floats(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": floats(2, HIDDEN),
        "embeddings.LayerNorm.weight": floats(HIDDEN, mean=1),
        "embeddings.LayerNorm.bias": floats(HIDDEN),
    }
    products = {
        "attention/self/query": (HIDDEN, HIDDEN), "attention/self/key": (HIDDEN, HIDDEN),
        "attention/self/value": (HIDDEN, HIDDEN), "attention/output/dense": (HIDDEN, HIDDEN),
        "intermediate/dense": (HIDDEN, FEED_FORWARD), "output/dense": (FEED_FORWARD, HIDDEN),
    }  # fmt: skip
    nodes = []
    for layer in range(LAYERS):
        for part, (width, outputs) in products.items():
            name = f"product{layer}.{part}"
            weights[f"{name}/int8"] = codes(width, outputs)
            weights[f"{name}/scale"] = np.abs(floats(outputs)) * np.float32(0.01) + np.float32(1e-4)
            weights[f"encoder.layer.{layer}.{part.replace('/', '.')}.bias"] = floats(outputs)
            weights[f"input{layer}.{part}/level"] = np.abs(floats(width)) + np.float32(1)
            zero = "gte_int8/zero_0" if part == "output/dense" else "gte_int8/zero_128"
            product = f"/encoder/layer.{layer}/{part}/MatMul_output_0/int32"
            steps = f"input{layer}.{part}/uint8"
            nodes.append(helper.make_node("MatMulInteger", [steps, f"{name}/int8", zero], [product]))
        for part in ("attention.output", "output"):
            weights[f"encoder.layer.{layer}.{part}.LayerNorm.weight"] = floats(HIDDEN, mean=1)
            weights[f"encoder.layer.{layer}.{part}.LayerNorm.bias"] = floats(HIDDEN)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")
    ]
    states = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", HIDDEN])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [states], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
