"""Models by their Hub name, against a stand-in Hub on the loopback interface. The cache is a new folder each time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import hub

from .hub_stand_in import COMMIT, serve_hub
from .tiny_models import tiny_vector, write_tiny_model

NAME = "somebody/tiny-model"
PROGRAM = """
import json, sys
from gte_sdk import Embedder, GteError
name, arguments = sys.argv[1], json.loads(sys.argv[2])
try:
    model = Embedder(name, **arguments)
    print(json.dumps({"vector": model.embed("red green").tolist(), "fingerprint": model.fingerprint}))
except GteError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


def embed_in_new_process(endpoint: str, cache: Path, name: str = NAME, **arguments: object) -> dict[str, Any]:
    # huggingface_hub reads its environment when it is imported, hence a process of its own.
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, json.dumps(arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"},
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def test_a_hub_model_is_fetched_once_and_then_works_offline(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"not wanted")
    cache = tmp_path / "cache"
    with serve_hub(NAME, source) as (endpoint, requests):
        online = embed_in_new_process(endpoint, cache)
        np.testing.assert_allclose(online["vector"], tiny_vector("red green"), atol=1e-6)
        assert any(request.endswith("onnx/model.onnx") for request in requests)
        assert not any("pytorch_model.bin" in request for request in requests)
        pinned = embed_in_new_process(endpoint, cache, revision=COMMIT)
        assert pinned == online
        requests.clear()
        offline = embed_in_new_process(endpoint, cache, offline=True)
        assert offline == online
        assert requests == []
        unknown = embed_in_new_process(endpoint, cache, "somebody/else")
    assert unknown["error"] == "HubError"
    assert "model='somebody/else'" in str(unknown["message"])
    # The server is gone now.
    assert embed_in_new_process(endpoint, cache, offline=True) == online


def test_offline_and_not_in_the_cache(tmp_path: Path) -> None:
    with serve_hub(NAME, tmp_path) as (endpoint, requests):
        answer = embed_in_new_process(endpoint, tmp_path / "cache", offline=True)
    assert answer["error"] == "HubError"
    assert "is not in the cache; fetch it once with the network on" in str(answer["message"])
    assert requests == []


def test_a_repository_without_a_graph(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source", graph_name="onnx/other.onnx")
    with serve_hub(NAME, source) as (endpoint, _):
        answer = embed_in_new_process(endpoint, tmp_path / "cache", variant="int8")
    assert answer["error"] == "HubError"
    assert "has none of ['onnx/model_quantized.onnx'" in str(answer["message"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thenlper/gte-small", True),
        ("a/b.c_d-1", True),
        ("gte-mini", False),
        ("a/b/c", False),
        ("../a", False),
        ("/a/b", False),
        ("a b/c", False),
        ("C:\\models\\x", False),
    ],
)
def test_what_looks_like_a_hub_name(name: str, expected: bool) -> None:
    assert hub.is_hub_name(name) == expected
