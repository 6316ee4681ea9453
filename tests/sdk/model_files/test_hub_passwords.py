"""A password in HF_ENDPOINT or a proxy's address is never printed, whatever goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from ..tiny_models import write_tiny_model
from .hub_programs import hub_environment, open_one
from .hub_stand_in import COMMIT, Fault, open_hub

NAME = "somebody/tiny-model"
ADDRESS = "http://user:s3cret@pass@127.0.0.1:9"  # nothing listens at port 9


COMMANDS = [
    ["download", NAME],
    ["embed", "--model", NAME, "texts.txt"],
    ["search", "red", "texts.txt", "--model", NAME],
    ["index", "texts.txt", "-o", "x.index", "--model", NAME],
    ["bundle", NAME, "x.gte"],
    ["verify", NAME],
    ["doctor", "--json"],
    ["models"],
    ["serve", "--model", NAME, "--port", "0"],
]


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        *((arguments, "HF_ENDPOINT") for arguments in COMMANDS),
        *((COMMANDS[0], variable) for variable in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")),
    ],
)
def test_no_command_prints_a_password(arguments: list[str], variable: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("red\n", encoding="utf-8")
    environment = hub_environment("http://127.0.0.1:9", tmp_path / "cache", **{variable: ADDRESS})
    command = [sys.executable, "-m", "gte_sdk.cli", *arguments]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert "s3cret" not in result.stdout + result.stderr
    assert "@pass" not in result.stdout + result.stderr


@pytest.mark.parametrize("status", ["403", "429", "503", None])
def test_no_error_of_the_hub_says_a_password(status: str | None, tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        if status is not None:
            served.faults.append(Fault("GET /api/models", status, times=99))
        endpoint = served.endpoint.replace("//", "//user:s3cret@")
        answer = open_one(endpoint, tmp_path / "cache", NAME if status else "somebody/else")
    assert answer["error"] == "HubError"
    assert "s3cret" not in answer["message"]
    if status != "429":
        assert served.endpoint in answer["message"]
