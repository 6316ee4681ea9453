"""`gte convert` and `gte bundle --variant int8`: int8 weights as a model directory, and as one file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte
from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.runtime.int8 import at_open

from ..native.look_alikes import random_texts, write_look_alike

TEXTS = random_texts([3, 20, 60])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = write_look_alike(tmp_path / "model", "mpnet", pooling="cls")
    prompts = {"prompts": {"query": "w9 w10"}, "matryoshka_dims": [32]}
    (path / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_converted_model_gives_the_vectors_of_int8_at_open(model: Path, tmp_path: Path, cache: Path) -> None:
    converted = tmp_path / "converted"
    result = run("convert", model, "--output", converted)
    assert result.exit_code == 0, result.output
    assert "cosine to float32 0.99" in result.stderr
    assert not cache.exists()  # the directory is the place
    with Embedder(converted) as embedder, Embedder(model, variant="int8") as at_open_embedder:
        assert (embedder.engine, embedder.variant) == ("native", "int8")
        assert embedder.report().golden is not None
        assert embedder.embed_query(TEXTS).tobytes() == at_open_embedder.embed_query(TEXTS).tobytes()
        assert embedder.prompts == at_open_embedder.prompts == {"query": "w9 w10"}
        assert embedder.fingerprint == at_open_embedder.fingerprint
        assert embedder.dims == (64, 32)
        assert embedder.embed(TEXTS, dtype="int8").dtype == np.int8
    assert Embedder(converted, dim=32).embed(TEXTS, dtype="int8").shape == (3, 32)
    (cached,) = cache.glob("*.safetensors")
    assert cached.read_bytes() == (converted / "model_int8.safetensors").read_bytes()
    assert run("verify", converted).exit_code == 0


def test_what_the_directory_says(model: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n", encoding="utf-8")
    (model / "LICENSE").write_text("the licence", encoding="utf-8")
    assert run("convert", model, "--output", tmp_path / "converted", "--quiet").output == ""
    converted = tmp_path / "converted"
    report, description = read(converted / "parity.json"), read(converted / "gte.json")
    cosine = report["precisions"]["int8"]["cosine"]
    assert 0.99 < cosine["minimum"] <= cosine["quantiles"]["0.05"] <= cosine["mean"] < 1
    assert report["precisions"]["int8"]["bytes"] == (converted / "model_int8.safetensors").stat().st_size
    assert description["licence"] == "Apache-2.0"
    assert description["provenance"]["source"] == "model"
    assert str(tmp_path) not in (converted / "gte.json").read_text() + (converted / "README.md").read_text()
    assert description["files"].keys() == {
        path.relative_to(converted).as_posix() for path in converted.rglob("*") if path.is_file()
    } - {"gte.json"}
    assert (converted / "LICENSE").read_text() == "the licence"
    card = (converted / "README.md").read_text()
    assert f"mean {cosine['mean']:.4f}, least {cosine['minimum']:.4f}" in card
    assert "Licence: Apache-2.0, as the source says" in card
    assert "revision is not known" in card


def test_a_licence_that_nobody_names(model: Path, tmp_path: Path) -> None:
    assert run("convert", model, "--output", tmp_path / "converted").exit_code == 0
    assert read(tmp_path / "converted" / "gte.json")["licence"] == "NOASSERTION"
    assert "the licence of these weights is not known" in (tmp_path / "converted" / "README.md").read_text()


def test_the_same_model_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for name, threads in (("one", "1"), ("two", "2")):
        assert run("convert", model, "--output", tmp_path / name, "--threads", threads).exit_code == 0
    assert read_model_dir(tmp_path / "one").files == read_model_dir(tmp_path / "two").files
    assert (tmp_path / "one" / "gte.json").read_bytes() == (tmp_path / "two" / "gte.json").read_bytes()


def test_a_converted_model_is_converted_no_further(model: Path, tmp_path: Path) -> None:
    run("convert", model, "--output", tmp_path / "converted")
    result = run("convert", tmp_path / "converted", "--output", tmp_path / "again")
    assert result.exit_code == 1
    assert "has no float32 weights to convert: ['int8']" in result.stderr


def test_an_output_that_exists(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "converted"
    output.mkdir()
    (output / "old").touch()
    result = run("convert", model, "--output", output)
    assert (result.exit_code, "give --overwrite to replace it" in result.stderr) == (1, True)
    assert run("convert", model, "--output", output, "--overwrite").exit_code == 0
    assert not (output / "old").exists()
    result = run("convert", model, "--output", model / "config.json", "--overwrite")
    assert (result.exit_code, "is a file" in result.stderr) == (1, True)


def test_nothing_is_written_if_it_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(at_open, "LEAST_MEAN", 1.0)
        result = run("convert", model, "--output", tmp_path / "converted")
        assert (result.exit_code, "loses too much in int8" in result.stderr) == (1, True)
    (model / "config.json").write_text(json.dumps({**read(model / "config.json"), "model_type": "t5"}))
    result = run("convert", model, "--output", tmp_path / "converted")
    assert (result.exit_code, "cannot be converted to int8: config.json has model_type='t5'" in result.stderr) == (
        1,
        True,
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_directory_is_refused(model: Path, tmp_path: Path) -> None:
    run("convert", model, "--output", tmp_path / "converted")
    weights = tmp_path / "converted" / "model_int8.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = run("verify", tmp_path / "converted")
    assert (result.exit_code, "model_int8.safetensors has SHA-256" in result.stderr) == (1, True)


def test_a_bundle_in_int8(model: Path, tmp_path: Path) -> None:
    for name in ("one.gte", "two.gte"):
        result = run("bundle", model, tmp_path / name, "--variant", "int8")
        assert result.exit_code == 0, result.output
    assert (tmp_path / "one.gte").read_bytes() == (tmp_path / "two.gte").read_bytes()
    assert run("verify", tmp_path / "one.gte").exit_code == 0
    with Embedder(tmp_path / "one.gte") as bundled, Embedder(model, variant="int8") as embedder:
        assert bundled.variant == "int8"
        assert bundled.embed(TEXTS).tobytes() == embedder.embed(TEXTS).tobytes()
