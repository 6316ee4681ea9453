"""One passage index for the tools of agents: made and refreshed in the background, searched in a thread of its own.

The index of folders lies in the user's cache, under the hash of everything that it depends on, so all processes that
search the same folders by the same model share it. A call looks for changed files if the last look is old enough, and
spends at most a twentieth of the time on that. Between calls nothing runs. After IDLE_SECONDS the vectors are freed.
"""

import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gte_sdk.agents.answers import found_answer, lines_answer
from gte_sdk.agents.requests import ReadRequest, SearchRequest, SimilarRequest, ToolRequest
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.errors import IndexFormatError, InputError
from gte_sdk.passages.database import FORMAT_VERSION, is_passage_store
from gte_sdk.passages.places import passage_at, vector_of
from gte_sdk.passages.searching import Found, PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.text_files import EVERYTHING, Wanted
from gte_sdk.passages.updating import Changes, update_index

IDLE_SECONDS = 300.0
"""After so long without a call, the model and the vectors of an index leave the memory. The next call opens them."""
# Files are not looked at more often, and a look at a large folder takes at most this share of the time.
_LOOK_SECONDS, _LOOK_SHARE = 2.0, 0.05
_MOST_REASONS = 20


class Progress(NamedTuple):
    """How far an update is."""

    done: int
    total: int
    """Files to read; 0 as long as they are counted."""


class _Stopped(Exception):  # noqa: N818 - no fault
    """The workspace was closed, or another process updates the index just now."""


class Workspace:
    """Folders, or one passage index that somebody else keeps, and their model. Safe to use from any thread."""

    def __init__(
        self, settings: Settings, open_model: Callable[[], Embedder], index: Path | None, cache: Path | None
    ) -> None:
        """Opens nothing yet.

        Args:
            settings: What to search. The fingerprint and width are those of the model, once it is open.
            open_model: Opens the model. Called at most once at a time, and again after an error.
            index: An existing passage index, which is searched as it is; None for the folders of the settings.
            cache: The folder for the index of folders; None for a user without one, an error at the first call.
        """
        self.settings = settings
        self.progress: Progress | None = None
        """Of the update that runs."""
        self._open_model = open_model
        self.index = index
        """The index that is searched as it is, or None."""
        self._cache = cache
        self._lock = threading.Lock()
        self._model_lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._path = index
        self._searcher = ThreadPoolExecutor(1, "gte-search")
        self._updater = ThreadPoolExecutor(1, "gte-update")
        self._update: Future[None] | None = None
        self._changes: Changes | None = None
        self._finished_at: float | None = None
        self._next_look = 0.0
        self._stops = False
        self._store: PassageStore | None = None  # of the searcher's thread, as the next three
        self._search: PassageSearch | None = None
        self._forget_timer: threading.Timer | None = None
        self._used_at = 0.0

    def refresh(self) -> Future[None] | None:
        """Starts to look for changed files, if it is time to. Returns the update that runs, or failed last."""
        with self._lock:
            if self.index is not None or self._stops:
                return None
            running = self._update is not None and not self._update.done()
            if not running and time.monotonic() >= self._next_look:
                self.progress = Progress(0, 0)
                self._update = self._updater.submit(self._run_update)
                running = True
            failed = self._update is not None and self._update.done() and self._update.exception() is not None
            return self._update if running or failed else None

    def run(self, request: ToolRequest) -> "Future[dict[str, Any]]":
        """Answers a request from what is in the index now. The future raises GteError."""
        return self._searcher.submit(self._answer, request)

    def state(self) -> dict[str, Any]:
        """Returns whether the index is complete, and how far its update is."""
        progress = self.progress
        complete = self.index is not None or self._finished_at is not None
        state = "updating" if progress is not None and complete else "ready" if complete else "indexing"
        answer: dict[str, Any] = {"state": state}
        if progress is not None:
            answer |= {"files_done": progress.done, "files_to_read": progress.total}
        return answer

    def close(self) -> None:
        """Ends the update after the batch that it is at, and closes the index."""
        with self._lock:
            self._stops = True
        self._searcher.submit(self._forget)
        self._updater.shutdown(wait=True, cancel_futures=True)
        self._searcher.shutdown(wait=True)

    # --- in the updater's thread

    def _run_update(self) -> None:
        started = time.monotonic()
        try:
            embedder = self._model()
            settings = self.settings._replace(fingerprint=embedder.fingerprint, dim=embedder.dim)
            path = self._path_of(settings)
            if path.exists() and not is_passage_store(path):
                path.unlink()
            try:
                self._update_at(path, settings, embedder)
            except IndexFormatError:  # ours alone, so it can be made again
                path.unlink(missing_ok=True)
                self._update_at(path, settings, embedder)
            self._finished_at = time.time()
        except _Stopped:
            pass  # what it has done so far is in the index
        finally:
            took = time.monotonic() - started
            self._next_look = time.monotonic() + max(_LOOK_SECONDS, took / _LOOK_SHARE if self._finished_at else 0)
            self.progress = None

    def _update_at(self, path: Path, settings: Settings, embedder: Embedder) -> None:
        with PassageStore(path, settings) as store:
            self.settings, self._path = store.settings, path
            self._changes = update_index(store, embedder, self._hear, self._report)

    def _hear(self, message: str) -> None:
        if message.endswith("; waiting"):  # for another process, which does the same work
            raise _Stopped

    def _report(self, done: int, total: int) -> None:
        if self._stops:
            raise _Stopped
        self.progress = Progress(done, total)

    def _path_of(self, settings: Settings) -> Path:
        if self._cache is None:
            raise InputError("this user has no folder for caches; make an index with `gte index`, and name that")
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        ingredients = [FORMAT_VERSION, settings.fingerprint, settings.dim, *settings[3:]]
        return self._cache / f"{hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:32]}.index"

    # --- in the searcher's thread

    def _answer(self, request: ToolRequest) -> dict[str, Any]:
        if self._path is None:
            return (
                found_answer([], self.state()) if isinstance(request, SearchRequest) else self._without_index(request)
            )
        if self._store is None or self._store.path != self._path:
            self._forget()
            self._store = PassageStore(self._path)
            self._search = PassageSearch(self._store)
        self._forget_later()
        store = self._store
        store.follow()
        if isinstance(request, SearchRequest):
            return found_answer(self._find(store, request), self.state())
        if isinstance(request, ReadRequest):
            return lines_answer(self._passages_of(store, request.path), request)
        if isinstance(request, SimilarRequest):
            passages = self._passages_of(store, request.path)
            passage = passage_at(passages, request.line)
            assert passage is not None
            assert self._search is not None
            found = self._search.find(vector_of(store, passage), request.k + 1)
            others = [each for each in found if each.passage[:2] != passage[:2]]
            return found_answer(self._inside(others)[: request.k], self.state())
        return self._status(store)

    def _without_index(self, request: ToolRequest) -> dict[str, Any]:
        if isinstance(request, ReadRequest | SimilarRequest):
            raise InputError("the index is being made; try again when index_status says that it is ready")
        return self._facts(0, 0)

    def _find(self, store: PassageStore, request: SearchRequest) -> list[Found]:
        assert self._search is not None
        mode = request.mode or ("hybrid" if store.has_words() else "meaning")
        vector_D = None
        if mode != "words":
            embedder = self._model()
            store.check_fingerprint(embedder.fingerprint)
            vector_D = embed_batch(embedder, [request.query], "query").vectors[0]
        words = None if mode == "meaning" else request.query
        least = -math.inf if request.min_score is None else request.min_score
        wanted = EVERYTHING if request.glob is None else Wanted(globs=(request.glob,))
        return self._inside(self._search.find(vector_D, request.k, words, least, wanted))

    def _passages_of(self, store: PassageStore, path: str) -> list[Passage]:
        """Returns the passages of a file that the index has. Raises InputError for any other path."""
        folders = store.settings.paths
        for folder in dict.fromkeys([*folders, *map(os.path.dirname, folders)]):
            name = os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - `path` may be absolute
            passages = store.passages_of_file(name)
            if passages and self._is_inside(name):
                return passages
        raise InputError(f"path={path!r:.200} is no file of this index; give the path of a passage that was found")

    def _inside(self, found: list[Found]) -> list[Found]:
        """Leaves out files that are links to somewhere else: what an agent reads stays in the folders."""
        return [each for each in found if self._is_inside(each.passage.path)]

    def _is_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        tops = [os.path.realpath(folder) for folder in self.settings.paths]
        return any(real == top or real.startswith(os.path.join(top, "")) for top in tops)  # noqa: PTH118

    def _status(self, store: PassageStore) -> dict[str, Any]:
        return self._facts(*store.counts())

    def _facts(self, file_count: int, passage_count: int) -> dict[str, Any]:
        settings, changes = self.settings, self._changes
        reasons = Counter(file.reason for file in changes.left_out) if changes else Counter[str]()
        return {
            **self.state(),
            "folders": [os.fsencode(path).decode("utf-8", "replace") for path in settings.paths],
            "model": settings.model,
            "fingerprint": settings.fingerprint,
            "files": file_count,
            "passages": passage_count,
            "left_out": dict(reasons.most_common(_MOST_REASONS)),
            "seconds_since_update": None if self._finished_at is None else round(time.time() - self._finished_at, 1),
        }

    def _forget_later(self) -> None:
        self._used_at = time.monotonic()
        if self._forget_timer is None:
            self._set_forget_timer(IDLE_SECONDS)

    def _set_forget_timer(self, seconds: float) -> None:
        self._forget_timer = threading.Timer(seconds, self._look_whether_idle)
        self._forget_timer.daemon = True
        self._forget_timer.start()

    def _look_whether_idle(self) -> None:
        with self._lock:
            if not self._stops:
                self._searcher.submit(self._forget_if_idle)

    def _forget_if_idle(self) -> None:
        rest = self._used_at + IDLE_SECONDS - time.monotonic()
        if rest > 0:
            self._set_forget_timer(rest)
        else:
            self._forget_timer = None
            self._forget()

    def _forget(self) -> None:
        store, self._store, self._search = self._store, None, None
        if store is not None:
            store.__exit__()
        if self._stops and self._forget_timer is not None:
            self._forget_timer.cancel()

    # --- in both threads

    def _model(self) -> Embedder:
        with self._model_lock:
            if self._embedder is None:
                self._embedder = self._open_model()
            return self._embedder
