"""What the commands that run a model share: its options, opening it, and embedding one batch after the other."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.embedding.text_kinds import TextKind, embed_function
from gte_sdk.errors import TruncationWarning

Command = TypeVar("Command", bound=Callable[..., Any])


class Embedded(NamedTuple):
    vectors: NDArray[np.float32]
    """(n, dim), rows of unit length."""
    was_cut: bool
    """Whether a text was longer than the model reads."""


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


def embed_batch(embedder: Embedder, texts: Sequence[str], kind: TextKind) -> Embedded:
    """The vectors of some texts with the model's prompt for their kind; a cut text is reported, not warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        vectors_ND = embed_function(embedder, kind)(texts)
    was_cut = False
    for warning in caught:
        if issubclass(warning.category, TruncationWarning):
            was_cut = True
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return Embedded(vectors_ND, was_cut)
