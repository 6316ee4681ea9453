"""What our tracer does not know, by optimum-onnx: the same vectors as sentence-transformers, the same directory.

It needs the extra `optimum`, whose transformers is older than that of the other tests: make test-optimum.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from torch import nn

import gte_sdk
from export.parity.measure import PARITY_TEXTS, read_corpus
from export.to_onnx import main

from ..export.conftest import DIM, MAX_TOKENS, CheckpointMaker

# transformers 4.57 decorates DeBERTa with it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

TEXTS = [text for text in read_corpus(PARITY_TEXTS)[::4] if "\ud800" not in text]
_SHAPE = {
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS,
    "pad_token_id": 0,
}
_DECODER = {**_SHAPE, "num_key_value_heads": 1, "head_dim": 16, "bos_token_id": 2, "eos_token_id": 3}
SHAPES: dict[str, dict[str, Any]] = {
    "albert": {**_SHAPE, "embedding_size": 16, "bos_token_id": 2, "eos_token_id": 3},
    "deberta-v2": {
        **_SHAPE,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "qwen3": _DECODER,
    "gemma3_text": {**_DECODER, "use_bidirectional_attention": True, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "t5": {"d_model": DIM, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "pad_token_id": 0},
}


def export(checkpoint: Path, output: Path, *options: str) -> Any:
    arguments = [str(checkpoint), "--output", str(output), "--exporter", "optimum", "--minimum-recall", "0", *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def largest_difference(checkpoint: Path, output: Path) -> float:
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    return float(np.abs(gte_sdk.Embedder(output, variant="fp32", truncation="ignore").embed(TEXTS) - expected).max())


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        ("albert", "mean"),
        ("deberta-v2", "cls"),
        ("qwen3", "lasttoken"),
        ("gemma3_text", "mean"),
        ("t5", "mean"),
    ],
)
def test_equals_sentence_transformers(
    architecture: str, pooling: Any, make_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(architecture, pooling=pooling, shape=SHAPES[architecture])
    result = export(checkpoint, tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert largest_difference(checkpoint, tmp_path / "model") <= 1e-5
    report = json.loads((tmp_path / "model/parity.json").read_text(encoding="utf-8"))
    assert report["precisions"]["int8"]["cosine"]["mean"] >= 0.99
    session = onnxruntime.InferenceSession(str(tmp_path / "model/onnx/model.onnx"), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    assert session.get_outputs()[1].shape == ["batch", DIM]
    assert session.get_inputs()[0].shape == ["batch", "sequence"]


def test_dense_and_half(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    torch.manual_seed(3)
    dense = nn.Sequential(nn.Linear(DIM, 24), nn.Tanh())
    checkpoint = make_checkpoint("albert", pooling="weightedmean", dense=dense, shape=SHAPES["albert"])
    result = export(checkpoint, tmp_path / "model", "--precision", "fp32,fp16")
    assert result.exit_code == 0, result.output
    assert largest_difference(checkpoint, tmp_path / "model") <= 1e-5
    assert gte_sdk.Embedder(tmp_path / "model", variant="fp32").dim == 24


def test_our_tracer_and_optimum_agree(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("bert")
    assert export(checkpoint, tmp_path / "optimum", "--no-quantize").exit_code == 0
    arguments = [str(checkpoint), "--output", str(tmp_path / "trace"), "--no-quantize", "--minimum-recall", "0"]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    ours, theirs = (gte_sdk.Embedder(tmp_path / name, truncation="ignore") for name in ("trace", "optimum"))
    np.testing.assert_allclose(ours.embed(TEXTS), theirs.embed(TEXTS), atol=1e-6)
    assert ours.fingerprint == theirs.fingerprint


def test_what_optimum_does_not_know(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    result = export(make_checkpoint("static"), tmp_path / "model")
    assert result.exit_code == 1
    assert "does not know how to export 'static'" in result.output
    assert not (tmp_path / "model").exists()
