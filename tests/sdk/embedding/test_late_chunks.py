"""Late chunking: a piece's vector is the mean of its tokens' states, after the model has read what is around it."""

from pathlib import Path

import numpy as np
import pytest

from gte_sdk import Embedder, InputError

from ..tiny_models import TABLE, WORDS, write_tiny_model

STORY = "Berlin is the capital of Germany. It has four million people. The city lies on the river Spree. " * 3


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


def test_a_piece_is_the_mean_of_its_own_states(tmp_path: Path) -> None:
    tiny = Embedder(write_tiny_model(tmp_path))  # the state of a token is its row
    text = "red green blue fast slow red"
    chunks = tiny.embed_chunks(text, max_tokens=5, overlap=1, late=True)
    assert [chunk.text for chunk in chunks] == ["red green blue", "blue fast slow", "slow red"]
    for chunk in chunks:
        mean = TABLE[[WORDS.index(word) for word in chunk.text.split()]].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(chunk.vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert tiny.embed_chunks("", late=True) == []


def test_both_engines_agree(gte_mini: Embedder) -> None:
    native = gte_mini.embed_chunks(STORY, max_tokens=16, overlap=3, late=True)
    graph = Embedder("gte-mini", engine="onnxruntime").embed_chunks(STORY, max_tokens=16, overlap=3, late=True)
    assert [chunk.text for chunk in native] == [chunk.text for chunk in graph]
    for ours, theirs in zip(native, graph, strict=True):
        assert ours.vector @ theirs.vector > 0.99
        assert np.linalg.norm(ours.vector) == pytest.approx(1, abs=1e-5)


def test_a_piece_knows_what_is_around_it(gte_mini: Embedder) -> None:
    query = gte_mini.embed("population of Berlin")
    plain = gte_mini.embed_chunks(STORY, max_tokens=10)
    late = gte_mini.embed_chunks(STORY, max_tokens=10, late=True)
    assert [chunk.text for chunk in late] == [chunk.text for chunk in plain]
    (place,) = [i for i, chunk in enumerate(plain) if "four million" in chunk.text][:1]
    assert "Berlin" not in plain[place].text
    assert late[place].vector @ query > plain[place].vector @ query + 0.1


def test_a_text_longer_than_the_model_reads_is_read_in_runs(gte_mini: Embedder) -> None:
    short = Embedder("gte-mini", max_tokens=34)
    text = STORY * 4
    chunks = short.embed_chunks(text, max_tokens=18, late=True)
    # Two pieces of 16 tokens fit at once, so the third begins a run of its own: the same as without what is before it.
    rest = short.embed_chunks(text[chunks[2].start :], max_tokens=18, late=True)
    np.testing.assert_array_equal(chunks[2].vector, rest[0].vector)
    assert len(chunks) > 10
    assert Embedder("gte-mini", dim=64).embed_chunks(text, max_tokens=18, late=True)[5].vector.shape == (64,)


def test_a_model_without_states_says_so(tmp_path: Path) -> None:
    for model in (Embedder("gte-nano"), Embedder(write_tiny_model(tmp_path, pooling="cls"))):
        with pytest.raises(InputError, match="late=True needs a model that averages the states"):
            model.embed_chunks("red green", late=True)
