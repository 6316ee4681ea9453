"""Models of the Hub whose weights have no graph, and int8 of their float32 weights: which files are fetched."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder
from gte_sdk.model_files.hub.needed_files import NATIVE_MODEL_TYPES
from gte_sdk.runtime.native.architectures import ARCHITECTURES

from ...model_files.hub_programs import hub_environment
from ...model_files.hub_stand_in import serve_hub
from ..native.look_alikes import random_texts, write_look_alike

NAME = "somebody/look-alike"
TEXTS = random_texts([3, 20])
PROGRAM = """
import json, sys, warnings
from gte_sdk import Embedder
answers = []
for options in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Embedder(sys.argv[2], **options) as embedder:
                vectors = embedder.embed(json.loads(sys.argv[3]))
                answer = {"variant": embedder.variant, "engine": embedder.engine, "bits": vectors.tobytes().hex()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.append({**answer, "warnings": [str(warning.message) for warning in caught]})
print(json.dumps(answers))
"""


def open_all(endpoint: str, folder: Path, options: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a process of its own, because huggingface_hub reads its environment when it is imported."""
    environment = {**hub_environment(endpoint, folder / "hub"), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", PROGRAM, json.dumps(options), NAME, json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def bits(embedder: Embedder) -> str:
    return embedder.embed(TEXTS).tobytes().hex()


def test_the_table_of_model_types_is_that_of_the_native_engine() -> None:
    assert set(NATIVE_MODEL_TYPES) == set(ARCHITECTURES)


def test_weights_without_a_graph_in_fp32_and_int8(tmp_path: Path) -> None:
    source = write_look_alike(tmp_path / "source", "roberta")
    with serve_hub(NAME, source) as (endpoint, requests):
        answers = open_all(endpoint, tmp_path, [{}, {"variant": "int8"}, {"variant": "int8", "offline": True}])
        assert sum("model.safetensors" in request for request in requests) == 1
    assert [answer["variant"] for answer in answers] == ["fp32", "int8", "int8"]
    assert [answer["engine"] for answer in answers] == ["native"] * 3
    assert [answer["warnings"] for answer in answers] == [[]] * 3
    assert answers[0]["bits"] == bits(Embedder(source))
    assert answers[1]["bits"] == answers[2]["bits"] == bits(Embedder(source, variant="int8"))


def test_float32_weights_go_before_the_int8_graph_of_others(tmp_path: Path) -> None:
    source = write_look_alike(tmp_path / "source")
    (source / "onnx").mkdir()
    (source / "onnx" / "model_quantized.onnx").write_bytes(b"another one's graph")
    with serve_hub(NAME, source) as (endpoint, requests):
        (native,) = open_all(endpoint, tmp_path, [{"variant": "int8"}])
        assert not any("model_quantized" in request for request in requests)
        (foreign,) = open_all(endpoint, tmp_path, [{"variant": "int8", "engine": "onnxruntime"}])
        assert any("model_quantized" in request for request in requests)
    assert native["bits"] == bits(Embedder(source, variant="int8"))
    assert "model_quantized.onnx is not a graph that onnxruntime" in foreign["error"]


def test_weights_in_several_files(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors comes with the extra export")
    source = write_look_alike(tmp_path / "source")
    whole = bits(Embedder(source))
    tensors = safetensors.load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    shards = {f"model-0000{part + 1}-of-00002.safetensors": list(tensors)[part::2] for part in range(2)}
    for file, names in shards.items():
        safetensors.save_file({name: np.array(tensors[name]) for name in names}, source / file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with serve_hub(NAME, source) as (endpoint, _):
        fp32, int8 = open_all(endpoint, tmp_path, [{}, {"variant": "int8", "offline": True}])
    assert fp32["bits"] == whole
    assert int8["variant"] == "int8"


def test_an_architecture_that_no_engine_runs_without_a_graph_is_not_downloaded(tmp_path: Path) -> None:
    source = write_look_alike(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "deberta-v2"}))
    with serve_hub(NAME, source) as (endpoint, requests):
        answers = open_all(endpoint, tmp_path, [{}, {"variant": "int8"}])
        assert not any("model.safetensors" in request for request in requests)
    assert all("HubError: " in answer["error"] for answer in answers)
    assert "has safetensors weights and no ONNX graph" in answers[0]["error"]
