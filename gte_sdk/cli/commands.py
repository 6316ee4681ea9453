"""The group of commands. Each command has its own file and is added at the end."""

import errno
import os
import sys
from typing import Any

import click

import gte_sdk
from gte_sdk.atomic_file import NO_ROOM
from gte_sdk.cli.bench import bench
from gte_sdk.cli.bundle import bundle, verify
from gte_sdk.cli.cache import cache
from gte_sdk.cli.convert import convert
from gte_sdk.cli.doctor import doctor
from gte_sdk.cli.drift import drift
from gte_sdk.cli.embed import embed
from gte_sdk.cli.index import index
from gte_sdk.cli.mcp import mcp
from gte_sdk.cli.models import download, models
from gte_sdk.cli.remedies import message_with_flag
from gte_sdk.cli.search import search
from gte_sdk.cli.serve import serve
from gte_sdk.cli.terminal import printable_lines
from gte_sdk.errors import GteError


class _ReportingGroup(click.Group):
    """Turns expected errors into one line and exit code 1. Bugs keep their traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GteError as error:
            raise click.ClickException(printable_lines(message_with_flag(error))) from error
        except click.ClickException as error:
            error.message = printable_lines(error.message)  # type: ignore[misc]
            raise
        except OSError as error:
            # Every file that a command writes has its name in the error.
            is_full = error.filename is None and error.errno in NO_ROOM
            if is_full or error.errno == errno.EPIPE:
                # Python flushes standard output once more at exit, which must not fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno == errno.EPIPE:
                sys.exit(141)
            where = "standard output: " if is_full else ""
            raise click.ClickException(printable_lines(f"{where}{error}")) from error


@click.group(
    cls=_ReportingGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run a command with --help for details. Results go to standard output, all else to standard error.",
)
@click.version_option(gte_sdk.__version__, prog_name="gte-sdk", message="%(prog)s %(version)s")
@click.pass_context
def gte(context: click.Context) -> None:
    """Embed texts on your own machine: search files by meaning, turn texts into vectors.

    \b
    Examples:
      gte search "how are passages ranked?" docs/ README.md
      gte index ~/notes --output notes.index
      gte search "what did we decide about the roof?" notes.index
      gte embed reviews.csv --column review --output reviews.npy
    """
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        context.color = False


gte.add_command(bench)
gte.add_command(bundle)
gte.add_command(cache)
gte.add_command(convert)
gte.add_command(doctor)
gte.add_command(download)
gte.add_command(drift)
gte.add_command(embed)
gte.add_command(index)
gte.add_command(mcp)
gte.add_command(models)
gte.add_command(search)
gte.add_command(serve)
gte.add_command(verify)
