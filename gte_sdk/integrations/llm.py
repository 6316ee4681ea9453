"""The command `llm`: embedding models for `llm embed`, `llm embed-multi` and `llm similar`.

`llm` finds this plugin by itself where both are installed, with the models inside the package: `llm embed -m gte-mini`.
`llm gte register MODEL` adds a model directory or a Hub name, with its settings, in a file of llm's own folder.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gte_sdk.atomic_file import replace_whole
from gte_sdk.embedding.truncation import TRUNCATION_MODES
from gte_sdk.errors import GteError
from gte_sdk.integrations.lazy_model import LazyModel, ModelSettings
from gte_sdk.model_files.directory import bundled_models

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack

try:
    import click
    import llm
except ImportError as error:
    raise ImportError("gte_sdk.integrations.llm needs llm: pip install llm") from error


class GteEmbeddingModel(llm.EmbeddingModel):
    """llm's `EmbeddingModel` with a model of gte_sdk, opened at its first use.

    Texts are embedded as they are: llm does not tell queries from documents, so a model's prompts are not used. Texts
    of more tokens than the model reads are cut with a TruncationWarning, or refused with truncation="error".
    """

    supports_text = True
    supports_binary = False

    def __init__(self, model: LazyModel) -> None:
        self.model_id = model_id(model.settings)
        self._model = model

    def embed_batch(self, items: Iterable[Any], *, key: str | None = None) -> Iterator[list[float]]:
        """One vector a text, in the same order, read ahead by a bounded number of texts. Needs no key."""
        for vector_D in self._model.open().embed_iter(items):
            yield vector_D.tolist()


class Registered(NamedTuple):
    settings: ModelSettings
    aliases: list[str]


def model_id(settings: ModelSettings) -> str:
    """The name under which llm knows a model."""
    return f"gte-sdk/{settings.model}"


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """The models inside the package, then those that were registered."""
    for name in bundled_models():
        register(GteEmbeddingModel(LazyModel(name)), aliases=[name])
    for settings, aliases in read_registered():
        register(GteEmbeddingModel(LazyModel(**settings._asdict())), aliases=aliases)


@llm.hookimpl
def register_commands(cli: Any) -> None:
    """`llm gte register` and `llm gte unregister`."""

    @cli.group()
    def gte() -> None:
        """Embedding models of gte-sdk."""

    @gte.command()
    @click.argument("model")
    @click.option("--alias", "aliases", multiple=True, help="A shorter name; may be repeated.")
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
    @click.option("--threads", type=click.IntRange(1), help="Threads that one call uses.")
    @click.option("--revision", help="Branch, tag or commit of a Hub model.")
    @click.option("--variant", default="auto", show_default=True, help="fp32, fp16, int8 or auto.")
    @click.option("--max-tokens", type=int, help="Read fewer tokens of each text than the model could.")
    @click.option("--dim", type=int, help="Shorter vectors, of a model that was trained for it.")
    @click.option("--truncation", type=click.Choice(TRUNCATION_MODES), default="warn", show_default=True)
    def register(model: str, aliases: tuple[str, ...], **options: "Unpack[ModelOptions]") -> None:
        """Opens MODEL (a directory, bundle or Hub name) to check it, and keeps it for `llm embed`."""
        lazy_model = LazyModel(model, **options)
        settings = lazy_model.settings
        try:
            embedder = lazy_model.open()
        except GteError as error:
            raise click.ClickException(str(error)) from error
        others = [entry for entry in read_registered() if entry.settings.model != settings.model]
        write_registered([*others, Registered(settings, list(aliases))])
        click.echo(f"{model_id(settings)}: vectors of {embedder.dim} numbers, texts of {embedder.max_tokens} tokens")

    @gte.command()
    @click.argument("model")
    def unregister(model: str) -> None:
        """Forgets MODEL, given as `llm embed-models` names it."""
        entries = read_registered()
        kept = [entry for entry in entries if model not in (model_id(entry.settings), *entry.aliases)]
        if len(kept) == len(entries):
            known = ", ".join(model_id(entry.settings) for entry in entries) or "none"
            raise click.ClickException(f"{model!r} is not registered; these are: {known}")
        write_registered(kept)


def registered_path() -> Path:
    """The file that holds what was registered."""
    return Path(llm.user_dir()) / "gte-sdk.json"


def read_registered() -> list[Registered]:
    """What was registered, oldest first. Raises ClickException where somebody has damaged the file."""
    path = registered_path()
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Registered(ModelSettings(**entry["settings"]), list(entry["aliases"])) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise click.ClickException(
            f"{path} cannot be read: {error}; delete it and run `llm gte register` anew"
        ) from error


def write_registered(entries: list[Registered]) -> None:
    """Replaces the file, whole or not at all."""
    content = [{"settings": settings._asdict(), "aliases": aliases} for settings, aliases in entries]
    with replace_whole(registered_path()) as file:
        file.write(json.dumps(content, indent=2).encode())
