"""The measurements themselves: a report that could not say no would prove nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from export.graphs.trace import write_graph
from export.parity import measure as parity
from export.parity.measure import CALIBRATION_TEXTS, PARITY_TEXTS, Thresholds, read_corpus
from gte_sdk.model_files.directory import TOKENIZER_JSON
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.encoder_files import load_encoder

from .conftest import MAX_TOKENS


def unit_rows(seed: int, count: int = 60, dim: int = 8) -> parity.Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    unit: parity.Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def report_with(**changes: float) -> dict[str, Any]:
    values = {"difference": 1e-7, "mean": 0.999, "minimum": 0.99, "recall": 0.97, **changes}
    cosine = {"mean": values["mean"], "minimum": values["minimum"]}
    return {
        "fp32_against_pytorch": {"maximum_difference": values["difference"]},
        "precisions": {"int8": {"cosine": cosine, "recall_at_10": values["recall"]}},
    }


def test_a_good_report_is_not_refused() -> None:
    assert parity.find_refusals(report_with(), Thresholds()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"difference": 2e-5}, "the fp32 graph differs from PyTorch by 2.00e-05, more than 1e-05"),
        ({"difference": float("nan")}, "the fp32 graph differs from PyTorch by nan, more than 1e-05"),
        ({"mean": 0.98}, "int8 has mean cosine to fp32 0.9800, less than 0.9900"),
        ({"mean": float("nan")}, "int8 has mean cosine to fp32 nan, less than 0.9900"),
        ({"minimum": 0.9}, "int8 has minimum cosine to fp32 0.9000, less than 0.9500"),
        ({"recall": 0.5}, "int8 has recall@10 against fp32 0.5000, less than 0.9000"),
    ],
)
def test_each_threshold_refuses(changes: dict[str, float], message: str) -> None:
    assert parity.find_refusals(report_with(**changes), Thresholds()) == [message]


def test_what_the_sdk_runs_is_judged_too() -> None:
    bad = report_with(minimum=0.9)["precisions"]["int8"]
    problems = parity.find_refusals({**report_with(), "native": bad}, Thresholds())
    assert problems == ["int8 on the SDK's own encoder has minimum cosine to fp32 0.9000, less than 0.9500"]


def test_equal_vectors_agree_in_everything() -> None:
    measured = parity._compare(unit_rows(0), unit_rows(0))
    assert measured["cosine"]["minimum"] == pytest.approx(1, abs=1e-6)
    assert measured["recall_at_10"] == 1
    assert measured["rank_correlation"] == pytest.approx(1)
    assert sum(measured["cosine"]["distribution"]["counts"]) == 60


def test_unrelated_vectors_do_not() -> None:
    measured = parity._compare(unit_rows(0), unit_rows(1))
    assert measured["recall_at_10"] == pytest.approx(10 / 59, abs=0.08)
    assert abs(measured["rank_correlation"]) < 0.1


def test_recall_and_rank_correlation_equal_plain_numpy() -> None:
    reference = unit_rows(3)
    vectors = reference + 0.3 * unit_rows(4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = []
    for rows in (vectors, reference):
        similarity = rows.astype(np.float64) @ rows.T.astype(np.float64)
        np.fill_diagonal(similarity, -2)
        nearest.append(np.argsort(-similarity, axis=1)[:, :10])
    expected = np.mean([len(set(got) & set(wanted)) / 10 for got, wanted in zip(*nearest, strict=True)])
    measured = parity._compare(vectors, reference)
    assert measured["recall_at_10"] == pytest.approx(expected)
    pairs = np.triu_indices(len(reference), k=1)
    correlation = spearmanr((vectors @ vectors.T)[pairs], (reference @ reference.T)[pairs]).statistic
    assert measured["rank_correlation"] == pytest.approx(correlation, abs=1e-6)


def test_not_a_number_is_reported_not_hidden() -> None:
    vectors = unit_rows(0)
    vectors[3, 2] = np.nan
    measured = parity._compare(vectors, unit_rows(0))
    assert np.isnan(measured["cosine"]["mean"])
    assert measured["recall_at_10"] == 0


def test_texts_are_five_hundred_mixed_ones_and_calibration_has_none_of_them() -> None:
    texts, calibration = read_corpus(PARITY_TEXTS), read_corpus(CALIBRATION_TEXTS)
    assert len(texts) == len(set(texts)) == 500
    assert not set(texts) & set(calibration)
    assert "" in texts
    assert max(len(text) for text in texts) > 5000
    assert sum(not text.isascii() for text in texts) >= 40


def test_measure_sees_a_graph_of_other_weights(bert_checkpoint: Path, tmp_path: Path) -> None:
    encoder, other = load_encoder(bert_checkpoint), load_encoder(bert_checkpoint)
    other.get_parameter("backbone.encoder.layer.0.output.dense.weight").data[2, 5] += 0.05
    write_graph(other, tmp_path / "model.onnx")
    tokenizer = load_tokenizer(bert_checkpoint / TOKENIZER_JSON)
    corpus = parity.tokenize_corpus(tokenizer, read_corpus(PARITY_TEXTS)[::10], MAX_TOKENS)
    graphs = {"fp32": tmp_path / "model.onnx"}
    report = parity.measure(parity.open_runs(encoder, graphs, {}, corpus.pad_id), graphs, corpus)
    (problem,) = parity.find_refusals(report, Thresholds(recall=0))
    assert problem.startswith("the fp32 graph differs from PyTorch by")
    report = parity.measure(parity.open_runs(other, graphs, {}, corpus.pad_id), graphs, corpus)
    assert parity.find_refusals(report, Thresholds(recall=0)) == []
