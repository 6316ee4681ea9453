"""The whole chain from a clean clone: pairs, two stages, export to int8, parity, Embedder, and mteb over it."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import Embedder, top_k_cosine
from gte_sdk.runtime.tokens import load_tokenizer
from training.data.docstrings import read_docstring_pairs
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder
from training.evaluate.mteb_adapter import MtebModel
from training.recipes.recipe import load_recipe
from training.runs.run_log import read_log
from training.runs.start import load_start
from training.train import main as train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("smoke") / "run"
    train(["smoke", "--output", str(output)])
    return output


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    from export.to_onnx import main as export

    directory = run.parent / "smoke-model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of what it deprecates in itself
        export([str(run / "model"), "--output", str(directory), "--license", "Apache-2.0"], standalone_mode=False)
    return directory


def pairs() -> tuple[list[str], list[str]]:
    sentences, codes = zip(*list(read_docstring_pairs())[:500], strict=True)
    return list(sentences), list(codes)


def reciprocal_rank(queries_QD: NDArray[np.float32], documents_QD: NDArray[np.float32]) -> float:
    _, indices_QK = top_k_cosine(queries_QD, documents_QD, len(documents_QD))
    return float(np.mean([1 / (np.flatnonzero(row == number)[0] + 1) for number, row in enumerate(indices_QK)]))


def test_both_stages_ran_and_taught_something(run: Path) -> None:
    lines = read_log(run / "log.csv")
    assert [sum(line.stage == stage for line in lines) for stage in ("pretrain", "finetune")] == [40, 15]
    recipe = load_recipe("smoke")
    tokenizer, start = load_start(recipe.encoder, run / "tokenizer", recipe.seed)
    trained = load_encoder(run / "model")
    sentences, codes = pairs()
    before, after = (
        reciprocal_rank(*(embed_texts(encoder, tokenizer, texts, 64) for texts in (sentences, codes)))
        for encoder in (start, trained)
    )
    assert after > 3 * before
    assert after > 0.1


def test_exported_int8_is_the_trained_model_in_the_embedder(run: Path, exported: Path) -> None:
    embedder = Embedder(exported, variant="int8")
    encoder, tokenizer = load_encoder(run / "model"), load_tokenizer(run / "model" / "tokenizer.json")
    sentences, codes = pairs()
    torch_ND = embed_texts(encoder, tokenizer, sentences, 64)
    int8_ND = embedder.embed(sentences)
    assert (embedder.dim, embedder.max_tokens) == (64, 64)
    assert float((torch_ND * int8_ND).sum(axis=1).min()) > 0.99
    parity = json.loads((exported / "parity.json").read_text())
    assert "int8" in parity["precisions"]
    fp32 = reciprocal_rank(torch_ND, embed_texts(encoder, tokenizer, codes, 64))
    int8 = reciprocal_rank(int8_ND, Embedder(exported, variant="int8", truncation="ignore").embed(codes))
    assert int8 == pytest.approx(fp32, abs=0.01)


@pytest.mark.filterwarnings("ignore")  # mteb, and what it calls
def test_mteb_takes_the_embedder_as_encoder_and_as_search(exported: Path) -> None:
    import mteb
    from mteb.mocks import mock_tasks
    from mteb.models import EncoderProtocol, SearchProtocol

    model = MtebModel(Embedder(exported), "gte-sdk/smoke")
    assert isinstance(model, EncoderProtocol)
    assert isinstance(model, SearchProtocol)
    tasks = [mock_tasks.MockSTSTask(), mock_tasks.MockRetrievalTask(), mock_tasks.MockRerankingTask()]
    reports = [mteb.evaluate(model, task, cache=None, show_progress_bar=False) for task in tasks]
    results = {result.task_name: result.get_score() for report in reports for result in report.task_results}
    assert len(results) == 3
    assert all(np.isfinite(score) for score in results.values())


def test_mteb_search_ranks_with_the_kernel_and_within_candidates(exported: Path) -> None:
    from datasets import Dataset

    embedder = Embedder(exported)
    model = MtebModel(embedder, "gte-sdk/smoke")
    corpus = Dataset.from_list(
        [{"id": f"d{row}", "title": "sort" if row else "", "text": f"n {row}"} for row in range(5)]
    )
    queries = Dataset.from_list([{"id": "q", "text": "sort n 3"}])
    task: dict[str, Any] = {
        "task_metadata": None,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {},
        "num_proc": None,
    }
    model.index(corpus, **task)
    found = model.search(queries, top_k=3, **task)["q"]
    texts = ["n 0", "sort n 1", "sort n 2", "sort n 3", "sort n 4"]
    scores, indices = top_k_cosine(embedder.embed(["sort n 3"]), embedder.embed(texts), 3)
    assert found == {
        f"d{index}": pytest.approx(float(score)) for index, score in zip(indices[0], scores[0], strict=True)
    }
    assert next(iter(found)) == "d3"
    among = model.search(queries, top_k=9, top_ranked={"q": ["d4", "d0"]}, **task)["q"]
    assert set(among) == {"d0", "d4"}
    vectors = embedder.embed(texts)
    np.testing.assert_allclose(model.similarity(2 * vectors, vectors).diagonal(), 1, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(vectors, 3 * vectors), 1, atol=1e-6)
