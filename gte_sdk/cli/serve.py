"""`gte serve`: the model over HTTP, for programs that use the OpenAI API."""

import contextlib
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gte_sdk.agents.sharing import leave_note, remove_note
from gte_sdk.cli.model_options import facts_to_keep, open_model, several_models_options
from gte_sdk.cli.stopping import SAME_SIGNAL_SECONDS, leave_to_another
from gte_sdk.errors import InputError
from gte_sdk.model_files.user_cache import indexes_folder
from gte_sdk.passages.database import is_passage_store

if TYPE_CHECKING:
    from gte_sdk.server import Settings

KEY_VARIABLE = "GTE_API_KEY"
_MOST_KEY_CHARACTERS = 4096
# With several models, of which few are busy at a time.
_UNLOAD_SECONDS = 300.0


def _named_indexes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for value in values:
        name, equals, file = value.partition("=")
        path = Path(file if equals else value)
        name = name if equals else path.stem
        if not is_passage_store(path):
            raise click.BadParameter(f"{path} is no passage index; make one with: gte index")
        if not name or name in named:
            raise click.BadParameter(f"{value!r}: give each index a name of its own, NAME=FILE")
        named[name] = path
    return named


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 picks a free one."
)
@click.option(
    "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help=f"A file whose first line is the key that requests must send; or set {KEY_VARIABLE} in the environment.",
)  # fmt: skip
@click.option(
    "--name", metavar="NAME", help="The model's name in requests; by default MODEL, or the last part of its path."
)
@click.option(
    "--alias", "aliases", metavar="NAME", multiple=True,
    help="Another name for the model, such as text-embedding-3-small for a program that asks for it. Can be repeated.",
)  # fmt: skip
@click.option(
    "--cors-origin", "cors_origins", metavar="ORIGIN", multiple=True,
    help="The origin of web pages that may read the answers, such as https://app.example.com. Can be repeated; by "
    "default none.",
)  # fmt: skip
@click.option(
    "--truncation", type=click.Choice(["report", "error"]), default="report", show_default=True,
    help="What to do with texts that are longer than the model reads: cut them and report it in a header, or refuse.",
)  # fmt: skip
@click.option(
    "--max-body-mb", type=click.IntRange(1), default=8, show_default=True, help="The most MiB of one request."
)
@click.option(
    "--max-inputs", type=click.IntRange(1), default=2048, show_default=True, help="The most texts of one request."
)
@click.option(
    "--max-queue", type=click.IntRange(1), default=4096, show_default=True,
    help="The most texts that wait for the model. Further requests get a 429.",
)  # fmt: skip
@click.option(
    "--max-connections", type=click.IntRange(1), default=1024, show_default=True,
    help="The most open connections. Further ones get a 503.",
)  # fmt: skip
@click.option(
    "--micro-batching/--no-micro-batching", default=True, show_default=True,
    help="Embed the texts of requests that wait at the same time in one batch.",
)  # fmt: skip
@click.option(
    "--index", "indexes", metavar="[NAME=]FILE", multiple=True, callback=_named_indexes,
    help="A passage index of the model to search by POST /v1/search; by default named as the file. Can be repeated.",
)  # fmt: skip
@click.option(
    "--socket", "socket_path", metavar="PATH", type=click.Path(path_type=Path),
    help="Listen at a Unix socket of this user too, where gte mcp and gte search find the server by themselves.",
)  # fmt: skip
@click.option("--access-log", is_flag=True, help="Log each request on standard output.")
@click.option(
    "--unload-after", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="Free a model after this long without a request; the next one opens it again. By default never, and with "
    "several models after 300.",
)  # fmt: skip
@several_models_options
def serve(
    host: str,
    port: int,
    api_key_file: Path | None,
    name: str | None,
    aliases: tuple[str, ...],
    cors_origins: tuple[str, ...],
    truncation: str,
    max_body_mb: int,
    max_inputs: int,
    max_queue: int,
    max_connections: int,
    micro_batching: bool,
    indexes: dict[str, Path],
    socket_path: Path | None,
    access_log: bool,
    unload_after: float | None,
    models: tuple[str, ...],
    device: str,
    threads: int | None,
) -> None:
    """Serve embeddings over HTTP with the OpenAI API.

    The routes are POST /v1/embeddings, GET /v1/models, POST /rerank, POST /v1/search, /health, /metrics for Prometheus,
    /openapi.json, and a page to try it on at /. Only this machine can connect, unless --host names another address. On
    SIGTERM (a plain kill) or Ctrl-C, the server answers the requests it has accepted, then ends.

    With --socket, gte mcp and gte search of the same user ask this server instead of opening the model themselves.

    \b
    Examples:
      gte serve
      gte serve --model ./my-model --port 9000 --alias text-embedding-3-small
      gte serve --index notes=notes.index --socket ~/.gte.sock
      GTE_API_KEY=... gte serve --host 0.0.0.0
    """
    try:
        from gte_sdk.server import Settings, create_app
        from gte_sdk.server.http.listening import bind, run, unix_socket, url_of
    except ImportError as error:
        raise missing_package("gte serve", "serve", error) from error
    if len(models) > 1 and (name or facts_to_keep()):
        raise click.UsageError(
            "--name, --prompt, --pooling and --max-tokens are of one model; leave them out with several"
        )
    names = [name or name_of(model) for model in models]
    if len(set(names)) < len(names) or set(aliases) & set(names[1:]):
        raise click.UsageError(f"two models have the same name: {', '.join([*names, *aliases])}")
    if len(models) > 1 and unload_after is None:
        unload_after = _UNLOAD_SECONDS
    settings = Settings(
        model_name=names[0],
        aliases=aliases,
        trusts_unix_socket=socket_path is not None,
        cors_origins=cors_origins,
        api_key=api_key_of(api_key_file),
        loopback_only=is_loopback(host),
        micro_batching=micro_batching,
        truncate=truncation == "report",
        max_body_bytes=max_body_mb * 2**20,
        max_held_bytes=max(64, max_body_mb) * 2**20,
        max_inputs=max_inputs,
        max_queued_texts=max(max_queue, max_inputs),
        max_connections=max_connections,
    )
    warn_if_open(host, settings)
    listener = bind(host, port)
    opened = {
        name: open_model(model, device, threads, truncation="ignore", unload_after=unload_after)
        for name, model in zip(names, models, strict=True)
    }
    others = {name: opened[name] for name in names[1:]}
    app = create_app(opened[names[0]], settings, indexes, indexes_folder(), others)
    announce = announcing(f"{', '.join(names)} at {url_of(listener)}")
    leave_to_another()
    if socket_path is None:
        run(app, listener, settings, announce, access_log, (), SAME_SIGNAL_SECONDS)
        return
    with unix_socket(socket_path) as local:
        # Others would get vectors of this --prompt or --pooling for a model that they know without it.
        if facts_to_keep() is None:
            leave_note(socket_path.absolute(), {each.fingerprint: name for name, each in opened.items()})
        try:
            run(app, listener, settings, announce, access_log, [local], SAME_SIGNAL_SECONDS)
        finally:
            remove_note(socket_path.absolute())


def missing_package(command: str, extra: str, error: ImportError) -> click.ClickException:
    """The error for a command without a package of its extra."""
    package = (error.name or str(error)).partition(".")[0]
    return click.ClickException(f"{command} needs {package}: pip install 'gte-sdk[{extra}]'")


def warn_if_open(host: str, settings: "Settings") -> None:
    """Warns of a server that other machines can use without a key."""
    if settings.api_key is None and not settings.loopback_only:
        click.echo(f"gte: warning: {host} is open to other machines and no API key is set ({KEY_VARIABLE})", err=True)


def announcing(what: str) -> Callable[[], None]:
    """What says that a server runs, to be called once it does."""

    def announce() -> None:
        with contextlib.suppress(OSError):  # a server runs on if nobody reads what it says
            click.echo(f"gte: serving {what}", err=True)

    return announce


def name_of(model: str) -> str:
    """What requests call a model: its name, of a directory or bundle the last part, never the path to it."""
    path = Path(model)
    if path.is_dir():
        return path.resolve().name or "model"
    return path.stem if path.is_file() else model


def api_key_of(file: Path | None) -> str | None:
    """The key that requests must send: the first line of the file, or of the environment; None for none."""
    if file is None:
        return os.environ.get(KEY_VARIABLE)
    with file.open(encoding="utf-8", errors="replace") as opened:
        first_line = opened.readline(_MOST_KEY_CHARACTERS + 1)
    if len(first_line) > _MOST_KEY_CHARACTERS:
        raise InputError(f"the first line of {file} has more than {_MOST_KEY_CHARACTERS} characters; it is the API key")
    return first_line.strip()


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
