"""Search in a folder by meaning, for an application with a window: two threads that report by events.

One thread keeps the index of the folder current, the other answers questions from it while that goes on. The window
never waits for either: it puts questions in, and takes events out when it has time. The index is the SQLite file of
`gte index`, so that `gte search QUESTION FILE` reads it too.
"""

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gte_sdk import Embedder, GteError, InputError, ModelFormatError, ModelMismatchError
from gte_sdk.passages.searching import Found, PassageSearch
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.text_files import LeftOut, kind_of
from gte_sdk.passages.updating import update_index

MODEL = "gte-mini"
HIT_COUNT = 20
MIN_SCORE = 0.1
"""Passages with less, by meaning and words together, are about something else. Nonsense may score more than that."""
# Between two looks at the files; longer where a look takes long, so that looking costs at most LOOK_SHARE of a core.
LOOK_SECONDS = 2.0
LOOK_SHARE = 0.05


class Progress(NamedTuple):
    """How many files of those to read are indexed."""

    done: int
    total: int


class Current(NamedTuple):
    """The index is what the folder is."""

    files: int
    passages: int
    left_out: tuple[LeftOut, ...]
    """All that is not read, in this look or an earlier one."""
    changed: bool
    """Whether this look found a difference, so that an earlier answer may be out of date."""


class Answer(NamedTuple):
    question: str
    hits: list[Found]
    """At most HIT_COUNT, best first."""


class Problem(NamedTuple):
    message: str
    remedy: str = ""
    """What a person can do about it; "" if it is no matter of the whole folder."""


Event = Progress | Current | Answer | Problem


class FolderSearch:
    """Indexes `folder` into the file `index` and answers questions about it, until close().

    `emit` takes the events; it is called in the threads of this object, and `queue.SimpleQueue.put` is a good one.
    """

    def __init__(self, folder: Path, index: Path, emit: Callable[[Event], None]) -> None:
        self.folder = folder
        self._index = index
        self._emit = emit
        self._closing = threading.Event()
        self._questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Daemons: a network drive that hangs must not keep the application from ending.
        self._answering = threading.Thread(target=self._reporting, args=(self._answer,), daemon=True)
        self._indexing = threading.Thread(target=self._reporting, args=(self._keep_current,), daemon=True)
        self._indexing.start()

    def ask(self, question: str) -> None:
        """Emits an Answer soon; a question that is asked before the last one is answered takes its place."""
        self._questions.put(question)

    def close(self, wait_seconds: float = 0) -> bool:
        """Ends both threads after the batch at hand; all that was embedded is saved. Says whether they have ended."""
        self._closing.set()
        self._questions.put(None)
        deadline = time.monotonic() + wait_seconds
        for thread in (self._indexing, self._answering):
            if thread.ident is not None:
                thread.join(max(0, deadline - time.monotonic()))
        return not self._indexing.is_alive() and not self._answering.is_alive()

    def _reporting(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _Closing:
            pass
        except Exception as error:  # whatever it is: the window is the one place where somebody sees it
            self._emit(Problem(_described(error)))

    def _keep_current(self) -> None:
        self._embedder = Embedder(MODEL, truncation="ignore")  # here and not earlier: opening it takes a moment
        settings = Settings(MODEL, self._embedder.fingerprint, self._embedder.dim, (str(self.folder),))
        with open_index(self._index, settings) as store:
            self._answering.start()
            while not self._closing.is_set():
                started = time.monotonic()
                try:
                    self._emit(self._look(store))
                except (GteError, OSError) as error:  # a folder that is gone, a full disk: the next look may succeed
                    self._emit(self._problem(error))
                took = time.monotonic() - started
                self._closing.wait(max(LOOK_SECONDS, took / LOOK_SHARE))

    def _look(self, store: PassageStore) -> Current:
        def progress(done: int, total: int) -> None:
            if self._closing.is_set():
                raise _Closing
            if total:
                self._emit(Progress(done, total))

        changes = update_index(store, self._embedder, lambda line: None, progress)
        file_count, passage_count = store.counts()
        return Current(file_count - changes.without_text, passage_count, changes.left_out, changes.any())

    def _problem(self, error: Exception) -> Problem:
        if self.folder.exists():
            return Problem(_described(error))
        return Problem(
            f"The folder {shown(self.folder)} is not there",
            "Connect the drive that it is on, or choose another folder. Its index is kept.",
        )

    def _answer(self) -> None:
        with PassageStore(self._index) as store:  # SQLite wants a connection of its own in each thread
            search = PassageSearch(store)
            while (question := self._newest_question()) is not None:
                try:
                    query = self._embedder.embed_query(question)
                    self._emit(Answer(question, search.find(query, HIT_COUNT, question, MIN_SCORE)))
                except GteError as error:
                    self._emit(Problem(_described(error)))

    def _newest_question(self) -> str | None:
        question = self._questions.get()
        while question is not None and not self._questions.empty():
            question = self._questions.get()
        return question


class _Closing(Exception):  # noqa: N818 - ends an update, is no error
    pass


def open_index(path: Path, settings: Settings) -> PassageStore:
    """The index at `path`, made anew if it is damaged or of another model: all it holds can be read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            with PassageStore(path) as store:
                store.check_fingerprint(settings.fingerprint)
        except (InputError, ModelFormatError, ModelMismatchError):
            path.unlink()
    return PassageStore(path, settings)


def data_folder() -> Path:
    """Where this system keeps what belongs to an application and a user."""
    if sys.platform == "win32":
        base = Path(os.environ["LOCALAPPDATA"])
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "folder-search"


def index_of(folder: Path, data: Path) -> Path:
    return data / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.index"


def shown(folder: Path) -> str:
    """Returns a folder's path as people write it."""
    home = Path.home()
    return str(Path("~", folder.relative_to(home)) if folder.is_relative_to(home) else folder)


def remember_folder(folder: Path, data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    partial = data / "settings.json.part"
    partial.write_text(json.dumps({"folder": str(folder)}), encoding="utf-8")
    partial.replace(data / "settings.json")


def remembered_folder(data: Path) -> Path | None:
    """The folder of the last time; None at the first start, or where the settings cannot be read."""
    try:
        return Path(json.loads((data / "settings.json").read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_file(path: Path, line: int = 1) -> None:
    """Opens a text file in an editor at a line, any other file in the program that the system has for it.

    The editor is the command in FOLDER_SEARCH_EDITOR, with {path} and {line}, or the first of EDITORS that is there.
    Waits for the opener, so call it in a thread. Raises OSError where there is no opener, or it fails.
    """
    editor = editor_command(path, line)
    if editor:
        with subprocess.Popen(editor, env=_environment()):  # an editor may stay until its window is closed
            return
    if sys.platform == "win32":
        os.startfile(path)
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    code = subprocess.run([opener, path], env=_environment(), check=False).returncode
    if code:
        raise OSError(f"{opener} could not open {path} (exit code {code})")


EDITORS = (
    "code --goto {path}:{line}", "codium --goto {path}:{line}", "subl {path}:{line}", "kate --line {line} {path}",
    "gnome-text-editor +{line} {path}", "gedit +{line} {path}", "notepad++ -n{line} {path}",
)  # fmt: skip


def editor_command(path: Path, line: int) -> list[str] | None:
    """Returns the command that opens a text file at a line; None for other files, or without an editor."""
    if kind_of(path) is None:
        return None
    for command in filter(None, (os.environ.get("FOLDER_SEARCH_EDITOR"), *EDITORS)):
        program, *arguments = command.split()
        if found := shutil.which(program):
            return [found, *(part.replace("{line}", str(line)).replace("{path}", str(path)) for part in arguments)]
    return None


def _environment() -> dict[str, str]:
    """A frozen application sees its own libraries first; the programs of the system need those of the system."""
    environment = dict(os.environ)
    if "LD_LIBRARY_PATH_ORIG" in environment:
        environment["LD_LIBRARY_PATH"] = environment["LD_LIBRARY_PATH_ORIG"]
    else:
        environment.pop("LD_LIBRARY_PATH", None)
    return environment


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, GteError | OSError) else f"{type(error).__name__}: {error}"
