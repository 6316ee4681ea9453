"""Every architecture and pooling: the exported graph gives sentence-transformers' vectors of the same checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import CONFIG_MAPPING

import gte_sdk
from export.parity.measure import PARITY_TEXTS, read_corpus
from export.to_onnx import main

from .conftest import CONFIGURATIONS, DIM, MAX_TOKENS, CheckpointMaker

# Thirds of all kinds: prose, questions, documentation, code, Unicode, edge cases, very long.
TEXTS = read_corpus(PARITY_TEXTS)[::3]
# RoBERTa and its relatives count no position for the padding token, wherever it stands.
WITH_PADDING_TOKENS = ["how [PAD] to read", "[PAD]", "[PAD] [PAD] a file", "the [PAD]", "[PAD] the " * 9, "a file"]


def export(checkpoint: Path, output: Path, *options: str) -> Path:
    # A random model has no meaning that neighbours could agree on: recall is no measure of its quantization.
    arguments = [str(checkpoint), "--output", str(output), "--minimum-recall", "0", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return output


def largest_difference(
    checkpoint: Path, output: Path, prompt: str = "", texts: Sequence[str] = TEXTS, engine: str = "auto"
) -> float:
    texts = [text for text in texts if "\ud800" not in text]  # sentence-transformers cannot take a lone surrogate
    if "gte_static" in (checkpoint / "config.json").read_text(encoding="utf-8"):
        # Its static embedding truncates nothing, and gives zeros where there is no token.
        texts = [text for text in texts if text.strip() and len(text) < MAX_TOKENS]
        assert len(texts) >= 4
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode([prompt + text for text in texts])
    embedder = gte_sdk.Embedder(output, variant="fp32", truncation="ignore", engine=engine)
    vectors = embedder.embed_query(texts) if prompt else embedder.embed(texts)
    return float(np.abs(vectors - expected).max())


@pytest.mark.parametrize("architecture", [*CONFIGURATIONS, "static"])
def test_equals_sentence_transformers(architecture: str, make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    if architecture not in (*CONFIG_MAPPING, "static"):
        pytest.skip(f"transformers {transformers.__version__} has no class for it")
    checkpoint = make_checkpoint(architecture)
    output = export(checkpoint, tmp_path / "model")
    assert largest_difference(checkpoint, output) <= 1e-5
    assert largest_difference(checkpoint, output, texts=WITH_PADDING_TOKENS, engine="onnxruntime") <= 1e-5
    report = json.loads((output / "parity.json").read_text(encoding="utf-8"))
    assert report["precisions"]["int8"]["cosine"]["mean"] >= 0.99
    assert report["precisions"]["int8"]["alone_against_in_batch"]["maximum_difference"] <= 1e-5
    session = onnxruntime.InferenceSession(str(output / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    segments = ["token_type_ids"] if architecture in ("bert", "electra", "nomic_bert") else []
    assert [node.name for node in session.get_inputs()] == ["input_ids", "attention_mask", *segments]
    assert [node.name for node in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    assert session.get_outputs()[1].shape == ["batch", DIM]


@pytest.mark.parametrize(
    ("pooling", "activation"),
    [
        ("cls", None),
        ("lasttoken", nn.Identity),
        ("max", None),
        ("max", nn.Tanh),
        ("weightedmean", None),
        ("weightedmean", nn.Tanh),
        ("mean_sqrt_len_tokens", nn.Tanh),  # the mean's direction without a dense layer
    ],
)
def test_pooling_modes(
    pooling: str, activation: type[nn.Module] | None, make_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    """Alone, where the SDK pools the token states itself, and before a dense layer, where the graph has to."""
    torch.manual_seed(3)
    dense = nn.Sequential(nn.Linear(DIM, 24), activation()) if activation else None
    checkpoint = make_checkpoint("bert", pooling=pooling, dense=dense)
    output = export(checkpoint, tmp_path / "model", "--no-quantize")
    assert largest_difference(checkpoint, output) <= 1e-5


def test_dense_module_and_prompts(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    torch.manual_seed(3)
    dense = nn.Sequential(nn.Linear(DIM, 24), nn.Tanh())
    checkpoint = make_checkpoint("bert", dense=dense, prompts={"query": "query: ", "document": "passage: "})
    output = export(checkpoint, tmp_path / "model", "--no-quantize")
    assert gte_sdk.Embedder(output).dim == 24
    assert largest_difference(checkpoint, output, prompt="query: ") <= 1e-5
    assert largest_difference(checkpoint, output) <= 1e-5
