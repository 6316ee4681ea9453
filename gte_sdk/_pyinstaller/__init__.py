"""Tells PyInstaller, through the entry point `pyinstaller40`, where the hook of this package lies."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    return [str(Path(__file__).parent)]
