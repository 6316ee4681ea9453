"""The desktop example's window on an X server: each of its states in words, and the keyboard. Xvfb is the X server.

GTE_PICTURES names a folder for a picture of each state.
"""

import importlib.util
import os
import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("Xvfb", "xrdb") if shutil.which(name) is None]
if importlib.util.find_spec("tkinter") is None:
    MISSING.append("tkinter")
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian: xvfb x11-xserver-utils)"
)
SECONDS = 240


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x900x24", "-dpi", "96", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as numbers:
            yield f":{numbers.readline().strip()}"
        server.terminate()


@pytest.fixture
def window(display: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("HOME", str(tmp_path))
    import tkinter as tk

    import folder_search
    from search_window import SearchWindow

    monkeypatch.setattr(folder_search, "LOOK_SECONDS", 0.1)
    window = SearchWindow(tk.Tk(className="folder_search"), tmp_path / "data")
    yield window
    window.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Documents"
    folder.mkdir()
    (folder / "bread.md").write_text("# Bread\n\nKnead the dough.\n\n" + "Let it rise over night in a cool room. " * 30)
    (folder / "bicycle.md").write_text("# Bicycle\n\n## Chain\n\nOil the chain when it squeaks.\n")
    (folder / "garden.txt").write_text("Tomatoes want water in the morning.")
    (folder / "broken.txt").write_bytes(b"\xff\xfe\xff")
    (folder / ".hidden").write_text("A secret.")
    return folder


def until(window: Any, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, (window._status["text"], state_of(window))
        window.root.update()
        time.sleep(0.01)
    window.root.update()


def state_of(window: Any) -> tuple[str, str]:
    """What the middle of the list says; two empty texts if it holds passages."""
    if not window._state.winfo_manager():
        return "", ""
    return window._state_title["text"], window._state_remedy["text"]


def picture(window: Any, name: str) -> None:
    """Draws what the window shows; "answer" is not on the page, which has a picture with more files."""
    if folder := os.environ.get("GTE_PICTURES"):
        until(window, lambda: window.root.winfo_viewable())
        window.root.update()
        subprocess.run(
            ["import", "-window", str(window.root.winfo_id()), str(Path(folder, f"desktop-{name}.png"))], check=True
        )


def press(window: Any, key: str) -> None:
    question = next(
        child for child in window.root.winfo_children()[0].winfo_children() if child.winfo_class() == "TEntry"
    )
    question.focus_force()
    window.root.update()
    question.event_generate(f"<{key}>")
    window.root.update()


def chosen(window: Any) -> str:
    (row,) = window._results.selection()
    return Path(window._hits[int(row)].passage.path).name


def test_from_the_first_start_to_an_answer(window: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_of(window)[0] == "Choose the folder to search"
    picture(window, "welcome")
    window.show_folder(folder)
    assert state_of(window)[0] == "Reading the folder …"
    picture(window, "reading")
    until(window, lambda: window._current)
    assert state_of(window)[0] == "Ask in your own words"
    assert "3 passages of 3 files" in window._status["text"] or "of 3 files · 2 left out" in window._status["text"]
    picture(window, "ask")
    shown: list[str] = []
    monkeypatch.setattr("search_window.messagebox.showinfo", lambda title, text, parent: shown.append(text))
    window._list_left_out(None)
    assert ".hidden: hidden" in shown[0]
    assert "broken.txt: not UTF-16" in shown[0]

    window._question.set("repair of my bike")
    until(window, lambda: window._hits)
    assert state_of(window) == ("", "")
    assert chosen(window) == "bicycle.md"
    assert "Oil the chain" in window._preview.get("1.0", "end")
    assert "bicycle.md, line 1" in window._preview.get("1.0", "end")
    picture(window, "answer")


def test_what_was_left_out_is_said_at_a_second_start(window: Any, folder: Path) -> None:
    window.show_folder(folder)
    until(window, lambda: window._current)
    first = window._status["text"]
    assert "2 left out" in first
    window._question.set("dough")
    until(window, lambda: window._hits)
    window.show_folder(folder)
    assert state_of(window)[0] == "Reading the folder …"
    until(window, lambda: window._current and window._hits)
    assert window._status["text"] == first
    assert state_of(window) == ("", "")


def test_an_index_that_cannot_be_written_is_said_in_the_middle(window: Any, folder: Path) -> None:
    window.data.write_text("a file where the folder of indexes belongs")
    window.show_folder(folder)
    until(window, lambda: state_of(window)[0] == "The folder cannot be searched")
    assert str(window.data) in state_of(window)[1]


def test_results_are_chosen_and_opened_from_the_question(
    window: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: queue.SimpleQueue[tuple[Path, int]] = queue.SimpleQueue()
    monkeypatch.setattr("search_window.open_file", lambda path, line: opened.put((path, line)))
    window.show_folder(folder)
    window._question.set("dough")
    until(window, lambda: window._current and len(window._hits) > 1)
    assert chosen(window) == "bread.md"
    order = [Path(hit.passage.path).name for hit in window._hits]
    for key, row in (
        ("Up", 0),
        ("Down", 1),
        ("Next", len(order) - 1),
        ("Down", len(order) - 1),
        ("Prior", 0),
        ("Down", 1),
    ):
        press(window, key)
        assert window._results.selection() == (str(row),)
        assert window._hits[row].passage.text.split()[0] in window._preview.get("1.0", "end")
    press(window, "Return")
    assert opened.get(timeout=SECONDS) == (Path(window._hits[1].passage.path), window._hits[1].passage.line)
    assert window._question.get() == "dough"


def test_nothing_found(window: Any, folder: Path) -> None:
    window.show_folder(folder)
    window._question.set("dough")
    until(window, lambda: window._hits)
    window._question.set("quantum field theory")
    until(window, lambda: state_of(window)[0] == "Nothing found")
    assert window._preview.get("1.0", "end").strip() == ""
    picture(window, "nothing-found")


def test_an_empty_folder(window: Any, tmp_path: Path) -> None:
    (tmp_path / "Pictures").mkdir()
    (tmp_path / "Pictures" / "cat.png").write_bytes(b"\x89PNG")
    window.show_folder(tmp_path / "Pictures")
    window._question.set("cat")
    until(window, lambda: window._current)
    until(window, lambda: state_of(window)[0] == "There is no text in this folder")
    assert "Put files in, or choose another folder" in state_of(window)[1]
    assert "1 left out" in window._status["text"]
    picture(window, "empty-folder")


def test_a_folder_that_is_gone_says_what_to_do_within_the_window(window: Any, folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / ("Letters and bills that nobody has looked at for years, " * 4).strip(" ,")
    folder.rename(gone)
    window.show_folder(gone)
    window._question.set("dough")
    until(window, lambda: window._hits)
    gone.rename(folder)
    until(window, lambda: "is not there" in state_of(window)[0])
    assert "choose another folder" in state_of(window)[1]
    assert window._hits == []
    for label in (window._state_title, window._state_remedy, window._status):
        assert label.winfo_reqwidth() <= window.root.winfo_width()
    picture(window, "folder-gone")
    folder.rename(gone)
    until(window, lambda: window._hits)


def test_it_is_as_large_as_the_desktop_wants(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", display)
    import tkinter as tk
    from tkinter import font

    from window_style import scale_to_screen

    sizes = []
    for dots in (96, 192):
        subprocess.run(["xrdb", "-merge"], input=f"Xft.dpi: {dots}\n", text=True, check=True)
        root = tk.Tk()
        scale = scale_to_screen(root)
        sizes.append((scale, font.nametofont("TkDefaultFont", root).metrics("linespace")))
        root.destroy()
    subprocess.run(["xrdb", "-remove"], check=True)
    assert [scale for scale, _ in sizes] == pytest.approx([1, 2], rel=0.01)
    assert sizes[1][1] == pytest.approx(2 * sizes[0][1], rel=0.15)
