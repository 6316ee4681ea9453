"""A program written for sentence-transformers, run with its own model and with an Embedder of what was exported."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from export.to_onnx import main
from gte_sdk import Embedder

from .conftest import DIM, CheckpointMaker

TEXTS = ["The cat sleeps on the sofa.", "", "Rates rise.", "How do I bake bread with yeast and salt?", "Über 東京"]


# sentence-transformers' README and its page on semantic search, but for the model's name and the texts.
README = """
model = SentenceTransformer(NAME)
sentences = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]
embeddings = model.encode(sentences)
print(embeddings.shape)
similarities = model.similarity(embeddings, embeddings)
print(similarities)
"""
SEMANTIC_SEARCH = """
import torch

embedder = SentenceTransformer(NAME)
corpus = ["The cat sleeps on the sofa.", "Rates rise.", "How do I bake bread?", "Bread needs yeast and salt."]
corpus_embeddings = embedder.encode_document(corpus, convert_to_tensor=True)
queries = ["yeast for bread", "interest rates"]
top_k = min(5, len(corpus))
for query in queries:
    query_embedding = embedder.encode_query(query, convert_to_tensor=True)
    similarity_scores = embedder.similarity(query_embedding, corpus_embeddings)[0]
    scores, indices = torch.topk(similarity_scores, k=top_k)
    print("\\nQuery:", query)
    for score, idx in zip(scores, indices):
        print(f"(Score: {score:.3f})", corpus[idx])

from sentence_transformers import util

hits = util.semantic_search(query_embedding, corpus_embeddings, top_k=2)[0]
for hit in hits:
    print(corpus[hit["corpus_id"]], f"(Score: {hit['score']:.3f})")
print("Max Sequence Length:", embedder.max_seq_length)
embedder.max_seq_length = 8
print("Max Sequence Length:", embedder.max_seq_length)
"""


def run(source: str, model: Any, name: Path) -> tuple[str, dict[str, Any]]:
    """What a program prints, and its names. Its first statement, the import, is left to this test."""
    output = io.StringIO()
    names: dict[str, Any] = {"SentenceTransformer": model, "NAME": str(name)}
    with contextlib.redirect_stdout(output):
        exec(source, names)
    return output.getvalue(), names


def program(model: Any) -> dict[str, NDArray[np.float32]]:
    vectors = model.encode(TEXTS)
    return {
        "one": model.encode(TEXTS[0]),
        "all": model.encode(TEXTS),
        "batches": model.encode(TEXTS, batch_size=2, show_progress_bar=False, normalize_embeddings=True),
        "named prompt": model.encode(TEXTS, prompt_name="query"),
        "prompt": model.encode(TEXTS, prompt="title: "),
        "query": model.encode_query(TEXTS[3]),
        "queries": model.encode_query(TEXTS, show_progress_bar=False),
        "documents": model.encode_document(TEXTS),
        "positional": model.encode(TEXTS, "query", None, 2, False, "sentence_embedding", "float32", True, False, "cpu"),
        "query with another prompt": model.encode_query(TEXTS, prompt="title: "),
        "tensor": model.encode(TEXTS, convert_to_tensor=True).numpy(),
        "list of tensors": np.stack([row.numpy() for row in model.encode(TEXTS, convert_to_numpy=False)]),
        "one tensor": model.encode(TEXTS[0], convert_to_numpy=False).numpy(),
        "ubinary": model.encode(TEXTS, precision="ubinary"),
        "binary": model.encode(TEXTS, precision="binary"),
        "one text, binary": model.encode(TEXTS[0], precision="binary"),
        "binary tensor": model.encode(TEXTS, precision="binary", convert_to_tensor=True).numpy(),
        "similarity": np.asarray(model.similarity(vectors, vectors[:2])),
        "similarity of one": np.asarray(model.similarity(vectors[0], list(vectors))),
        "similarity of tensors": model.similarity(model.encode(TEXTS, convert_to_tensor=True), vectors).numpy(),
        "pairs": np.asarray(model.similarity_pairwise(vectors[:2], vectors[2:4])),
        "ids": np.asarray(model.tokenize(TEXTS)["input_ids"]),
        "mask": np.asarray(model.tokenize(TEXTS)["attention_mask"]),
    }


@pytest.fixture(scope="module")
def exported(make_checkpoint: CheckpointMaker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and the model directory that was exported from it."""
    checkpoint = make_checkpoint("bert", prompts={"query": "question: ", "document": "passage: "})
    directory = tmp_path_factory.mktemp("exported") / "model"
    options = [str(checkpoint), "--output", str(directory), "--precision", "fp32"]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return checkpoint, directory


def test_a_default_prompt_and_lower_case_before_a_cased_tokenizer(
    make_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint("bert", prompts={"topic": "topic: "})
    for name, changes in (
        ("config_sentence_transformers.json", {"default_prompt_name": "topic"}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("tokenizer.json", {"normalizer": None}),
    ):
        fields = json.loads((checkpoint / name).read_text(encoding="utf-8"))
        (checkpoint / name).write_text(json.dumps({**fields, **changes}), encoding="utf-8")
    done = CliRunner().invoke(
        main, [str(checkpoint), "--output", str(tmp_path / "model"), "--precision", "fp32"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    texts = ["The Cat Sleeps", "the cat sleeps"]
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(texts)
    np.testing.assert_allclose(expected[0], expected[1], atol=1e-6)
    np.testing.assert_allclose(Embedder(tmp_path / "model").encode(texts), expected, atol=1e-5)
    config = json.loads((tmp_path / "model/config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert config["prompts"][config["default_prompt_name"]] == "topic: "


def test_a_program_can_switch(exported: tuple[Path, Path]) -> None:
    checkpoint, directory = exported
    expected = program(SentenceTransformer(str(checkpoint), device="cpu"))
    found = program(Embedder(directory))
    assert expected["all"].shape == (len(TEXTS), DIM)
    assert not np.allclose(expected["queries"], expected["documents"], atol=1e-3)
    for name, vectors in expected.items():
        assert (found[name].shape, found[name].dtype) == (vectors.shape, vectors.dtype), name
        np.testing.assert_allclose(found[name], vectors, atol=1e-5, err_msg=name)


def test_token_embeddings(exported: tuple[Path, Path]) -> None:
    checkpoint, directory = exported
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS, output_value="token_embeddings")
    found = Embedder(directory).encode(TEXTS, output_value="token_embeddings", convert_to_tensor=True)
    for text, states, own in zip(TEXTS, expected, found, strict=True):
        np.testing.assert_allclose(own.numpy(), states.numpy(), atol=1e-4, err_msg=text)


def test_the_programs_of_its_documentation_run_unchanged(exported: tuple[Path, Path]) -> None:
    checkpoint, directory = exported
    expected, expected_names = run(README, SentenceTransformer, checkpoint)
    found, names = run(README, Embedder, directory)
    assert found.startswith("(3, 32)\n[[")
    assert expected.startswith("(3, 32)\ntensor([[")  # whatever it is given
    np.testing.assert_allclose(names["similarities"], expected_names["similarities"].numpy(), atol=1e-5)
    assert run(SEMANTIC_SEARCH, Embedder, directory)[0] == run(SEMANTIC_SEARCH, SentenceTransformer, checkpoint)[0]
