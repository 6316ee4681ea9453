"""Has files parsed by a process of its own (worker.py), which is killed when a file takes too long or too much memory.

One process serves many files, as starting it takes a third of a second. After a file that it could not bear, the next
one gets a new process.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from gte_sdk.passages.reading.sections import Reading, Section
from gte_sdk.passages.reading.worker import MAX_CHARACTERS, MAX_SECONDS
from gte_sdk.passages.splitting import Definition
from gte_sdk.passages.text_files import Kind

# JSON writes a character as up to 12 bytes, and each line of a page with its number.
_MAX_ANSWER_BYTES = 16 * MAX_CHARACTERS
# Isolated (-I): neither the current folder, which may be the one that is searched, nor the environment gives it code.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from gte_sdk.passages.reading.worker import main; main()"


class Parser:
    """Parses files one after another; use it as a context manager. The process starts with the first file."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Parser":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def read(self, format: str, content: bytes) -> Reading:
        """Returns the sections of a file, or why it has none, after at most MAX_SECONDS."""
        if getattr(sys, "frozen", False) or not sys.executable:
            return Reading([], "needs a Python interpreter", "a frozen application reads plain text only")
        started = time.monotonic()
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(MAX_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps([format, len(content)]).encode() + b"\n")
            process.stdin.write(content)
            process.stdin.flush()
            answer = process.stdout.readline(_MAX_ANSWER_BYTES)
        except OSError:  # it has ended
            answer = b""
        except BaseException:  # Ctrl-C: an answer that nobody took would be that of the next file
            self._end()
            raise
        finally:
            timer.cancel()
        if answer.endswith(b"\n"):
            sections, reason, detail = json.loads(answer)
            if reason == "takes too much memory":
                self._end()
            return Reading([_section(*section) for section in sections], reason, detail)
        self._end()
        if time.monotonic() - started >= MAX_SECONDS:
            return Reading([], "takes too long", f"more than {MAX_SECONDS:.0f} s to read it")
        return Reading([], "damaged", f"its reader ended with code {process.returncode}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _section(text: str, kind: Kind, context: str, lines: list[int] | None, definitions: list[Any] | None) -> Section:
    named = None if definitions is None else [Definition(*each) for each in definitions]
    return Section(text, kind, context, lines, named)


def _start() -> subprocess.Popen[bytes]:
    paths = [str(Path(path).absolute()) for path in sys.path if path]
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, *paths],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **one_thread},
    )  # fmt: skip
