"""sentence-transformers' constructor and util: what they pass on and find, and why something cannot be had."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import DeviceError, Embedder, HubError, InputError
from gte_sdk.integrations.sentence_transformers import SentenceTransformer, util

from ..tiny_models import DIM, tiny_vector, write_tiny_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), prompts={"query": "fast "}, matryoshka_dims=[DIM, 3])


def test_the_model_is_an_embedder_with_these_settings(directory: Path) -> None:
    model = SentenceTransformer(str(directory), device="cpu:0", backend="onnx", truncate_dim=3, local_files_only=True)
    assert isinstance(model, Embedder)
    assert (model.device, model.engine, model.dim) == ("cpu", "onnxruntime", 3)
    assert model._arguments["offline"] is True
    assert SentenceTransformer("gte-nano").dim == Embedder("gte-nano").dim


def test_the_default_prompt_is_one_of_the_models_or_of_the_given_ones(directory: Path) -> None:
    for prompts, name, first in (
        (None, "query", "fast "),
        ({"class": "blue "}, "class", "blue "),
        ({"class": "blue "}, "query", "fast "),
        ({"query": "slow "}, "query", "slow "),
    ):
        model = SentenceTransformer(directory, prompts=prompts, default_prompt_name=name)
        np.testing.assert_allclose(model.encode("red"), tiny_vector(f"{first}red"), atol=1e-6)
        np.testing.assert_allclose(model.encode("red", prompt=""), tiny_vector("red"), atol=1e-6)
    with pytest.raises(InputError, match=r"default_prompt_name='nothing'; the model has \['query'\]"):
        SentenceTransformer(directory, default_prompt_name="nothing")


def test_a_name_without_an_owner_is_one_of_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="sentence-transformers/all-MiniLM-L6-v2"):
        SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True)
    write_tiny_model(tmp_path / "all-MiniLM-L6-v2")
    assert SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True).dim == DIM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modules": [1]}, r"modules=\[1\]: a model is read from its files"),
        ({"cache_folder": "/models"}, "cache_folder='/models': .* set HF_HOME"),
        ({"trust_remote_code": True}, "trust_remote_code=True: no code of a model is ever run"),
        ({"token": "hf_x"}, "token: set HF_TOKEN"),
        ({"use_auth_token": True}, "token: set HF_TOKEN"),
        ({"model_kwargs": {"dtype": "float16"}}, "model_kwargs=.*variant="),
        ({"tokenizer_kwargs": {"a": 1}}, "processor_kwargs=.*: the tokenizer is that of the files"),
        ({"config_kwargs": {"a": 1}}, "config_kwargs="),
        ({"backend": "openvino"}, r"backend='openvino'; one of \('torch', 'onnx'\)"),
        ({"similarity_fn_name": "euclidean"}, "similarity_fn_name='euclidean'"),
        ({"truncate_dim": 4}, "dim=4; this model's vectors have 5 dimensions"),
    ],
)
def test_what_cannot_be_had(directory: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        SentenceTransformer(directory, **arguments)
    assert "hf_x" not in str(refused.value)


def test_a_device_that_is_not_there_is_an_error(directory: Path) -> None:
    with pytest.raises((DeviceError, InputError), match="mps"):
        SentenceTransformer(directory, device="mps")


def test_semantic_search_ranks_as_a_sort_does() -> None:
    random = np.random.default_rng(3)
    queries, corpus = random.standard_normal((4, 6)), random.standard_normal((50, 6))
    cosines = queries @ corpus.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(corpus, axis=1)
    np.testing.assert_allclose(util.cos_sim(queries, corpus), cosines, atol=1e-6)
    np.testing.assert_allclose(util.pairwise_cos_sim(queries, corpus[:4]), np.diag(cosines), atol=1e-6)
    np.testing.assert_allclose(util.dot_score(queries, list(corpus)), queries @ corpus.T, atol=1e-5)
    for found, row in zip(util.semantic_search(queries, corpus, top_k=7), cosines, strict=True):
        assert [hit["corpus_id"] for hit in found] == np.argsort(-row)[:7].tolist()
        np.testing.assert_allclose(np.array([hit["score"] for hit in found]), np.sort(row)[::-1][:7], atol=1e-6)
    assert len(util.semantic_search(queries[0], corpus, top_k=99)[0]) == 50


def test_dot_scores_are_those_of_unit_vectors() -> None:
    corpus = np.array([[3, 4], [0, 2]], np.float32)
    units = util.normalize_embeddings(corpus)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)
    (found,) = util.semantic_search(units[1], units, score_function=util.dot_score)
    assert [hit["corpus_id"] for hit in found] == [1, 0]
    with pytest.raises(InputError, match=r"row 0 of corpus_embeddings has length 5.000; normalize_embeddings makes"):
        util.semantic_search(units, corpus, score_function=util.dot_score)
    with pytest.raises(InputError, match="score_function is neither"):
        util.semantic_search(units, units, score_function=np.dot)
