"""`gte mcp`: folders for agents, by the Model Context Protocol."""

import functools
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gte_sdk.agents.sharing import answered_by_server
from gte_sdk.cli.folder_options import choice_options
from gte_sdk.cli.model_options import (
    facts_to_keep,
    model_facts,
    model_options,
    no_server_option,
    recorded_fingerprint,
    use_kept_facts,
)
from gte_sdk.cli.remedies import message_with_flag
from gte_sdk.cli.serve import announcing, api_key_of, is_loopback, missing_package, warn_if_open
from gte_sdk.cli.stopping import SAME_SIGNAL_SECONDS, leave_to_another
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import GteError
from gte_sdk.model_files.directory import bundled_models
from gte_sdk.model_files.published import ModelFacts
from gte_sdk.model_files.user_cache import indexes_folder
from gte_sdk.passages.database import is_passage_store
from gte_sdk.passages.store import PassageStore, Settings

if TYPE_CHECKING:
    from gte_sdk.agents.workspace import Workspace


@click.command()
@click.argument("paths", metavar="[FOLDER]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@choice_options
@click.option("--http", is_flag=True, help="Serve many clients over streamable HTTP, at /mcp, instead of one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True,
    help="With --http: the port; 0 picks a free one.",
)  # fmt: skip
@click.option(
    "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="With --http: a file whose first line is the key that clients must send; or set GTE_API_KEY.",
)  # fmt: skip
@no_server_option
@model_options
@click.pass_context
def mcp(
    context: click.Context,
    paths: tuple[Path, ...],
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    types: tuple[str, ...],
    no_ignore: bool,
    http: bool,
    host: str,
    port: int,
    api_key_file: Path | None,
    no_server: bool,
    model: str,
    device: str,
    threads: int | None,
) -> None:
    """Let agents search the files at and below each FOLDER, by the Model Context Protocol (MCP).

    The tools are search, read_passage, similar and index_status. An agent can read what is indexed and nothing else.
    Without a FOLDER, the current folder is searched. A FOLDER can be an index made by `gte index`, which is searched as
    it is.

    The index of the folders is kept in the user's cache and brought up to date as the agent searches. The model opens
    at the first search; a running `gte serve --socket` with the same model is used instead. Standard output carries the
    protocol only.

    \b
    Examples:
      gte mcp ~/notes
      gte mcp src docs --glob "*.py" --glob "*.md"
      gte mcp notes.index
      gte mcp ~/notes --http --port 8001
      claude mcp add notes -- gte mcp ~/notes
    """
    try:
        from gte_sdk.agents.protocol import create_mcp_server, http_application, serve_standard_streams
    except ImportError as error:
        raise missing_package("gte mcp", "mcp", error) from error
    only_http = [name for name in ("host", "port", "api_key_file") if _is_given(context, name)]
    if only_http and not http:
        raise click.UsageError(f"--{only_http[0].replace('_', '-')} needs --http")
    workspace = _workspace(context, paths or (Path(),), globs, excludes, types, no_ignore, model, device, threads)
    usual = device == "auto" and threads is None and model_facts() == ModelFacts()
    usual = usual and not (workspace.index is not None and _is_given(context, "model"))
    ask_server = _shared(workspace) if usual and not no_server else None
    server = create_mcp_server(workspace, _described, ask_server)
    try:
        if http:
            _serve_http(http_application(server, host), host, port, api_key_file)
        else:
            # A client that ends a server waits two seconds. A kill leaves the index whole, however long a batch takes.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            import asyncio

            asyncio.run(serve_standard_streams(server))
    finally:
        workspace.close()


def _workspace(
    context: click.Context, paths: tuple[Path, ...], globs: tuple[str, ...], excludes: tuple[str, ...],
    types: tuple[str, ...], no_ignore: bool, model: str, device: str, threads: int | None,
) -> "Workspace":  # fmt: skip
    from gte_sdk.agents.workspace import IDLE_SECONDS, Workspace

    index = next((path for path in paths if is_passage_store(path)), None)
    offline = None
    if index is not None:
        if len(paths) > 1 or globs or excludes or types or no_ignore:
            raise click.UsageError(
                "an index is searched alone, and with the --glob and --exclude that it was made with"
            )
        with PassageStore(index) as store:
            settings = store.settings
        if not _is_given(context, "model"):
            use_kept_facts(settings.facts)
            model, offline = settings.model, True  # an index may come from anywhere, and must not download anything
    else:
        known = model in bundled_models() or not Path(model).exists()
        settings = Settings(
            model if known else str(Path(model).resolve()), "", 0, tuple(str(path.resolve()) for path in paths),
            globs, excludes, types, not no_ignore, facts_to_keep(),
        )  # fmt: skip
    facts = model_facts()
    open_model = functools.partial(
        Embedder, model, device=device, threads=threads, offline=offline, truncation="ignore",
        unload_after=IDLE_SECONDS, max_tokens=facts.max_tokens, pooling=facts.pooling, prompts=facts.prompts,
    )  # fmt: skip
    return Workspace(settings, open_model, index.resolve() if index else None, indexes_folder())


def _shared(workspace: "Workspace") -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None] | None:
    """Returns what asks a running `gte serve --socket`; None for a model whose fingerprint only its weights tell."""
    settings = workspace.settings
    fingerprint = settings.fingerprint or recorded_fingerprint(settings.model)
    if fingerprint is None:
        return None
    target = {
        "index": None if workspace.index is None else str(workspace.index),
        "folders": settings.paths if workspace.index is None else (),
        "globs": settings.globs, "excludes": settings.excludes, "types": settings.types,
        "ignore_files": settings.ignore_files, "model": settings.model,
    }  # fmt: skip
    return lambda tool, arguments: answered_by_server(fingerprint, target, tool, arguments)


def _serve_http(app: Any, host: str, port: int, api_key_file: Path | None) -> None:
    """Serves the application behind the checks and limits of `gte serve`."""
    try:
        import gte_sdk
        from gte_sdk.server.http.gate import gate
        from gte_sdk.server.http.listening import bind, run, url_of
        from gte_sdk.server.metrics import Metrics
        from gte_sdk.server.settings import Settings as ServerSettings
    except ImportError as error:
        raise missing_package("gte mcp --http", "mcp", error) from error
    settings = ServerSettings(
        model_name="mcp", api_key=api_key_of(api_key_file), loopback_only=is_loopback(host), stop_seconds=5
    )
    warn_if_open(host, settings)
    listener = bind(host, port)
    announce = announcing(f"MCP at {url_of(listener)}/mcp")
    leave_to_another()
    metrics = Metrics({settings.model_name: ""}, gte_sdk.__version__)
    app = gate(app, settings, metrics, frozenset({"/mcp"}))
    run(app, listener, settings, announce, access_log=False, same_signal_seconds=SAME_SIGNAL_SECONDS)


def _described(error: GteError | OSError) -> str:
    return message_with_flag(error) if isinstance(error, GteError) else str(error)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT
