"""Look-alikes of published models against sentence-transformers: the same vectors and prompts, or a clear refusal.

The facts of the table of known models are from the models' own repositories. Here each of its rows is put to work: a
conversion that says nothing of itself gives the vectors that sentence-transformers gives with the original's modules.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer
from transformers import AutoModel

from export.graphs.trace import write_graph
from gte_sdk import Embedder, ModelFormatError
from gte_sdk.model_files.known_models import KNOWN_MODELS, KnownModel
from training.encoders.encoder import Encoder

from . import conftest
from .conftest import DIM, WORDS, write_conversion
from .lookalikes import architecture_of, outcome_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["how do I read a file in python", "The RED Cafe, fast!", "", "x", " ".join(WORDS * 40), "red green " * 3]
MakeTransformer = Callable[[str], conftest.Transformer]


def unit(rows: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.asarray(rows, dtype=np.float64)
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
    return array


def assert_same(model: Embedder, reference: SentenceTransformer, prompts: dict[str, str]) -> None:
    """prompts: of "plain", "query" and "document", as the reference's own repository has them."""
    for kind, ours in (("plain", model.embed), ("query", model.embed_query), ("document", model.embed_documents)):
        theirs = unit(reference.encode(TEXTS, prompt=prompts.get(kind, "")))
        np.testing.assert_allclose(ours(TEXTS), theirs, atol=1e-5, err_msg=kind)


def snapshot(path: Path, name: str) -> Path:
    return path / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT


@pytest.mark.filterwarnings("ignore::gte_sdk.TruncationWarning")
@pytest.mark.parametrize("row", KNOWN_MODELS, ids=lambda row: row.names[0])
def test_a_conversion_of_a_known_model(tmp_path: Path, make_transformer: MakeTransformer, row: KnownModel) -> None:
    transformer = make_transformer(architecture_of(row))
    path = write_conversion(transformer, snapshot(tmp_path, f"onnx-community/{row.names[0]}-ONNX"))
    if outcome_of(row) == "refused":
        with pytest.raises(ModelFormatError, match=f"{row.names[0]} cannot be run: "):
            Embedder(path)
        return
    if row.dense:  # these files do not have them; a graph may (below)
        with pytest.raises(ModelFormatError, match=f"{row.owner}/{row.names[0]} has dense layers behind the pooling"):
            Embedder(path)
        return
    modules = [Transformer(str(transformer.directory)), Pooling(DIM, row.pooling), Normalize()]
    reference = SentenceTransformer(modules=modules, device="cpu")
    # BERT's table of positions ends at 512; angles have no end.
    limit = row.max_tokens if architecture_of(row) in ("modernbert", "qwen3") else min(row.max_tokens, 512)
    reference.max_seq_length = limit
    prompts = {
        "query": row.prompts.get("query", ""),
        "document": row.prompts.get("document", row.prompts.get("passage", "")),
    }
    model = Embedder(path)
    assert_same(model, reference, prompts)
    assert {kind: model.prompt_for(kind) for kind in prompts} == prompts
    assert model.max_tokens == limit


def test_a_conversion_with_the_dense_layers_inside(tmp_path: Path, make_transformer: MakeTransformer) -> None:
    transformer = make_transformer("bert")
    torch.manual_seed(4)
    layers = [torch.nn.Linear(DIM, 48, bias=False), torch.nn.Linear(48, DIM, bias=False)]
    path = write_conversion(transformer, snapshot(tmp_path, "onnx-community/embeddinggemma-300m-ONNX"))
    backbone = AutoModel.from_pretrained(transformer.directory).eval()
    write_graph(Encoder(backbone, "mean", 512, torch.nn.Sequential(*layers)), path / "onnx" / "model.onnx")
    dense = [Dense(each.in_features, each.out_features, False, torch.nn.Identity(), each.weight) for each in layers]
    modules = [Transformer(str(transformer.directory)), Pooling(DIM, "mean"), *dense, Normalize()]
    model = Embedder(path, truncation="ignore")
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    assert_same(model, SentenceTransformer(modules=modules, device="cpu"), prompts)
    assert model.prompts == prompts


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("dense", [(), ("Tanh",), ("Identity", "Identity")], ids=["", "tanh", "two"])
def test_a_repository_with_all_of_its_files(
    tmp_path: Path, make_transformer: MakeTransformer, pooling: Any, dense: tuple[str, ...]
) -> None:
    transformer = make_transformer("bert")
    torch.manual_seed(1)
    widths = [DIM, 48, 16]
    layers = [
        Dense(widths[place], widths[place + 1], bias=kind == "Tanh", activation_function=getattr(torch.nn, kind)())
        for place, kind in enumerate(dense)
    ]
    modules = [Transformer(str(transformer.directory), max_seq_length=64), Pooling(DIM, pooling), *layers, Normalize()]
    prompts = {"query": "query : ", "document": "passage : "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(tmp_path))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(transformer.graph.read_bytes())
    model = Embedder(tmp_path, truncation="ignore")
    assert_same(model, SentenceTransformer(str(tmp_path), device="cpu"), prompts)
    assert (model.max_tokens, model.dim) == (64, widths[len(dense)])


def test_lower_case_and_a_default_prompt(tmp_path: Path, make_transformer: MakeTransformer) -> None:
    transformer = make_transformer("bert")
    modules = [Transformer(str(transformer.directory)), Pooling(DIM, "mean")]
    prompts = {"task": "search : "}
    SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name="task", device="cpu").save(str(tmp_path))
    settings = tmp_path / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_lower_case": True}))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(transformer.graph.read_bytes())
    reference = SentenceTransformer(str(tmp_path), device="cpu")
    model = Embedder(tmp_path, truncation="ignore")
    for ours, theirs in (
        (model.embed(TEXTS), reference.encode(TEXTS)),
        (model.embed_query(TEXTS), reference.encode_query(TEXTS)),
        (model.encode_document(TEXTS), reference.encode_document(TEXTS)),
    ):
        np.testing.assert_allclose(ours, unit(theirs), atol=1e-5)
    np.testing.assert_array_equal(model.embed("RED Cafe"), model.embed("red cafe"))


@pytest.mark.parametrize("layout", ["0_StaticEmbedding", "model2vec"])
def test_static_models(tmp_path: Path, layout: str) -> None:
    tokenizer: Tokenizer = conftest.tiny_tokenizer().backend_tokenizer
    torch.manual_seed(2)
    table = torch.randn(tokenizer.get_vocab_size(), 24)
    if layout == "model2vec":
        save_file({"embeddings": table}, tmp_path / "model.safetensors")
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "model2vec", "hidden_dim": 24}))
        modules = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    else:
        static = StaticEmbedding(tokenizer, embedding_weights=table.numpy())
        SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path))
    assert_same(Embedder(tmp_path), SentenceTransformer(str(tmp_path), device="cpu"), {})


Change = Callable[[Path], None]


def _with_fields(name: str, **fields: Any) -> Change:
    def change(path: Path) -> None:
        content = json.loads((path / name).read_text()) if (path / name).is_file() else {}
        (path / name).write_text(json.dumps({**content, **fields}))

    return change


def _renamed(name: str) -> Change:
    def change(path: Path) -> None:
        (path / "sentence_bert_config.json").unlink()
        _with_fields(name, max_seq_length=20, do_lower_case=True)(path)

    return change


_SETTINGS, _TOKENIZER = "sentence_bert_config.json", "tokenizer_config.json"
_BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.filterwarnings("ignore::gte_sdk.TruncationWarning")
@pytest.mark.parametrize(
    "change",
    [
        _renamed("sentence_roberta_config.json"),
        _renamed("sentence_xlm-roberta_config.json"),
        _with_fields(_SETTINGS, max_seq_length=30, tokenizer_args={"model_max_length": 17}),
        _with_fields(_SETTINGS, max_seq_length=None),
        _with_fields(_TOKENIZER, **_BERT),
        _with_fields(_TOKENIZER, **_BERT, do_lower_case=False, strip_accents=True),
        _with_fields(_TOKENIZER, **_BERT, do_lower_case=False, tokenize_chinese_chars=False),
        _with_fields("config_sentence_transformers.json", truncate_dim=16),
        _with_fields("1_Pooling/config.json", pooling_mode=["max"]),
    ],
    ids=["roberta", "xlm-roberta", "arguments", "no limit", "lower", "accents", "chinese", "shorter", "list"],
)
def test_settings_that_change_the_vectors(tmp_path: Path, make_transformer: MakeTransformer, change: Change) -> None:
    transformer = make_transformer("bert")
    modules = [Transformer(str(transformer.directory)), Pooling(DIM, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(transformer.graph.read_bytes())
    change(tmp_path)
    reference = SentenceTransformer(str(tmp_path), device="cpu")
    texts = [*TEXTS, "Caf\u00e9 \u65e5\u672c read"]
    np.testing.assert_allclose(Embedder(tmp_path).embed(texts), unit(reference.encode(texts)), atol=1e-5)
