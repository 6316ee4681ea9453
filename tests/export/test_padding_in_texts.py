"""Texts that contain the padding token itself: the same vectors as sentence-transformers', on every engine.

RoBERTa and its relatives count positions without the tokens that have the padding's id, wherever they stand. MPNet's
code knows one such id, 1, whatever the configuration says: here it is that of [UNK].
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer

from export.to_onnx import main
from gte_sdk import Embedder

from .conftest import CheckpointMaker

# The second one is as long as the models read.
TEXTS = [
    "[PAD] is a token [PAD] [PAD] of the tokenizer",
    "the [PAD] cat [PAD] sleeps [UNK] on the sofa " * 9,
    "[PAD]",
    "[PAD][PAD] bread",
    "bread and salt [PAD]",
    "東 [UNK] 京 bread [UNK]",
    "bread",
]
ARCHITECTURES = ["bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "gte", "modernbert"]


@pytest.fixture(params=ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest, make_checkpoint: CheckpointMaker) -> Path:
    return make_checkpoint(request.param)


def test_every_engine_counts_positions_as_transformers_does(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of int8 weights
    output = tmp_path / "model"
    done = CliRunner().invoke(
        main, [str(checkpoint), "--output", str(output), "--precision", "fp32"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    for engine in ("native", "onnxruntime"):
        embedder = Embedder(output, engine=engine, truncation="ignore")
        assert (embedder.engine, embedder.variant) == (engine, "fp32")
        np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5, err_msg=engine)
        np.testing.assert_allclose([embedder.embed(text) for text in TEXTS], expected, atol=1e-5, err_msg=engine)
    int8 = Embedder(output, variant="int8", truncation="ignore")
    assert (int8.engine, int8.variant) == ("native", "int8")
    np.testing.assert_array_less(0.99, np.einsum("nd,nd->n", int8.embed(TEXTS), expected))


def test_a_directory_of_weights_alone(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    embedder = Embedder(tmp_path / "model", truncation="ignore")
    assert (embedder.engine, embedder.report().graph.name) == ("native", "model.safetensors")
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5)
