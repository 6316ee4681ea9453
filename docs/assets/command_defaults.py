"""For the page of the commands: an option without a default has none, not click's name for that."""

from typing import Any

import click


def on_startup(**_: Any) -> None:
    """MkDocs calls this before it builds."""
    from gte_sdk.cli.commands import gte

    _settle(gte)


def _settle(command: click.Command) -> None:
    for parameter in command.get_params(click.Context(command)):  # --help among them
        if "UNSET" in repr(parameter.default):
            parameter.default = False if isinstance(parameter, click.Option) and parameter.is_flag else None
    for inner in getattr(command, "commands", {}).values():
        _settle(inner)
