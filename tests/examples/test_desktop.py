"""What the desktop example does without its window: indexing, answering, settings, opening a file."""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import folder_search
import pytest
from folder_search import (
    Answer,
    Current,
    Event,
    FolderSearch,
    Problem,
    Progress,
    editor_command,
    index_of,
    open_file,
    remember_folder,
    remembered_folder,
)

from gte_sdk import Embedder

SECONDS = 600
Kind = TypeVar("Kind", Progress, Current, Answer, Problem)


class Events:
    """What a search says, in its order."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.seen: list[Event] = []

    def next(self, kind: type[Kind]) -> Kind:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            event = self.queue.get(timeout=SECONDS)
            self.seen.append(event)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__} in {self.seen}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bread.txt").write_text("Knead the dough and let it rise over night.")
    (folder / "bicycle.md").write_text("# Bicycle\n\nOil the chain when it squeaks.\n")
    return folder


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Before it is set no model is opened. To be named before `search`."""
    gate = threading.Event()

    def opened(*arguments: Any, **options: Any) -> Embedder:
        assert gate.wait(SECONDS)
        return Embedder(*arguments, **options)

    monkeypatch.setattr(folder_search, "Embedder", opened)
    return gate


@pytest.fixture
def search(folder: Path, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderSearch]:
    monkeypatch.setattr(folder_search, "LOOK_SECONDS", 0.1)
    search = FolderSearch(folder, index_of(folder, tmp_path / "data"), events.queue.put)
    yield search
    assert search.close(SECONDS)


def best_file(events: Events, question: str) -> str:
    answer = events.next(Answer)
    assert answer.question == question
    return Path(answer.hits[0].passage.path).name


def test_a_folder_is_indexed_asked_and_kept_current(folder: Path, search: FolderSearch, events: Events) -> None:
    current = events.next(Current)
    assert current == Current(2, 2, (), True)
    progress = [event for event in events.seen if isinstance(event, Progress)]
    assert (progress[0], progress[-1]) == (Progress(0, 2), Progress(2, 2))
    search.ask("repair of my bike")
    assert best_file(events, "repair of my bike") == "bicycle.md"
    for name, content in (("garden.txt", b"Tomatoes want water in the morning."), ("broken.txt", b"\xff\xfe\xff")):
        (folder.parent / name).write_bytes(content)
        (folder.parent / name).rename(folder / name)  # at once: a look must not see half of it
    while (current.files, len(current.left_out)) != (3, 1):
        current = events.next(Current)
    assert (current.left_out[0].path.name, current.left_out[0].reason) == ("broken.txt", "unknown encoding")
    assert events.next(Current).left_out == current.left_out  # not only when it is new
    search.ask("vegetables")
    assert best_file(events, "vegetables") == "garden.txt"


def test_of_questions_that_wait_the_newest_is_answered(
    held: threading.Event, search: FolderSearch, events: Events
) -> None:
    for question in ("b", "br", "bre", "baking"):
        search.ask(question)
    held.set()
    answer = events.next(Answer)
    assert answer.question == "baking"
    if not any(isinstance(event, Current) for event in events.seen):
        events.next(Current)
    search.ask("baking")
    assert best_file(events, "baking") == "bread.txt"


def test_a_damaged_index_is_made_again(folder: Path, tmp_path: Path) -> None:
    path = index_of(folder, tmp_path)
    path.write_bytes(b"no index" * 1000)
    events = Events()
    search = FolderSearch(folder, path, events.queue.put)
    assert events.next(Current) == Current(2, 2, (), True)
    assert search.close(SECONDS)


def test_a_folder_that_is_gone_is_a_problem_until_it_is_back(
    folder: Path, search: FolderSearch, events: Events
) -> None:
    events.next(Current)
    folder.rename(folder.with_name("away"))
    problem = events.next(Problem)
    assert "is not there" in problem.message
    folder.with_name("away").rename(folder)
    while (current := events.next(Current)).files != 2:  # a look in the middle of the renaming sees none
        pass
    assert current[:3] == (2, 2, ())


def test_the_folder_of_the_last_time_is_remembered(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert remembered_folder(data) is None
    remember_folder(folder, data)
    assert remembered_folder(data) == folder
    (data / "settings.json").write_text("[")
    assert remembered_folder(data) is None
    assert index_of(folder, data) != index_of(tmp_path, data)


@pytest.mark.skipif(sys.platform != "linux", reason="xdg-open of Linux")
def test_a_file_opens_in_the_systems_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\ntest -z "$LD_LIBRARY_PATH" && echo "$1" >{tmp_path}/opened && test -e "$1"\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/frozen/application")
    (tmp_path / "note.txt").touch()
    open_file(tmp_path / "note.txt")
    assert (tmp_path / "opened").read_text() == f"{tmp_path}/note.txt\n"
    with pytest.raises(OSError, match=r"could not open .*gone\.txt \(exit code 1\)"):
        open_file(tmp_path / "gone.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="a program that is a script")
def test_text_opens_in_an_editor_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "my-editor"
    editor.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/opened\n')
    editor.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER_SEARCH_EDITOR", "my-editor --goto {path}:{line}")
    note = tmp_path / "a {line} note.md"
    open_file(note, 12)
    assert (tmp_path / "opened").read_text() == f"--goto {note}:12\n"
    assert editor_command(tmp_path / "scan.pdf", 3) is None
    monkeypatch.setenv("FOLDER_SEARCH_EDITOR", "no-such-editor {path}")
    editor.rename(tmp_path / "kate")
    assert editor_command(note, 3) == [str(tmp_path / "kate"), "--line", "3", str(note)]
