"""A program in a fresh interpreter, with warnings as errors and nothing allowed on stderr."""

import os
import subprocess
import sys


def run_python(program: str, **environment: str) -> str:
    """What the program prints; it has to end well and say nothing on stderr."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout
