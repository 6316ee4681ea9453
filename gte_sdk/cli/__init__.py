"""The command `gte`: the way in, and what every command has in common when it ends.

Exit codes: 0 done, 1 failed or nothing found, 2 wrong usage, 130 Ctrl-C, 141 the reader of a pipe went away, 143 a
kill (SIGTERM). A second signal ends a command at once, and so do ten seconds after the first.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Runs `gte` on sys.argv and exits. Says which extra to install where click or tqdm are missing."""
    _open_missing_streams()
    try:
        import click
        import tqdm  # noqa: F401
    except ImportError as error:
        sys.exit(f"gte: the command line needs {error.name}: pip install 'gte-sdk[cli]'")
    from gte_sdk.cli.commands import gte
    from gte_sdk.cli.stopping import end_at_second_signal

    interrupted = 130

    def end(*_: object) -> NoReturn:
        nonlocal interrupted
        interrupted = 143
        sys.exit(interrupted)

    # A plain kill ends through the same clean-up as Ctrl-C: temporary files are removed.
    signal.signal(signal.SIGTERM, end)
    end_at_second_signal()
    # A character that the terminal cannot show is replaced; it must not end a search.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = gte.main(prog_name="gte", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):  # SQLite turns either signal into the second
        sys.exit(interrupted)
    sys.exit(code if isinstance(code, int) else 0)


def _open_missing_streams() -> None:
    """Opens the null device for streams that are closed, as under pythonw, a windowed PyInstaller, and `2>&-`.

    Their descriptors are taken too: the next file to be opened would get them, and messages would end in it.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    descriptor = os.open(os.devnull, os.O_RDWR)
    while 0 <= descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    null = Path(os.devnull)
    sys.stdin = sys.stdin or null.open(encoding="utf-8")
    sys.stdout = sys.stdout or null.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or null.open("w", encoding="utf-8")
