"""A program written for sentence-transformers, run with its own model and with an Embedder of what was exported."""

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from export.to_onnx import main
from gte_sdk import Embedder

from .conftest import DIM, CheckpointMaker

TEXTS = ["The cat sleeps on the sofa.", "", "Rates rise.", "How do I bake bread with yeast and salt?", "Über 東京"]


def program(model: Any) -> dict[str, NDArray[np.float32]]:
    return {
        "one": model.encode(TEXTS[0]),
        "all": model.encode(TEXTS),
        "batches": model.encode(TEXTS, batch_size=2, show_progress_bar=False, normalize_embeddings=True),
        "named prompt": model.encode(TEXTS, prompt_name="query"),
        "prompt": model.encode(TEXTS, prompt="title: "),
        "query": model.encode_query(TEXTS[3]),
        "queries": model.encode_query(TEXTS, show_progress_bar=False),
        "documents": model.encode_document(TEXTS),
    }


def test_a_program_can_switch(make_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("bert", prompts={"query": "question: ", "document": "passage: "})
    done = CliRunner().invoke(
        main, [str(checkpoint), "--output", str(tmp_path / "model"), "--precision", "fp32"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    expected = program(SentenceTransformer(str(checkpoint), device="cpu"))
    found = program(Embedder(tmp_path / "model"))
    assert expected["all"].shape == (len(TEXTS), DIM)
    assert not np.allclose(expected["queries"], expected["documents"], atol=1e-3)
    for name, vectors in expected.items():
        assert (found[name].shape, found[name].dtype) == (vectors.shape, vectors.dtype), name
        np.testing.assert_allclose(found[name], vectors, atol=1e-5, err_msg=name)
