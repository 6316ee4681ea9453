"""The command `gte`: the way in, and what every command has in common when it ends.

Exit codes: 0 done, 1 failed or nothing found, 2 wrong usage, 130 Ctrl-C, 141 the reader of a pipe went away.
"""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs `gte` on sys.argv and exits. Says which extra to install where click or tqdm are missing."""
    try:
        import click
        import tqdm  # noqa: F401
    except ImportError as error:
        sys.exit(f"gte: the command line needs {error.name}: pip install 'gte-sdk[cli]'")
    from gte_sdk.cli.commands import gte

    # A plain kill ends through the same clean-up as Ctrl-C: temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A character that the terminal cannot show is replaced; it must not end a search.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = gte.main(prog_name="gte", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
