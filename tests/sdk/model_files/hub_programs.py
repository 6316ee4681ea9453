"""Models of a stand-in Hub, opened in processes of their own: huggingface_hub reads its environment when imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys, warnings
from gte_sdk import Embedder, GteError
for name, arguments in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = Embedder(name, **arguments)
            answer = {
                "query": model.embed_query("red green").tolist(), "vector": model.embed("red green").tolist(),
                "document": model.embed_documents("red green").tolist(), "prompts": model.prompts,
                "variant": model.variant, "fingerprint": model.fingerprint, "max_tokens": model.max_tokens,
            }
        except GteError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
    answer["warnings"] = [str(warning.message) for warning in caught]
    print(json.dumps(answer))
"""
# Whatever the machine has set must not reach the tests.
_NOT_INHERITED = {
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT",
}  # fmt: skip


def hub_environment(endpoint: str, cache: Path, **variables: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key.upper() not in _NOT_INHERITED}
    # huggingface_hub asks again after 10 seconds, which the tests would count as another request.
    patient = {"HF_HUB_ETAG_TIMEOUT": "120", "HF_HUB_DOWNLOAD_TIMEOUT": "300"}
    return {
        **inherited,
        **patient,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        **variables,
    }


def start(calls: list[tuple[str, dict[str, Any]]], environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, json.dumps(calls)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def answers_of(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


def open_all(
    calls: list[tuple[str, dict[str, Any]]], endpoint: str, cache: Path, **variables: str
) -> list[dict[str, Any]]:
    """What opening each model gave, in one new process: its vectors and facts, or its error and message."""
    return answers_of(start(calls, hub_environment(endpoint, cache, **variables)))


def open_one(endpoint: str, cache: Path, name: str, **arguments: Any) -> dict[str, Any]:
    return open_all([(name, arguments)], endpoint, cache)[0]
