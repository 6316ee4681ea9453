"""Runs the blocks of one page in order, as a reader would: Python in one namespace, commands with the installed `gte`.

What a page shows as output is compared: `...` stands for anything, and a number with a decimal point may differ by
0.02, so that a CPU whose last digits differ passes and a wrong score does not.
"""

import ast
import asyncio
import contextlib
import doctest
import gc
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ports import free_port
from .chat_stand_in import chat_stand_in
from .code_blocks import Block

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

_TOLERANCE = 0.02
_NUMBER = r"-?\d+\.\d+"
_SECONDS = 300


def check_syntax(block: Block) -> None:
    """Parses what has a grammar here; a block in another language, such as a Dockerfile, is left to its readers."""
    match block.language:
        case "python":
            compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "pycon":
            assert doctest.DocTestParser().get_examples(block.text), f"{block.place} has no >>> line"
        case "bash":
            _check_bash(block.text, block.place)
        case "console":
            for command, _ in console_commands(block):
                _check_bash(command, block.place)
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)


def run_page(blocks: list[Block], folder: Path) -> None:
    """Runs blocks in `folder`, which is the working directory.

    The server's own port, 8000, becomes a free one, and that of a local language model, 11434, a stand-in's.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    port = str(free_port())
    with contextlib.ExitStack() as servers:
        if any("11434" in block.text for block in blocks):
            chat_port = str(servers.enter_context(chat_stand_in()))
            blocks = [block._replace(text=block.text.replace("11434", chat_port)) for block in blocks]
        servers.callback(_forget, namespace)
        for block in blocks:
            text = re.sub(r"^((?:\$ )?gte serve(?!.*--port))", rf"\1 --port {port}", block.text, flags=re.MULTILINE)
            block = block._replace(text=re.sub(r"\b8000\b", port, text))
            if block.title is not None:
                (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.title).write_text(block.text, encoding="utf-8")
            if block.not_run is not None or block.title is not None:
                check_syntax(block)
            elif block.language == "python":
                _run_python(block, namespace)
            elif block.language == "pycon":
                _run_session(block, namespace)
            elif block.language == "bash":
                _run_bash(block, servers)
            elif block.language == "console":
                _run_console(block, servers)
            elif block.language in ("json", "toml"):
                check_syntax(block)
            else:
                assert block.language == "text", (
                    f"{block.place} is {block.language}, which is not run here: put <!-- not run: REASON --> before it"
                )


def _forget(namespace: dict[str, Any]) -> None:
    """Lets go of what a page's blocks hold, as the end of a program would: they need not close their clients."""
    namespace.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def console_commands(block: Block) -> Iterator[tuple[str, str]]:
    """Pairs of a command and the output shown below it; `$ ` begins a command and `> ` continues it."""
    assert block.text.startswith("$ "), f"{block.place}: a console block begins with `$ `"
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = 1
        while end < len(lines) and lines[end].startswith("> "):
            end += 1
        command = "\n".join([lines[0], *(line[2:] for line in lines[1:end])])
        yield command, "\n".join(lines[end:])


def differs(shown: str, printed: str) -> str:
    """Why what was printed is not what the page shows; empty where it is."""
    pattern, expected_numbers = "", []
    for piece in re.split(rf"(\.\.\.|{_NUMBER})", _tidy(shown)):
        if re.fullmatch(_NUMBER, piece):
            expected_numbers.append(float(piece))
            pattern += f"({_NUMBER})"
        else:
            pattern += ".*?" if piece == "..." else re.escape(piece)
    match = re.fullmatch(pattern, _tidy(printed), flags=re.DOTALL)
    numbers = [float(number) for number in match.groups()] if match else []
    close = all(abs(a - b) <= _TOLERANCE for a, b in zip(expected_numbers, numbers, strict=bool(match)))
    return "" if match and close else f"The page shows:\n{shown}\nIt prints:\n{printed}"


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _run_python(block: Block, namespace: dict[str, Any]) -> None:
    # Line numbers of tracebacks are those of the page.
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()):
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(_awaited(types.FunctionType(code, namespace)()))
        else:
            exec(code, namespace)


async def _awaited(coroutine: Any) -> None:
    await coroutine


def _run_session(block: Block, namespace: dict[str, Any]) -> None:
    examples = doctest.DocTestParser().get_doctest(block.text, {}, block.place, str(block.page), block.line - 1)
    assert examples.examples, f"{block.place} has no >>> line"
    examples.globs = namespace
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF
    report: list[str] = []
    doctest.DocTestRunner(_Checker(), verbose=False, optionflags=options).run(
        examples, out=report.append, clear_globs=False
    )
    assert not report, "".join(report)


class _Checker(doctest.OutputChecker):
    """doctest's only way in for another comparison."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or not differs(want, got)


def _run_bash(block: Block, servers: contextlib.ExitStack) -> None:
    lines = block.text.splitlines()
    for line in [line for line in lines if line.startswith("gte serve")]:
        servers.enter_context(_serving(line, block))
    rest = "\n".join(line for line in lines if not line.startswith("gte serve"))
    code, printed = _bash(rest)
    assert code == 0, f"{block.place} ended with {code}:\n{rest}\n{printed}"


def _run_console(block: Block, servers: contextlib.ExitStack) -> None:
    for command, shown in console_commands(block):
        if command.startswith("gte serve"):
            printed = servers.enter_context(_serving(command, block))
        else:
            _, printed = _bash(command)
        if difference := differs(shown, printed):
            raise AssertionError(f"{block.place}: $ {command}\n{difference}")


def _bash(script: str) -> tuple[int, str]:
    """Exit code, and what it prints on either stream; there is nobody to type."""
    finished = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    )
    return finished.returncode, finished.stdout


def _check_bash(script: str, place: str) -> None:
    parsed = subprocess.run(["bash", "-n", "-c", script], check=False, capture_output=True, text=True)
    assert parsed.returncode == 0, f"{place}: {parsed.stderr}"


@contextlib.contextmanager
def _serving(command: str, block: Block) -> Iterator[str]:
    """A server that runs until the page ends; gives what it says when it is ready."""
    log = Path(f"server-{block.line}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + _SECONDS
        while "serving" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, f"{block.place}: {command} ended:\n{log.read_text(encoding='utf-8')}"
            assert time.monotonic() < end, f"{block.place}: {command} did not serve"
            time.sleep(0.05)
        yield log.read_text(encoding="utf-8")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def environment(folder: Path) -> dict[str, str]:
    """What a page's commands see: the `gte` and `python` of this test, a home of their own, no Hub."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "PIP_NO_INDEX": "1",
    }
