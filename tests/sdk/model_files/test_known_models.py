"""The table of known models: which names it takes for one of them, and that its rows are whole."""

from pathlib import Path

import numpy as np
import pytest

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.model_files.known_models import KNOWN_MODELS, KnownModel, known_model, original_name
from gte_sdk.model_files.published import POOLING_MODES

from ..tiny_models import tiny_vector, write_json, write_tiny_model


@pytest.mark.parametrize("row", KNOWN_MODELS, ids=lambda row: row.names[0])
def test_a_row_is_whole(row: KnownModel) -> None:
    assert len(row.names) == len(row.dims)
    assert row.pooling in POOLING_MODES
    assert 128 <= row.max_tokens <= 32768
    assert row.source
    assert row.licence
    assert row.languages
    assert set(row.prompts) <= {"query", "passage", "document"}
    for name in row.names:
        assert known_model(name) is row  # no name is in two rows
        assert original_name(f"Xenova/{name}-ONNX") == f"{row.owner}/{name}"


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("onnx-community/gte-multilingual-base", "Alibaba-NLP/gte-multilingual-base"),
        ("onnx-community/gte-modernbert-base-ONNX", "Alibaba-NLP/gte-modernbert-base"),
        ("Qdrant/bge-small-en-v1.5-onnx-Q", "BAAI/bge-small-en-v1.5"),
        ("qdrant/multilingual-e5-large-onnx", "intfloat/multilingual-e5-large"),
        ("somebody/E5-Small-V2_onnx_int8", "intfloat/e5-small-v2"),
        ("/root/models/sentence-transformers/LaBSE/", "sentence-transformers/LaBSE"),
        ("C:\\models\\gte-small", "thenlper/gte-small"),
        ("gte-small", "thenlper/gte-small"),
        ("somebody/gte-small-legal", None),
        ("somebody/legal-gte-small", None),
        ("somebody/onnx", None),
        ("BAAI/bge-reranker-base", None),
        ("", None),
    ],
)
def test_the_model_that_a_name_means(name: str, original: str | None) -> None:
    assert original_name(name) == original
    assert (known_model(name) is None) == (original is None)


def write_conversion(path: Path, **config: object) -> Path:
    """A graph, its tokenizer and config.json, and nothing that says what becomes of the token states."""
    write_tiny_model(path)
    (path / "1_Pooling" / "config.json").unlink()
    (path / "config_sentence_transformers.json").unlink()
    write_json(path / "config.json", {"model_type": "bert", "hidden_size": 5, "max_position_embeddings": 512, **config})
    return path


def test_a_local_folder_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    model = Embedder(write_conversion(tmp_path / "a", _name_or_path="sentence-transformers/all-MiniLM-L6-v2"))
    np.testing.assert_allclose(model.embed("red green"), tiny_vector("red green"), atol=1e-6)
    assert (model.max_tokens, model.prompts) == (256, {})
    cls = Embedder(write_conversion(tmp_path / "b", _name_or_path="BAAI/bge-small-en-v1.5"))
    assert cls.prompts == {"query": "Represent this sentence for searching relevant passages: "}
    np.testing.assert_allclose(cls.embed("red"), tiny_vector("red", "cls"), atol=1e-6)
    # A directory that describes itself may be a fine-tuned model, whose prompts are others.
    tuned = write_tiny_model(tmp_path / "c", pooling="mean")
    write_json(
        tuned / "modules.json",
        [
            {"type": f"sentence_transformers.models.{kind}", "path": at}
            for kind, at in (("Transformer", ""), ("Pooling", "1_Pooling"))
        ],
    )
    write_json(tuned / "config.json", {"hidden_size": 5, "max_position_embeddings": 32, "_name_or_path": "BAAI/bge-m3"})
    np.testing.assert_allclose(Embedder(tuned).embed("red"), tiny_vector("red"), atol=1e-6)


def test_what_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    path = write_conversion(tmp_path / "gte-multilingual-base")
    with pytest.raises(ModelFormatError) as caught:
        Embedder(path)
    assert (
        "has no output sentence_embedding, and nothing says how the states of its tokens become one vector; pass"
        in (str(caught.value))
    )
    assert "(Alibaba-NLP/gte-multilingual-base, of the same name, has 'cls')" in str(caught.value)
    for pooling in POOLING_MODES:
        model = Embedder(path, pooling=pooling, prompts={"query": "query : ", "passage": ""})
        np.testing.assert_allclose(model.embed("red slow"), tiny_vector("red slow", pooling), atol=1e-6)
        np.testing.assert_allclose(model.embed_query("red"), tiny_vector("query : red", pooling), atol=1e-6)
        assert model.prompts == {"query": "query : ", "passage": "", "document": ""}
    # The pooling is part of the vector space.
    assert Embedder(path, pooling="cls").fingerprint != Embedder(path, pooling="mean").fingerprint


def test_a_length_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    write_json(path / "config.json", {"model_type": "bert", "hidden_size": 5})
    with pytest.raises(ModelFormatError, match="nothing says how many tokens the model reads; pass max_tokens= "):
        Embedder(path)
    assert Embedder(path, max_tokens=7).max_tokens == 7


def test_a_known_model_that_cannot_be_run(tmp_path: Path) -> None:
    path = write_conversion(tmp_path, _name_or_path="jinaai/jina-embeddings-v3")
    with pytest.raises(ModelFormatError, match="jina-embeddings-v3 cannot be run: its graph takes a task_id"):
        Embedder(path)
    without_dense = write_conversion(tmp_path / "b", _name_or_path="Xenova/LaBSE")
    with pytest.raises(
        ModelFormatError, match="sentence-transformers/LaBSE has dense layers behind the pooling, which"
    ):
        Embedder(without_dense)
