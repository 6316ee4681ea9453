"""The deployment pages use options and routes that `gte serve` has."""

import re
from pathlib import Path

import click
import pytest

from gte_sdk.cli.serve import serve

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/how-to/deploy.md", ROOT / "docs/how-to/run-in-docker.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_the_server_exist(page: Path) -> None:
    known = {name for option in serve.params if isinstance(option, click.Option) for name in option.opts}
    lines = re.findall(r"^.*(?:gte serve|\"gte\", \"serve\"|command: \[).*$", page.read_text("utf-8"), re.MULTILINE)
    assert lines
    for line in lines:
        assert set(re.findall(r"--[a-z][a-z-]*", line)) <= known, line


def test_probes_ask_for_routes_that_exist() -> None:
    routes = (ROOT / "gte_sdk/server/application.py").read_text("utf-8")
    text = "".join(page.read_text("utf-8") for page in PAGES)
    probed = re.findall(r"(?:path: |health_uri |respond |location = |:8000)(/\w+)\b", text)
    assert len(probed) >= 6
    for path in probed:
        assert f'Route("{path}"' in routes or path == "/v1", path
