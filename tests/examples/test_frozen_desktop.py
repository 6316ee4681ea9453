"""The frozen desktop example as a person uses it: on an X server, without a network, typing and opening a file.

`make desktop-example` freezes it and runs this; GTE_FROZEN_EXAMPLE names the frozen folder.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gte_sdk.passages.store import PassageStore

ROOT = Path(__file__).parents[2]
FROZEN = os.environ.get("GTE_FROZEN_EXAMPLE")
MISSING = [name for name in ("Xvfb", "xdotool", "import", "unshare") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(FROZEN is None, reason="`make desktop-example` freezes the example and runs this"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian: xvfb xdotool imagemagick)"),
]
SECONDS = 240
QUESTION = "a temporary folder that is deleted afterwards"


@pytest.fixture
def display() -> Iterator[str]:
    read, write = os.pipe()
    # -r: no key repeats by itself, as slow programs would see it.
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x860x24", "-dpi", "96", "-nolisten", "tcp", "-r"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as numbers:
            yield f":{numbers.readline().strip()}"
        server.terminate()


def test_the_frozen_folder_searches_without_a_network(display: str, tmp_path: Path) -> None:
    assert FROZEN is not None
    documents = tmp_path / "Documents"
    subprocess.run(
        [sys.executable, ROOT / "examples" / "standard_library_docs.py", documents / "python"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shutil.copytree(ROOT / "docs", documents / "gte-sdk", ignore=shutil.ignore_patterns("*.svg", "*.png", "*.jsonl"))
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opened = tmp_path / "opened"
    opener.write_text(f'#!/bin/sh\necho "$1" >{opened}\n')
    opener.chmod(0o755)
    environment = {
        "PATH": f"{opener.parent}:{os.environ['PATH']}", "DISPLAY": display, "HOME": str(tmp_path), "LANG": "C.UTF-8",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }  # fmt: skip

    def xdotool(*arguments: str) -> str:
        found = subprocess.run(["xdotool", *arguments], env=environment, check=False, capture_output=True, text=True)
        return found.stdout.strip()

    started = time.monotonic()
    command = ["unshare", "--map-root-user", "--net", "--", str(Path(FROZEN) / "folder-search"), str(documents)]
    with subprocess.Popen(command, env=environment) as process, killed_at_last(process):
        window = wait_for(lambda: xdotool("search", "--onlyvisible", "--name", "^Folder search$"))
        start_seconds = time.monotonic() - started
        own, its = (Path(f"/proc/{number}/ns/net").readlink() for number in ("self", process.pid))
        assert own != its
        wait_for(lambda: is_complete(tmp_path / "data"))
        index_seconds = time.monotonic() - started
        xdotool("windowfocus", "--sync", window)
        xdotool("type", "--delay", "20", QUESTION)
        wanted = str(documents / "python" / "tempfile.md")

        def opens_the_best_hit() -> bool:
            xdotool("key", "Return")  # opens another one until the whole question was searched for
            return opened.exists() and opened.read_text().strip() == wanted

        wait_for(opens_the_best_hit)
        if picture := os.environ.get("GTE_PICTURE"):
            subprocess.run(["import", "-window", window, picture], env=environment, check=True)
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        xdotool("key", "ctrl+q")
        assert process.wait(30) == 0
    size = sum(file.stat().st_size for file in Path(FROZEN).rglob("*") if file.is_file() and not file.is_symlink())
    print(
        f"\nfrozen folder {size / 1e6:.0f} MB; window after {start_seconds:.2f} s, documents indexed after "
        f"{index_seconds:.0f} s; {int(resident) / 1024:.0f} MB resident"
    )


@contextmanager
def killed_at_last(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """So that a failed test ends, instead of waiting for a window that nobody closes."""
    try:
        yield
    finally:
        process.kill()


def is_complete(data: Path) -> bool:
    indexes = list(data.rglob("*.index"))
    if not indexes:
        return False
    with PassageStore(indexes[0]) as store:
        return store.meta("complete") == "true"


def wait_for(ready: Callable[[], str | bool]) -> str:
    deadline = time.monotonic() + SECONDS
    while not (value := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(value)
