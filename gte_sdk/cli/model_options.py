"""The options of every command that runs a model."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gte_sdk.embedding.embedder import DEFAULT_MODEL

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """Adds --model, --device and --threads."""
    options = (
        click.option(
            "--model", default=DEFAULT_MODEL, show_default=True, metavar="MODEL",
            help="A bundled model, a model directory, a bundle (app.gte), or a Hub name such as thenlper/gte-small.",
        ),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option(
            "--threads", type=click.IntRange(min=1), metavar="N",
            help="The number of threads; by default as many as this process may use.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
