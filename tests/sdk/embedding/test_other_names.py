"""What programs written for sentence-transformers or fastembed call: values, and reasons for what cannot be had."""

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError, TruncationWarning

from ..tiny_models import DIM, tiny_vector, write_tiny_model

TEXTS = ["red green", "blue", "", "fast slow red"]


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    directory = write_tiny_model(
        tmp_path_factory.mktemp("tiny"), prompts={"query": "fast ", "corpus": "slow "}, matryoshka_dims=[DIM, 3]
    )
    return Embedder(directory)


def test_the_prompts_of_queries_and_documents(tiny: Embedder) -> None:
    np.testing.assert_allclose(tiny.encode_query("red"), tiny_vector("fast red"), atol=1e-6)
    np.testing.assert_allclose(tiny.encode_document(["red"])[0], tiny_vector("slow red"), atol=1e-6)
    np.testing.assert_allclose(tiny.encode_query("red", prompt="blue "), tiny_vector("blue red"), atol=1e-6)
    np.testing.assert_allclose(tiny.encode_document("red", "query"), tiny_vector("fast red"), atol=1e-6)
    np.testing.assert_allclose(tiny.encode("red", "no such", "slow "), tiny_vector("slow red"), atol=1e-6)
    np.testing.assert_allclose(tiny.encode(sentences="red"), tiny_vector("red"), atol=1e-6)


def test_precisions(gte_mini: Embedder) -> None:
    vectors = gte_mini.encode(TEXTS)
    bits = np.packbits(vectors > 0, axis=1)
    np.testing.assert_array_equal(gte_mini.encode(TEXTS, precision="ubinary"), bits)
    signed = gte_mini.encode(TEXTS, precision="binary")
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed, bits.astype(np.int16) - 128)
    np.testing.assert_array_equal(gte_mini.encode(TEXTS, precision="int8"), gte_mini.embed(TEXTS, dtype="int8"))
    np.testing.assert_array_equal(gte_mini.encode("red", precision="uint8"), gte_mini.embed("red", dtype="uint8"))


def test_truncate_dim(tiny: Embedder) -> None:
    cut = Embedder(Path(str(tiny._description.path)), dim=3)
    np.testing.assert_array_equal(tiny.encode(TEXTS, truncate_dim=3), cut.encode(TEXTS))
    np.testing.assert_array_equal(tiny.encode("red", truncate_dim=3), cut.encode("red"))
    np.testing.assert_array_equal(
        tiny.encode("red", truncate_dim=3, precision="ubinary"), cut.embed("red", dtype="binary")
    )
    np.testing.assert_array_equal(tiny.encode(TEXTS, truncate_dim=99), tiny.encode(TEXTS))
    with pytest.raises(InputError, match="dim=4; this model's vectors have 5 dimensions and it was trained for 5, 3"):
        tiny.encode(TEXTS, truncate_dim=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize_embeddings": False}, "always have unit length"),
        ({"precision": "float64"}, "precision='float64'; one of"),
        ({"prompt_name": "passage"}, r"prompt_name='passage'; the model has \['corpus', 'document', 'query'\]"),
        ({"batch_size": 0}, "batch_size=0; it must be at least 1"),
        ({"truncate_dim": 0}, "truncate_dim=0; it must be at least 1"),
        ({"device": "cuda"}, "device='cuda'; this Embedder runs on cpu"),
        ({"device": ["cpu", "cuda:1"]}, "device='cuda:1'; this Embedder runs on cpu"),
        ({"pool": {"input": 1}}, "one Embedder uses all cores in one process"),
        ({"output_value": None}, "output_value=None; give 'sentence_embedding'"),
        ({"sentences": ["red"]}, "both inputs and sentences are given"),
    ],
)
def test_what_cannot_be_had(tiny: Embedder, arguments: dict[str, Any], message: str) -> None:
    for method in (tiny.encode, tiny.encode_query, tiny.encode_document):
        with pytest.raises(InputError, match=message):
            method(TEXTS, **arguments)


def test_the_device_that_it_runs_on_is_accepted(tiny: Embedder) -> None:
    for device in ("cpu", "cpu:0", None, ["cpu", "cpu:0"]):
        np.testing.assert_array_equal(tiny.encode("red", device=device), tiny.encode("red"))


def test_token_embeddings_average_to_the_vector(gte_mini: Embedder) -> None:
    texts = [*TEXTS, "a longer text of several words"] * 5
    states = gte_mini.encode(texts, output_value="token_embeddings")
    assert [len(each) for each in states] == [len(ids) for ids in gte_mini.tokenize(texts).ids]
    means = np.array([each.mean(axis=0) for each in states])
    np.testing.assert_allclose(gte_mini.similarity_pairwise(means, gte_mini.embed(texts)), 1, atol=1e-5)
    np.testing.assert_array_equal(gte_mini.encode("blue", output_value="token_embeddings"), states[1])
    with pytest.raises(InputError, match="does not average the states"):
        Embedder("gte-nano").encode(TEXTS, output_value="token_embeddings")


def test_similarity() -> None:
    model = Embedder("gte-nano")
    first, second = np.array([[3, 4], [0, 0]], np.float32), np.array([[4, 3], [-3, -4], [0, 2]])
    np.testing.assert_allclose(model.similarity(first, second), [[0.96, -1.0, 0.8], [0.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(model.similarity(first[0], list(second)), [[0.96, -1, 0.8]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(first, second[:2]), [0.96, 0.0], atol=1e-6)
    assert model.similarity(first, second).dtype == np.float32
    with pytest.raises(InputError, match="embeddings1 have 2 dimensions, embeddings2 3"):
        model.similarity(first, np.ones((1, 3)))
    with pytest.raises(InputError, match=r"embeddings1 have shape \(2, 2\), embeddings2 \(3, 2\)"):
        model.similarity_pairwise(first, second)
    with pytest.raises(InputError, match="embeddings1 has shape"):
        model.similarity(np.ones((1, 2, 3)), second)


def test_the_length_that_is_read_can_be_set(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path))
    assert model.max_seq_length == model.max_tokens == 32
    model.max_seq_length = 4
    with pytest.warns(TruncationWarning, match="1 tokens were left out"):
        np.testing.assert_allclose(model.encode("red green blue"), tiny_vector("red green"), atol=1e-6)
    model.max_seq_length = 32
    np.testing.assert_allclose(model.encode("red green blue"), tiny_vector("red green blue"), atol=1e-6)
    with pytest.raises(InputError, match="max_tokens=33"):
        model.max_seq_length = 33
    assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == model.dim == DIM


def test_prompts_can_be_set(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path, prompts={"query": "fast ", "document": "slow "}))
    fingerprint = model.fingerprint
    assert model.default_prompt_name is None
    model.prompts = {"query": "blue ", "class": "green "}
    assert model.prompts == {"query": "blue ", "document": "slow ", "class": "green "}
    model.default_prompt_name = "class"
    assert model.default_prompt_name == "class"
    for opened in (model, pickle.loads(pickle.dumps(model))):
        np.testing.assert_allclose(opened.encode("red"), tiny_vector("green red"), atol=1e-6)
        np.testing.assert_allclose(opened.encode_query("red"), tiny_vector("blue red"), atol=1e-6)
        np.testing.assert_allclose(opened.encode("red", prompt_name="document"), tiny_vector("slow red"), atol=1e-6)
        assert opened.fingerprint == fingerprint
    model.default_prompt_name = None
    assert model.default_prompt_name is None
    np.testing.assert_allclose(model.encode("red"), tiny_vector("red"), atol=1e-6)
    with pytest.raises(InputError, match="default_prompt_name='passage'; the model has"):
        model.default_prompt_name = "passage"
    for prompts in ({"query": 1}, ["query"]):
        with pytest.raises(InputError, match="it maps kinds"):
            model.prompts = prompts  # type: ignore[assignment]


def test_tokens_by_the_names_of_the_models_inputs(tiny: Embedder) -> None:
    tokens: Any = tiny.tokenize(["red", "red green"])
    assert tokens["input_ids"].tolist() == [[*tokens.ids[0], 0], tokens.ids[1]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert tokens["token_type_ids"].shape == (2, 4)
    assert tokens[0] is tokens.ids
    assert tokens[1:] == (tokens.left_out,)
    assert list(dict(tokens)) == ["input_ids", "attention_mask", "token_type_ids"]
    assert dict(**tokens)["input_ids"].tolist() == tokens["input_ids"].tolist()
    with pytest.raises(KeyError):
        tokens["labels"]


def test_a_pool_has_no_processes(tiny: Embedder) -> None:
    pool = tiny.start_multi_process_pool(target_devices=["cpu"] * 4)
    assert pool["processes"] == []
    np.testing.assert_array_equal(tiny.encode(TEXTS, pool=pool, chunk_size=1000), tiny.encode(TEXTS))
    tiny.stop_multi_process_pool(pool)
    assert tiny.start_multi_process_pool() == pool
    with pytest.raises(InputError, match="device='cuda:0'; this Embedder runs on cpu"):
        tiny.start_multi_process_pool(["cuda:0", "cuda:1"])
    with pytest.raises(InputError, match="parallel=4: one Embedder uses all cores"):
        tiny.passage_embed(TEXTS, parallel=4)


def test_fastembeds_names(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path, prompts={"query": "fast ", "document": "slow "}))
    assert [len(vector) for vector in model.passage_embed(iter(TEXTS), batch_size=2)] == [DIM] * 4
    np.testing.assert_array_equal(list(model.passage_embed(TEXTS)), model.embed_documents(TEXTS))
    np.testing.assert_array_equal(list(model.query_embed("red")), [model.embed_query("red")])


def test_tensors_say_what_they_need(tiny: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="tensors need PyTorch, which is not installed"):
        tiny.encode("red", convert_to_tensor=True)


def test_vectors_are_shorter_inside_a_block(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path, matryoshka_dims=[DIM, 3]))
    whole, short = model.encode(TEXTS), model.encode(TEXTS, truncate_dim=3)
    assert asyncio.run(model.aembed("red")).shape == (DIM,)
    with model.truncate_embeddings(3):
        np.testing.assert_array_equal(model.encode(TEXTS), short)
        assert model.dim == 3
        assert asyncio.run(model.aembed("red")).shape == (3,)
        with model.truncate_sentence_embeddings(99):
            np.testing.assert_array_equal(model.encode(TEXTS), short)
    np.testing.assert_array_equal(model.encode(TEXTS), whole)
    with model.truncate_embeddings(None):
        np.testing.assert_array_equal(model.encode(TEXTS), whole)
    with pytest.raises(InputError, match="dim=4; this model's vectors have 5 dimensions"), model.truncate_embeddings(4):
        pass
    with model.truncate_embeddings(3):
        model.close()
    with pytest.raises(InputError, match="is closed"):
        model.encode("red")


def test_the_measure_of_similarity_is_the_cosine(tiny: Embedder) -> None:
    assert tiny.similarity_fn_name == "cosine"
    tiny.similarity_fn_name = "dot"
    with pytest.raises(InputError, match="similarity_fn_name='manhattan'; give 'cosine' or 'dot'"):
        tiny.similarity_fn_name = "manhattan"
    assert tiny.get_max_seq_length() == 32
