"""The options of every command that runs a model, and the model that they describe."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from click.shell_completion import CompletionItem

from gte_sdk.embedding.embedder import DEFAULT_MODEL, Embedder
from gte_sdk.errors import GteError, IndexFormatError, ModelFormatError
from gte_sdk.model_files.directory import bundled_models, read_model_dir
from gte_sdk.model_files.locate import locate_model
from gte_sdk.model_files.published import IN_GRAPH, POOLING_MODES, ModelFacts

Command = TypeVar("Command", bound=Callable[..., Any])
_FACTS = "gte_sdk.model_facts"


_MODEL_HELP = "A bundled model, a model directory, a bundle (app.gte), or a Hub name such as thenlper/gte-small."


def model_options(command: Command) -> Command:
    """Adds --model, --device and --threads, and those of `fact_options`."""
    model = click.option(
        "--model", default=DEFAULT_MODEL, show_default=True, metavar="MODEL", shell_complete=complete_model,
        help=_MODEL_HELP,
    )  # fmt: skip
    return model(_device_options(command))


def several_models_options(command: Command) -> Command:
    """The same with a --model that can be repeated: the parameter `models`."""
    model = click.option(
        "--model", "models", default=[DEFAULT_MODEL], show_default=True, metavar="MODEL", multiple=True,
        shell_complete=complete_model, help=f"{_MODEL_HELP} Can be repeated.",
    )  # fmt: skip
    return model(_device_options(command))


def _device_options(command: Command) -> Command:
    options = (
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option(
            "--threads", type=click.IntRange(min=1), metavar="N",
            help="The number of threads; by default as many as this process may use.",
        ),
    )  # fmt: skip
    return _with_options(fact_options(command), options)


def fact_options(command: Command) -> Command:
    """Adds what a model's files may not say: --pooling, --prompt and --max-tokens.

    They are no parameters of the command: `open_model` and `model_facts` read them.
    """
    options = (
        click.option(
            "--pooling", type=click.Choice([*POOLING_MODES, IN_GRAPH]), expose_value=False, callback=_keep,
            help="How the model makes a vector of token states, if its files do not say it.",
        ),
        click.option(
            "--prompt", "prompts", multiple=True, metavar="KIND=TEXT", expose_value=False, callback=_keep,
            help="What to put before texts of a kind, such as 'query=query: '. Can be repeated.",
        ),
        click.option(
            "--max-tokens", type=click.IntRange(min=1), metavar="N", expose_value=False, callback=_keep,
            help="The most tokens to read of a text; by default as many as the model reads.",
        ),
    )  # fmt: skip
    return _with_options(command, options)


def no_server_option(command: Command) -> Command:
    """Adds --no-server."""
    return click.option(
        "--no-server", is_flag=True, help="Open the model here, even if a gte serve --socket has the same one open."
    )(command)


def recorded_fingerprint(model: str) -> str | None:
    """The fingerprint of a model without opening it; None if its files do not record it, or it is not here."""
    with contextlib.suppress(GteError, OSError):
        return read_model_dir(locate_model(model, "auto", None, True)).fingerprint
    return None


def model_facts() -> ModelFacts:
    """What the running command's options say of the model."""
    facts: ModelFacts = click.get_current_context().meta.get(_FACTS, ModelFacts())
    return facts


def facts_to_keep() -> dict[str, Any] | None:
    """The options of the running command that an index keeps, as JSON; None if there are none."""
    return {name: value for name, value in model_facts()._asdict().items() if value is not None} or None


def use_kept_facts(kept: Mapping[str, Any] | None) -> None:
    """Lets the running command open a model as an index describes it, as far as its own options do not say it.

    Raises IndexFormatError for a description that is none.
    """
    facts = dict(kept or {})
    prompts = facts.get("prompts") or {}
    is_known = set(facts) <= set(ModelFacts._fields) and isinstance(prompts, dict)
    if not is_known or not all(isinstance(text, str) for text in prompts.values()):
        raise IndexFormatError(f"the index describes its model by {facts!r:.200}, which is no description")
    meta = click.get_current_context().meta
    meta[_FACTS] = ModelFacts(**{**facts, **(facts_to_keep() or {})})


def open_model(
    model: str,
    device: str = "auto",
    threads: int | None = None,
    *,
    offline: bool | None = None,
    truncation: str = "warn",
    revision: str | None = None,
    variant: str = "auto",
    dim: int | None = None,
    unload_after: float | None = None,
) -> Embedder:
    """The model that the running command's options describe. Raises what Embedder raises."""
    facts = model_facts()
    return Embedder(
        model, device=device, threads=threads, offline=offline, truncation=truncation, revision=revision,
        variant=variant, dim=dim, unload_after=unload_after,
        max_tokens=facts.max_tokens, pooling=facts.pooling, prompts=facts.prompts,
    )  # fmt: skip


def say_cut(was_cut: bool, embedder: Embedder) -> None:
    """Says that the ends of some passages are not read, if that is so."""
    if was_cut:
        limit = f"the {embedder.max_tokens} tokens that the model reads"
        click.echo(f"gte: some passages are longer than {limit}; their ends are not searched", err=True)


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers for --model: bundled models, and directories and bundles beside what is typed so far.

    If there is none of these, the shell goes on with paths.
    """
    folder, start = os.path.split(incomplete)
    names = [name for name in bundled_models() if name.startswith(incomplete)]
    with contextlib.suppress(OSError):
        found = sorted(path for path in Path(folder or ".").iterdir() if path.name.startswith(start))
        names += [os.path.join(folder, path.name) for path in found if _is_model(path)]  # noqa: PTH118 as it was typed
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def _is_model(path: Path) -> bool:
    return path.suffix == ".gte" or (path / "config.json").is_file()


def check_embeds(embedder: Embedder) -> None:
    """Raises ModelFormatError for a model that does not embed a text."""
    length = float(np.linalg.norm(embedder.embed("A text of the self test.")))
    if not abs(length - 1) <= 1e-4:  # NaN too
        raise ModelFormatError(f"{embedder.report().graph} gives vectors of length {length:.6f} instead of 1")


def _with_options(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if parameter.name == "prompts":
        if unnamed := [each for each in value if "=" not in each]:
            raise click.BadParameter(f"{unnamed[0]!r} has no kind; give KIND=TEXT, such as 'query=query: '")
        value = dict(each.split("=", 1) for each in value) or None
    if value is not None:
        context.meta[_FACTS] = context.meta.get(_FACTS, ModelFacts())._replace(**{str(parameter.name): value})
