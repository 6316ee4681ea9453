"""Ways to run the same weights on a CPU, each from texts to unit vectors; benchmarks/embedding.py times them.

MODEL is a directory of export/to_onnx.py with both precisions, CHECKPOINT what it was made from. Each rival is used as
its documentation shows, on as many threads as it is allowed, and reads as many tokens as MODEL says. Nothing is
imported before it is opened, so that the memory and the start of a process are the rival's own.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

INT8, FP32 = "onnx/model_quantized.onnx", "onnx/model.onnx"
# The batch of what takes one but has no default of its own, as sentence-transformers' is.
BATCH_TEXTS = 32

Embed = Callable[[Sequence[str]], Any]
"""Texts to (n, dim) float32 unit rows."""


class Rival(NamedTuple):
    open: Callable[[Path, Path], Embed]
    slow: bool = False
    """Measured on fewer documents, by its rate."""


def open_gte(model: Path, variant: str, engine: str) -> Embed:
    from gte_sdk import Embedder

    return Embedder(model, variant=variant, engine=engine, truncation="ignore").embed


def open_sentence_transformers(directory: Path, backend: Literal["torch", "onnx", "openvino"]) -> Embed:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"model_kwargs": {"file_name": FP32}} if backend == "onnx" else {}
    model = SentenceTransformer(str(directory), device="cpu", backend=backend, local_files_only=True, **options)
    return lambda texts: np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


def open_fastembed(model: Path, graph: str, batch_size: int) -> Embed:
    """fastembed's default is a batch of 256 texts, padded to the longest of them; a batch of one has no padding."""
    import json

    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/model"),
        dim=json.loads((model / "config.json").read_text())["hidden_size"],
        model_file=graph,
    )
    embedding = TextEmbedding("local/model", specific_model_path=str(model), threads=threads())
    return lambda texts: np.array(list(embedding.embed(list(texts), batch_size=batch_size)))


def open_optimum(model: Path) -> Embed:
    import numpy as np
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    runner = ORTModelForFeatureExtraction.from_pretrained(model, subfolder="onnx", file_name=Path(FP32).name)

    def embed_batch(texts: Sequence[str]) -> Any:
        inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="np")
        states_NTD = runner(**inputs).last_hidden_state
        mask_NT1 = inputs["attention_mask"][:, :, None]
        means_ND = (states_NTD * mask_NT1).sum(axis=1) / mask_NT1.sum(axis=1)
        return (means_ND / np.linalg.norm(means_ND, axis=1, keepdims=True)).astype(np.float32)

    return in_batches(embed_batch)


def open_onnxruntime(model: Path, graph: str) -> Embed:
    """What one writes with the two libraries alone: their defaults, and batches in the order of the texts."""
    import json

    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads((model / "tokenizer_config.json").read_text())["model_max_length"])
    tokenizer.enable_padding()
    session = onnxruntime.InferenceSession(str(model / graph), providers=["CPUExecutionProvider"])
    names = {port.name for port in session.get_inputs()}

    def embed_batch(texts: Sequence[str]) -> Any:
        encodings = tokenizer.encode_batch(list(texts))
        inputs = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
        }
        return session.run(["sentence_embedding"], {name: inputs[name] for name in names})[0]

    return in_batches(embed_batch)


def open_openvino(model: Path, int8: bool) -> Embed:
    """OpenVINO in float32 or in its static int8, calibrated by NNCF on 300 docstrings; batches of 32, by length."""
    import numpy as np
    import openvino

    from benchmarks.embedding_texts import mixed_documents
    from gte_sdk.model_files.directory import read_model_dir
    from gte_sdk.runtime import tokens

    tokenizer, most = tokens.load_tokenizer(model / "tokenizer.json"), read_model_dir(model).max_tokens

    core = openvino.Core()
    graph = core.read_model(model / FP32)
    names = {name for port in graph.inputs for name in port.names}

    def feed(ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {name: array for name, array in tokens.pad_batch(ids)._asdict().items() if name in names}

    if int8:
        import nncf

        graph = nncf.quantize(
            graph,
            nncf.Dataset([feed([row]) for row in tokens.tokenize(tokenizer, mixed_documents(300, seed=9), most).ids]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=300,
        )
    options = {"INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": "LATENCY"}
    if not int8:  # else it computes in bfloat16 on CPUs with AMX
        options["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(graph, "CPU", options)

    def embed(texts: Sequence[str]) -> Any:
        ids = tokens.tokenize(tokenizer, texts, most).ids
        rows_of_batches = tokens.batches_by_tokens([len(row) for row in ids], 1 << 20, BATCH_TEXTS)
        vectors = [(rows, compiled(feed([ids[row] for row in rows]))["sentence_embedding"]) for rows in rows_of_batches]
        in_order = np.empty((len(ids), vectors[0][1].shape[1]), dtype=np.float32)
        for rows, part in vectors:
            in_order[rows] = part
        return in_order

    return embed


def in_batches(embed_batch: Embed) -> Embed:
    import numpy as np

    return lambda texts: np.concatenate(
        [embed_batch(texts[start : start + BATCH_TEXTS]) for start in range(0, len(texts), BATCH_TEXTS)]
    )


def threads() -> int:
    return len(os.sched_getaffinity(0))


RIVALS: dict[str, Rival] = {
    "gte-int8": Rival(lambda model, _: open_gte(model, "int8", "native")),
    "openvino-int8": Rival(lambda model, _: open_openvino(model, int8=True)),
    "gte-fp32": Rival(lambda model, _: open_gte(model, "fp32", "native")),
    "openvino-fp32": Rival(lambda model, _: open_openvino(model, int8=False)),
    "gte-fp32-onnxruntime": Rival(lambda model, _: open_gte(model, "fp32", "onnxruntime")),
    "sentence-transformers": Rival(lambda _, checkpoint: open_sentence_transformers(checkpoint, "torch")),
    "sentence-transformers-onnx": Rival(lambda model, _: open_sentence_transformers(model, "onnx")),
    "sentence-transformers-openvino": Rival(lambda _, checkpoint: open_sentence_transformers(checkpoint, "openvino")),
    "optimum-fp32": Rival(lambda model, _: open_optimum(model), slow=True),
    "onnxruntime-fp32": Rival(lambda model, _: open_onnxruntime(model, FP32), slow=True),
    "onnxruntime-int8": Rival(lambda model, _: open_onnxruntime(model, INT8), slow=True),
    "gte-int8-onnxruntime": Rival(lambda model, _: open_gte(model, "int8", "onnxruntime"), slow=True),
    "fastembed-fp32-batch-1": Rival(lambda model, _: open_fastembed(model, FP32, 1), slow=True),
    "fastembed-fp32-batch-32": Rival(lambda model, _: open_fastembed(model, FP32, 32), slow=True),
    "fastembed-fp32": Rival(lambda model, _: open_fastembed(model, FP32, 256), slow=True),
    "fastembed-int8-batch-1": Rival(lambda model, _: open_fastembed(model, INT8, 1), slow=True),
    "fastembed-int8": Rival(lambda model, _: open_fastembed(model, INT8, 256), slow=True),
}
