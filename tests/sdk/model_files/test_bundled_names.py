"""Bundled models by their names: more than one in the package, and what a name that leads nowhere is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.cli.commands import gte
from gte_sdk.model_files.directory import bundled_models, fingerprint_of_weights, write_gte_json

from ..tiny_models import DIM, tiny_vector, write_json, write_tiny_model


@pytest.fixture
def two_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("gte-mini", "gte-nano"):
        write_tiny_model(tmp_path / name)
        write_gte_json(
            tmp_path / name, name=name, dim=DIM, max_tokens=32, pooling="mean", prompts={},
            fingerprint=fingerprint_of_weights(name, "t", "mean"), licence="Apache-2.0", provenance={},
        )  # fmt: skip
    monkeypatch.setattr("gte_sdk.model_files.directory._BUNDLED", tmp_path)
    return tmp_path


def test_each_bundled_model_is_chosen_by_its_name(two_bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled_models() == ["gte-mini", "gte-nano"]
    nano = Embedder("gte-nano")
    assert nano.fingerprint == fingerprint_of_weights("gte-nano", "t", "mean")
    np.testing.assert_allclose(nano.embed("red green"), tiny_vector("red green"), atol=1e-6)
    # A folder of that name where the program runs does not come before the package.
    (two_bundled / "here" / "gte-nano").mkdir(parents=True)
    monkeypatch.chdir(two_bundled / "here")
    assert Embedder("gte-nano").fingerprint == nano.fingerprint
    listed = CliRunner().invoke(gte, ["models", "--json"])
    assert [(model["name"], model["from"]) for model in json.loads(listed.stdout)][:2] == [
        ("gte-mini", "bundled"), ("gte-nano", "bundled"),
    ]  # fmt: skip
    result = CliRunner().invoke(gte, ["doctor", "--model", "gte-nano", "--json"])
    report = json.loads(result.stdout)
    assert report["self_test"]["fingerprint"] == nano.fingerprint


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("gte-nanno", "did you mean 'gte-nano'?"),
        ("GTE-Mini", "did you mean 'gte-mini'?"),
        ("gte-small", "did you mean 'thenlper/gte-small'?"),
        ("all-MiniLM-L6-v2", "did you mean 'sentence-transformers/all-MiniLM-L6-v2'?"),
        ("zzz", "nor a Hub name like 'owner/model'"),
    ],
)
def test_an_unknown_name_is_told_what_there_is(two_bundled: Path, name: str, suggestion: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        Embedder(name)
    message = str(caught.value)
    assert message.startswith(f"model={name!r} is neither a bundled model (gte-mini, gte-nano), nor a directory")
    assert message.endswith(suggestion)


def test_a_graph_without_the_layers_behind_the_pooling_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    kinds = ("Transformer", "Pooling", "Dense")
    write_json(tmp_path / "modules.json", [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds])
    with pytest.raises(ModelFormatError, match=r"no output sentence_embedding, and .* has a module Dense"):
        Embedder(tmp_path)
    write_tiny_model(tmp_path, output="sentence_embedding")
    np.testing.assert_allclose(Embedder(tmp_path).embed("red"), tiny_vector("red", "sum"), atol=1e-6)
