"""Texts in, vectors out: values against a hand-computed model, promises and bad input against the bundled one."""

import asyncio
import copy
import pickle
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gte_sdk
from gte_sdk import (
    Embedder,
    InputError,
    InputTypeError,
    ModelFormatError,
    ModelMismatchError,
    TruncationWarning,
)
from gte_sdk.embedding import embedder
from gte_sdk.model_files.published import POOLING_MODES
from gte_sdk.runtime import tokens

from ..run_python import run_python
from ..tiny_models import DIM, WORDS, tiny_vector, write_tiny_model


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(write_tiny_model(tmp_path_factory.mktemp("tiny")), max_batch_tokens=40)


def assert_unit_rows(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=-1), 1, atol=1e-6)


# --- values


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_pooling_of_a_graph_without_its_own(tmp_path: Path, pooling: str) -> None:
    model = Embedder(write_tiny_model(tmp_path, pooling=pooling))
    texts = ["red green", "", "blue fast slow nowhere red", "slow"]
    expected = np.array([tiny_vector(text, pooling) for text in texts])
    np.testing.assert_allclose(model.embed(texts), expected, atol=1e-6)


def test_the_graphs_own_sentence_embedding_gets_unit_length(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path, output="sentence_embedding", inputs=("input_ids",))
    vector = Embedder(directory).embed("red green")
    np.testing.assert_allclose(vector, tiny_vector("red green", "sum"), atol=1e-6)


def test_token_embeddings_is_read_as_last_hidden_state(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path, output="token_embeddings", inputs=("input_ids", "token_type_ids"))
    np.testing.assert_allclose(Embedder(directory).embed("red"), tiny_vector("red"), atol=1e-6)


@given(texts=st.lists(st.lists(st.sampled_from(WORDS[4:9]), max_size=20).map(" ".join), max_size=30))
@settings(deadline=None, max_examples=50)
def test_any_mixture_of_lengths_comes_back_in_order(tiny: Embedder, texts: list[str]) -> None:
    expected = np.array([tiny_vector(text) for text in texts]).reshape(len(texts), DIM)
    np.testing.assert_allclose(tiny.embed(texts), expected, atol=1e-6)


def test_windows_are_put_together_in_order(tiny: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "WINDOW_TEXTS", 7)
    texts = [" ".join(WORDS[4 : 4 + index % 5]) for index in range(50)]
    expected = np.array([tiny_vector(text) for text in texts])
    np.testing.assert_allclose(tiny.embed(texts), expected, atol=1e-6)
    np.testing.assert_allclose(list(tiny.embed_iter(iter(texts))), expected, atol=1e-6)


def test_embed_iter_reads_no_more_than_a_window_ahead(tiny: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "WINDOW_TEXTS", 4)
    taken = []

    def texts() -> Any:
        for index in range(100):
            taken.append(index)
            yield "red"

    next(tiny.embed_iter(texts()))
    assert len(taken) == 4


def test_prompts_of_the_model(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path, prompts={"query": "query : ", "document": "document : "}))
    np.testing.assert_allclose(model.embed_query("red"), tiny_vector("query : red"), atol=1e-6)
    np.testing.assert_allclose(model.embed_documents(["red"])[0], tiny_vector("document : red"), atol=1e-6)
    np.testing.assert_allclose(model.embed("red"), tiny_vector("red"), atol=1e-6)
    assert model.prompts == {"query": "query : ", "document": "document : "}
    # sentence-transformers' names
    np.testing.assert_array_equal(model.encode_query(["red"]), model.embed_query(["red"]))
    np.testing.assert_array_equal(model.encode_document(["red"]), model.embed_documents(["red"]))
    np.testing.assert_array_equal(model.encode(["red"], prompt_name="query"), model.embed_query(["red"]))
    np.testing.assert_array_equal(model.encode(["red"], prompt="fast "), model.embed(["fast red"]))
    with pytest.raises(InputError, match=r"prompt_name='queries'; the model has \['document', 'query'\]"):
        model.encode("red", prompt_name="queries")


def test_encode_takes_sentence_transformers_arguments(tiny: Embedder) -> None:
    texts = ["red", "green blue"]
    vectors = tiny.encode(texts, batch_size=1, show_progress_bar=True, normalize_embeddings=True)
    np.testing.assert_array_equal(vectors, tiny.embed(texts))
    with pytest.raises(InputError, match="normalize_embeddings=False"):
        tiny.encode(texts, normalize_embeddings=False)
    with pytest.raises(InputError, match="batch_size=0; it must be at least 1"):
        tiny.encode(texts, batch_size=0)


def test_chunks_carry_their_characters_and_vectors(tiny: Embedder) -> None:
    text = "red green blue, fast slow red"
    chunks = tiny.embed_chunks(text, max_tokens=5)
    assert [chunk.text for chunk in chunks] == ["red green blue", ", fast slow", "red"]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    np.testing.assert_allclose(chunks[2].vector, tiny_vector("red"), atol=1e-6)
    assert [chunk.text for chunk in tiny.embed_chunks("red green blue fast", 5, overlap=1)] == [
        "red green blue",
        "blue fast",
    ]
    assert tiny.embed_chunks("") == []


def test_similar_texts_are_near(gte_mini: Embedder) -> None:
    question, answer, other = gte_mini.embed(
        [
            "How do I read a CSV file in Python?",
            "Use csv.reader on an open file to iterate over its rows.",
            "The cat sleeps on the warm window sill.",
        ]
    )
    assert question @ answer > question @ other + 0.05


# --- the documented shapes and edge cases


def test_a_list_gives_rows_and_one_text_gives_a_vector(gte_mini: Embedder) -> None:
    rows = gte_sdk.embed(["a", "b"])
    assert rows.shape == (2, 384)
    assert_unit_rows(rows)
    assert gte_sdk.embed("a").shape == (384,)
    np.testing.assert_array_equal(gte_sdk.embed("a"), gte_mini.embed("a"))
    assert gte_mini.embed(("a", "b")).shape == (2, 384)
    assert gte_mini.embed(text for text in ["a", "b"]).shape == (2, 384)
    assert gte_mini.embed(np.array(["a", "b"])).shape == (2, 384)


def test_no_texts_give_no_rows(gte_mini: Embedder) -> None:
    assert gte_mini.embed([]).shape == (0, 384)
    assert gte_mini.embed([]).dtype == np.float32
    assert list(gte_mini.embed_iter([])) == []


@pytest.mark.parametrize("text", ["", " \n\t", "\0", "a\0b", "\ud800", "x\udfff y", "\U0001f600" * 50, "\u202e"])
def test_odd_text_is_one_finite_unit_row(gte_mini: Embedder, text: str) -> None:
    rows = gte_mini.embed([text])
    assert rows.shape == (1, 384)
    assert_unit_rows(rows)


# --- truncation


def test_truncation_is_reported_with_the_number_of_tokens(gte_mini: Embedder) -> None:
    long = "word " * (gte_mini.max_tokens + 44)
    left_out = 44 + 2
    with pytest.warns(
        TruncationWarning, match=f"1 of 2 texts .* {left_out} tokens were left out, .* of text 1"
    ) as seen:
        vectors = gte_mini.embed(["short", long])
    assert seen[0].filename == __file__
    np.testing.assert_allclose(vectors[1] @ gte_mini.embed("word " * (gte_mini.max_tokens - 2)), 1, atol=1e-3)


def test_ten_megabytes_of_text(gte_mini: Embedder) -> None:
    with pytest.warns(TruncationWarning, match=f"{2_000_000 + 2 - gte_mini.max_tokens} tokens were left out"):
        vector = gte_mini.embed("word " * 2_000_000)
    assert_unit_rows(vector)


def test_truncation_modes(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path)
    text = "red " * 50
    with pytest.raises(InputError, match="20 tokens were left out"):
        Embedder(directory, truncation="error").embed(text)
    np.testing.assert_allclose(
        Embedder(directory, truncation="ignore").embed(text), tiny_vector("red " * 30), atol=1e-6
    )
    with pytest.raises(InputError, match="truncation='silent'; one of"):
        Embedder(directory, truncation="silent")


def test_max_tokens_can_be_lowered_but_not_raised(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path)
    model = Embedder(directory, max_tokens=4, truncation="ignore")
    assert model.max_tokens == 4
    np.testing.assert_allclose(model.embed("red green blue"), tiny_vector("red green"), atol=1e-6)
    for value, message in ((33, "max_tokens=33; it must be at least 3 and at most 32"), (2, "max_tokens=2; ")):
        with pytest.raises(InputError, match=message):
            Embedder(directory, max_tokens=value)


def test_vectors_are_cut_where_the_model_was_trained_for_it(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path, matryoshka_dims=[5, 3, 2])
    whole, cut = Embedder(directory), Embedder(directory, dim=3)
    assert (whole.dim, whole.dims, cut.dim, cut.dims) == (5, (5, 3, 2), 3, (3, 2))
    texts = ["red", "green blue", ""]
    first_N3 = whole.embed(texts)[:, :3]
    expected = first_N3 / np.linalg.norm(first_N3, axis=1, keepdims=True)
    np.testing.assert_allclose(cut.embed(texts), expected, atol=1e-6)
    np.testing.assert_allclose(np.stack(list(cut.embed_iter(texts))), expected, atol=1e-6)
    np.testing.assert_allclose(cut.embed_tokens(cut.tokenize(texts).ids), expected, atol=1e-6)
    assert cut.embed([]).shape == (0, 3)
    np.testing.assert_array_equal(Embedder(directory, dim=5).embed(texts), whole.embed(texts))


def test_vectors_are_not_cut_where_the_model_was_not_trained_for_it(tmp_path: Path) -> None:
    trained = write_tiny_model(tmp_path / "trained", matryoshka_dims=[5, 3])
    with pytest.raises(InputError, match=r"dim=4; this model's vectors have 5 dimensions and it was trained for 5, 3"):
        Embedder(trained, dim=4)
    with pytest.raises(InputError, match="dim=0"):
        Embedder(trained, dim=0)
    plain = write_tiny_model(tmp_path / "plain")
    assert Embedder(plain).dims == (5,)
    with pytest.raises(InputError, match=r"dim=3; .* it was not trained to be cut"):
        Embedder(plain, dim=3)
    with pytest.raises(ModelFormatError, match=r"matryoshka_dims=\[9\]; it is a list of whole numbers from 1 to 5"):
        Embedder(write_tiny_model(tmp_path / "wrong", matryoshka_dims=[9]))


def test_overlap_has_to_leave_room(tiny: Embedder) -> None:
    with pytest.raises(InputError, match="overlap=3; it must be at least 0 and below the 3 tokens"):
        tiny.embed_chunks("red green", max_tokens=5, overlap=3)
    with pytest.raises(InputTypeError, match="text is a bytes"):
        tiny.embed_chunks(b"red")  # type: ignore[arg-type]


# --- promises


def test_many_threads_share_one_embedder(tiny: Embedder) -> None:
    texts = [" ".join(WORDS[4 : 4 + index % 5]) for index in range(40)]
    expected = tiny.embed(texts)
    results: list[Any] = [None] * 16

    def work(index: int) -> None:
        for _ in range(5):
            results[index] = tiny.embed(texts)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_embedding_opens_no_socket() -> None:
    program = """
import socket
def refuse(*args, **kwargs): raise AssertionError("a socket was opened")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
import gte_sdk
print(gte_sdk.embed(["a", "b"]).shape)
"""
    assert run_python(program) == "(2, 384)\n"


def test_import_is_light_and_has_no_effects() -> None:
    program = """
import os, sys, threading
before = dict(os.environ)
import gte_sdk
heavy = {"torch", "transformers", "onnxruntime", "huggingface_hub", "click", "tqdm", "pyarrow", "pandas"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert os.environ == before
assert threading.active_count() == 1
"""
    assert run_python(program) == ""


def test_an_idle_embedder_uses_no_processor(gte_mini: Embedder) -> None:
    gte_mini.embed(["warm up"] * 8)
    used = []
    for _ in range(3):
        before = time.process_time()
        time.sleep(0.5)
        used.append(time.process_time() - before)
    assert min(used) < 0.05  # a thread that spins would use it up each time


def test_tokenizer_settings_of_the_file_are_not_followed(tiny: Embedder) -> None:
    # The file asks for 4 tokens and padding to 20 (see tiny_tokenizer).
    tokenized = tokens.tokenize(tiny._tokenizer.tokenizer, ["red green blue fast"], 32)
    assert len(tokenized.ids[0]) == 6


# --- pickles, copies and what is printed


def test_a_pickle_or_copy_opens_the_same_model_with_the_same_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path / "model", prompts={"query": "fast "}, matryoshka_dims=[DIM, 3])
    monkeypatch.chdir(tmp_path)
    model = Embedder("model", dim=3, max_tokens=4, truncation="ignore", threads=1)
    monkeypatch.chdir("/")
    expected = model.embed_query("red green blue")
    for again in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert (again.max_tokens, again.dim, again.report().threads) == (4, 3, 1)
        assert again.fingerprint == model.fingerprint
        again_vector = again.embed_query("red green blue")
        again.close()
        np.testing.assert_array_equal(again_vector, expected)
    np.testing.assert_array_equal(model.embed_query("red green blue"), expected)
    model.max_seq_length = 5
    assert copy.copy(model).max_tokens == 5


def test_a_pickle_does_not_become_another_model(tmp_path: Path) -> None:
    kept = pickle.dumps(Embedder(write_tiny_model(tmp_path / "model")))
    shutil.rmtree(tmp_path / "model")
    write_tiny_model(tmp_path / "model", pooling="cls")
    with pytest.raises(ModelMismatchError, match=r"saved with model sha256:.* is now sha256:"):
        pickle.loads(kept)


def test_an_embedder_says_what_it_is(tmp_path: Path) -> None:
    assert repr(Embedder("gte-nano")) == (
        "Embedder('gte-nano', dim=256, max_tokens=512, engine='native', device='cpu', variant='int8')"
    )
    assert repr(Embedder(write_tiny_model(tmp_path))).startswith(f"Embedder('{tmp_path}', dim=5, max_tokens=32, ")


def test_waiting_callers_get_the_same_vectors_with_the_models_prompts(tmp_path: Path) -> None:
    model = Embedder(write_tiny_model(tmp_path, prompts={"query": "fast ", "document": "slow "}))

    async def embed() -> tuple[Any, ...]:
        return await asyncio.gather(model.aembed_query("red"), model.aembed_documents(["red", "blue"]))

    query, documents = asyncio.run(embed())
    np.testing.assert_allclose(query, tiny_vector("fast red"), atol=1e-6)
    np.testing.assert_allclose(documents, [tiny_vector("slow red"), tiny_vector("slow blue")], atol=1e-6)
