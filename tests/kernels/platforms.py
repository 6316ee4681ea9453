"""Compiles csrc for other systems and compilers, and runs the self-tests where an emulator is installed.

    python tests/kernels/platforms.py build/platforms [NAME ...]

`make test-platforms` runs this. The self-tests know the bits that the encoder must give, so a pass means the same bits
as everywhere else. What could not be compiled or run is said, with what is missing; that is no failure.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SELF_TESTS = ("self_test", "bert_self_test")
ZIG = "ziglang"  # from PyPI: Clang with the headers and libraries of other systems


class Platform(NamedTuple):
    name: str
    compiler: str
    """A program on the path, or "zig TARGET"."""
    system: str = "Linux"
    processor: str = "x86_64"
    runner: tuple[str, ...] = ()
    """An emulator and its arguments; none where this machine runs the program itself."""
    link: str = "-static"


WINE = ("wine64",)
PLATFORMS = (
    Platform("clang", "clang++", link=""),
    Platform("linux-musl-x86_64", "zig x86_64-linux-musl"),
    Platform(
        "linux-musl-aarch64", "zig aarch64-linux-musl", processor="aarch64", runner=("qemu-aarch64", "-cpu", "max")
    ),
    Platform("windows-mingw-x86_64", "x86_64-w64-mingw32-g++-posix", "Windows", "AMD64", WINE),
    Platform("windows-clang-x86_64", "zig x86_64-windows-gnu", "Windows", "AMD64", WINE),
    Platform("windows-clang-arm64", "zig aarch64-windows-gnu", "Windows", "ARM64", ("a Windows on ARM",)),
    Platform("macos-x86_64", "zig x86_64-macos", "Darwin", runner=("a Mac",), link=""),
    Platform("macos-arm64", "zig aarch64-macos", "Darwin", "arm64", ("a Mac",), link=""),
)


def main(arguments: Sequence[str]) -> int:
    folder, chosen = Path(arguments[0]).resolve(), arguments[1:]
    results = {each.name: check(each, folder / each.name) for each in PLATFORMS if not chosen or each.name in chosen}
    print("\ntest-platforms:")
    for name, result in results.items():
        print(f"  {name:24}{result}")
    return any(result.startswith("FAILED") for result in results.values())


def check(platform: Platform, folder: Path) -> str:
    """What became of one platform, in a line."""
    is_zig, program = platform.compiler.startswith("zig "), platform.compiler
    if not shutil.which("cmake"):
        return "not compiled: cmake is not installed"
    if is_zig and importlib.util.find_spec(ZIG) is None:
        return f"not compiled: {ZIG} is not installed (PyPI)"
    if not is_zig and shutil.which(program) is None:
        return f"not compiled: {program} is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    tools = zig_tools(platform.compiler.split()[1], folder) if is_zig else [f"-DCMAKE_CXX_COMPILER={program}"]
    flags = [
        *("-DCMAKE_BUILD_TYPE=Release", "-DGTE_PYTHON=OFF", "-DGTE_TESTS=ON", "-DGTE_WERROR=ON"),
        f"-DCMAKE_SYSTEM_NAME={platform.system}",
        f"-DCMAKE_SYSTEM_PROCESSOR={platform.processor}",
        f"-DCMAKE_EXE_LINKER_FLAGS={platform.link}",
    ]
    if not run(["cmake", "-S", ROOT, "-B", folder, *tools, *flags]) or not run(["cmake", "--build", folder, "-j2"]):
        return "FAILED to compile"
    runner = [find_program(word) for word in platform.runner[:1]]
    if None in runner:
        return f"compiled and linked; not run: needs {platform.runner[0]}"
    for test in SELF_TESTS:
        file = folder / f"{test}{'.exe' if platform.system == 'Windows' else ''}"
        # The emulator does not survive the fork of a process with threads.
        if not run([*runner, *platform.runner[1:], file, "--no-fork"]):
            return f"FAILED: {test}"
    return "passed" + (f", under {platform.runner[0]}" if platform.runner else "")


def zig_tools(target: str, folder: Path) -> list[str]:
    """Arguments for CMake, which wants one program for each tool, so these are scripts."""
    for name, command in (("c++", f"c++ -target {target}"), ("ar", "ar"), ("ranlib", "ranlib")):
        script = folder / f"zig-{name}"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {ZIG} {command} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return [
        f"-DCMAKE_CXX_COMPILER={folder / 'zig-c++'}",
        f"-DCMAKE_AR={folder / 'zig-ar'}",
        f"-DCMAKE_RANLIB={folder / 'zig-ranlib'}",
    ]


def find_program(name: str) -> str | None:
    """Debian keeps wine64 off the path."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/lib/wine"]))


def run(command: Sequence[object]) -> bool:
    """Whether it ends with 0. Its output is shown if not."""
    words = [str(word) for word in command if word is not None]
    environment = {**os.environ, "WINEDEBUG": "-all", "WINEPREFIX": str(Path.home() / ".cache" / "gte-sdk-wine")}
    done = subprocess.run(words, check=False, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode != 0:
        print(f"$ {' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
