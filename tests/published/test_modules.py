"""Look-alikes with any module of sentence-transformers: its vectors, or a refusal that names the module."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)

from gte_sdk import Embedder, InputError, ModelFormatError

from . import conftest
from .conftest import DIM

TEXTS = ["how do I read a file", "The RED Cafe, fast!", "", "the [PAD] file", "[PAD]"]
MakeTransformer = Callable[[str], conftest.Transformer]
Behind = Callable[[], list[Any]]


@pytest.fixture
def publish(tmp_path: Path, make_transformer: MakeTransformer) -> Callable[..., Path]:
    """A function that saves a transformer, and what is behind it, with a graph that ends with the transformer."""

    def save(behind: Behind, architecture: str = "bert", **arguments: Any) -> Path:
        transformer = make_transformer(architecture)
        torch.manual_seed(6)
        modules = [Transformer(str(transformer.directory)), *behind()]
        SentenceTransformer(modules=modules, device="cpu", **arguments).save(str(tmp_path / "model"))
        (tmp_path / "model" / "onnx").mkdir()
        shutil.copy(transformer.graph, tmp_path / "model" / "onnx" / "model.onnx")
        return tmp_path / "model"

    return save


def assert_same(path: Path, **arguments: Any) -> None:
    expected = np.asarray(SentenceTransformer(str(path), device="cpu").encode(TEXTS), dtype=np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    model = Embedder(path, device="cpu", engine="onnxruntime", **arguments)
    np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5)


def mean() -> Any:
    return Pooling(DIM, "mean")


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra"])
def test_texts_with_the_padding_token(architecture: str, publish: Callable[..., Path]) -> None:
    """RoBERTa's relatives count positions of the ids that are no padding, wherever they stand."""
    assert_same(publish(lambda: [mean(), Normalize()], architecture))


@pytest.mark.parametrize("architecture", ["albert", "deberta-v2", "nomic_bert"])
def test_architectures_that_only_graphs_have(architecture: str, publish: Callable[..., Path]) -> None:
    assert_same(publish(lambda: [Pooling(DIM, "cls"), Normalize()], architecture))


@pytest.mark.parametrize(
    "behind",
    [
        lambda: [mean()],
        lambda: [mean(), Dropout(0.3), Normalize()],
        lambda: [mean(), Normalize(), Normalize()],
        lambda: [Pooling(DIM, "mean", include_prompt=False)],
        lambda: [mean(), Dense(DIM, 24, True, torch.nn.Identity()), Normalize()],
    ],
    ids=["no unit length", "dropout", "twice", "without its prompt", "dense"],
)
def test_modules_that_are_computed(behind: Behind, publish: Callable[..., Path]) -> None:
    assert_same(publish(behind))


def test_one_of_several_dense_folders(publish: Callable[..., Path]) -> None:
    """As stella and jasper have 2_Dense_256, 2_Dense_1024, ..., of which modules.json names one."""
    path = publish(lambda: [mean(), Dense(DIM, 24, True, torch.nn.Identity())])
    shutil.copytree(path / "2_Dense", path / "2_Dense_1024")
    torch.manual_seed(8)
    other = Dense(DIM, 24, True, torch.nn.Identity())
    other.save(str(path / "2_Dense"))
    modules = json.loads((path / "modules.json").read_text())
    modules[2]["path"] = "2_Dense_1024"
    (path / "modules.json").write_text(json.dumps(modules))
    assert_same(path)


@pytest.mark.parametrize(
    ("behind", "named"),
    [
        (lambda: [mean(), LayerNorm(DIM), Normalize()], "LayerNorm"),
        (lambda: [WeightedLayerPooling(DIM, 2, 1), mean()], "WeightedLayerPooling"),
        (lambda: [CNN(DIM, 16, [1, 3]), Pooling(32, "mean")], "CNN"),
        (lambda: [LSTM(DIM, 16), Pooling(32, "mean")], "LSTM"),
        (lambda: [mean(), Normalize(), Dense(DIM, 24)], "Dense"),
        (lambda: [mean(), Dense(DIM, 24, True, torch.nn.ReLU())], "Dense"),
    ],
    ids=["LayerNorm", "WeightedLayerPooling", "CNN", "LSTM", "order", "ReLU"],
)
def test_other_modules_are_refused(behind: Behind, named: str, publish: Callable[..., Path]) -> None:
    path = publish(behind)
    with pytest.raises(ModelFormatError, match=f"has a module {named} in "):
        Embedder(path)


@pytest.mark.parametrize("kind", ["WordEmbeddings", "BoW", "WordWeights", "CLIPModel", "Asym", "custom_st.Transformer"])
def test_models_without_a_transformer_in_front_are_refused(kind: str, publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()])
    modules = json.loads((path / "modules.json").read_text())
    modules[0]["type"] = kind if "." in kind else f"sentence_transformers.models.{kind}"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFormatError, match=f"has a module {kind} in "):
        Embedder(path)


def test_a_router_is_refused(tmp_path: Path, make_transformer: MakeTransformer) -> None:
    transformer = make_transformer("bert")
    ways = {kind: [Transformer(str(transformer.directory)), mean()] for kind in ("query", "document")}
    router = Router(ways, default_route="document")
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path / "model"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(transformer.directory / name, tmp_path / "model" / name)
    (tmp_path / "model" / "onnx").mkdir()
    shutil.copy(transformer.graph, tmp_path / "model" / "onnx" / "model.onnx")
    with pytest.raises(ModelFormatError, match="has a module Router in "):
        Embedder(tmp_path / "model")


def test_two_poolings_at_once_are_refused(publish: Callable[..., Path]) -> None:
    path = publish(lambda: [Pooling(DIM, ("mean", "max"))])
    with pytest.raises(ModelFormatError, match="asks for pooling"):
        Embedder(path)


def test_a_prompt_that_is_not_pooled_is_refused(publish: Callable[..., Path]) -> None:
    path = publish(lambda: [Pooling(DIM, "mean", include_prompt=False)], prompts={"query": "query : "})
    with pytest.raises(ModelFormatError, match="include_prompt=false"):
        Embedder(path)


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "manhattan"])
def test_another_similarity_is_said(similarity: str, publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()], similarity_fn_name=similarity)
    with pytest.warns(UserWarning, match=f"compares its vectors by '{similarity}'"):
        assert_same(path)


@pytest.mark.parametrize("setting", ["processing_kwargs", "query_length", "query_expansion"])
def test_other_readings_of_a_text_are_refused(setting: str, publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()])
    value = {"processing_kwargs": {"text": {"max_length": 4}}, "query_length": 4, "query_expansion": {"length": 4}}
    settings = json.loads((path / "sentence_bert_config.json").read_text())
    (path / "sentence_bert_config.json").write_text(json.dumps({**settings, setting: value[setting]}))
    with pytest.raises(ModelFormatError, match=f"has {setting}="):
        Embedder(path)


def test_an_adapter_is_no_part_of_the_weights(publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()])
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match=r"adapter_config\.json adds an adapter"):
        Embedder(path, engine="native")


@pytest.mark.parametrize("name", ["O4", "q4", "bnb4", "q4f16", "uint8", "O2"])
def test_graphs_of_other_kinds_are_not_taken(name: str, publish: Callable[..., Path]) -> None:
    """Levels of optimization for GPUs, and types of numbers whose loss nobody measured."""
    path = publish(lambda: [mean()])
    (path / "onnx" / "model.onnx").rename(path / "onnx" / f"model_{name}.onnx")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match="has no ONNX graph under a known name"):
        Embedder(path)


@pytest.mark.parametrize("name", ["quint8_avx2", "qint8_avx512_vnni", "qint8_avx512", "qint8_arm64"])
def test_an_int8_graph_is_taken_if_asked_for(name: str, publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()])
    shutil.copy(path / "onnx" / "model.onnx", path / "onnx" / f"model_{name}.onnx")
    assert Embedder(path).variant == "fp32"
    assert_same(path, variant="int8")  # of the same weights here


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (("tokenizer.json",), "is missing; transformers makes it from other files"),
        (("onnx/model.onnx", "model.safetensors"), "no ONNX graph"),
    ],
)
def test_missing_files_are_refused(missing: tuple[str, ...], why: str, publish: Callable[..., Path]) -> None:
    path = publish(lambda: [mean()])
    for name in missing:
        (path / name).unlink()
    (path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelFormatError, match=why):
        Embedder(path)
