"""The clients that compare.py runs, each used as its own documentation does, in an environment of its own.

python clients.py CLIENT MODEL PRECISION TEXTS.json ANSWER.json
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


def sentence_transformers_torch(checkpoint: str, precision: str, texts: list[str]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(checkpoint, device="cpu").encode(texts)


def sentence_transformers_onnx(model: str, precision: str, texts: list[str]) -> Any:
    from sentence_transformers import SentenceTransformer

    options = {"file_name": FILES[precision], "provider": "CPUExecutionProvider"}
    return SentenceTransformer(model, device="cpu", backend="onnx", model_kwargs=options).encode(texts)


def optimum(model: str, precision: str, texts: list[str]) -> Any:
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    folder, file = FILES[precision].split("/")
    network = ORTModelForFeatureExtraction.from_pretrained(model, subfolder=folder, file_name=file)
    inputs = AutoTokenizer.from_pretrained(model)(texts, padding=True, truncation=True, return_tensors="np")
    hidden, mask = network(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
    return _unit((hidden * mask).sum(axis=1) / mask.sum(axis=1))


def fastembed(model: str, precision: str, texts: list[str]) -> Any:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"local/model-{precision}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=json.loads((Path(model) / "gte.json").read_text(encoding="utf-8"))["dim"],
        model_file=FILES[precision],
    )
    return list(TextEmbedding(name, specific_model_path=model).embed(texts))


def onnxruntime(model: str, precision: str, texts: list[str]) -> Any:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    limit = json.loads((Path(model) / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    tokenizer.enable_truncation(limit)
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(texts)
    session = onnxruntime.InferenceSession(f"{model}/{FILES[precision]}", providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    inputs = {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
    }
    return session.run(["sentence_embedding"], {name: inputs[name] for name in inputs if name in wanted})[0]


CLIENTS: dict[str, tuple[Callable[[str, str, list[str]], Any], str]] = {
    "sentence_transformers_torch": (sentence_transformers_torch, "sentence-transformers"),
    "sentence_transformers_onnx": (sentence_transformers_onnx, "sentence-transformers"),
    "optimum": (optimum, "optimum-onnx"),
    "fastembed": (fastembed, "fastembed"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    client, model, precision, texts, answer = sys.argv[1:]
    embed, package = CLIENTS[client]
    vectors = np.asarray(embed(model, precision, json.loads(Path(texts).read_text(encoding="utf-8"))))
    reply = {"version": version(package), "vectors": vectors.astype(float).tolist()}
    Path(answer).write_text(json.dumps(reply), encoding="utf-8")


if __name__ == "__main__":
    main()
