"""Updates a passage index: reads changed files, embeds new texts, and removes what is gone.

Files with the same size and times are not read again, and texts with the same hash are not embedded again. Each batch
is saved as soon as it is done, so an interrupted update continues where it stopped. `gte index`, `gte search` and an
application's own thread (examples/desktop) run the same update.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gte_sdk import __version__
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.errors import InputError
from gte_sdk.passages.splitting import split_passages, text_to_embed
from gte_sdk.passages.store import FilePassages, FileState, PassageStore
from gte_sdk.passages.text_files import Notice, decode_text, find_text_files, kind_of, read_content
from gte_sdk.passages.update_lock import lock_path_of

Progress = Callable[[int, int], None]
"""Is called with the number of files that are done, and of all files to read."""

BATCH_PASSAGES = 128
# Texts that are sorted by length together, so that a batch holds little padding.
_GROUP_PASSAGES = 1024
# A file system may keep times no finer than this: a file that changed since may change again under the same times.
_FRESH_NANOSECONDS = 3_000_000_000


class Changes(NamedTuple):
    """What an update found and embedded."""

    added: int
    changed: int
    removed: int
    unchanged: int
    without_text: int
    """Files among them that are binary or in another encoding than UTF-8."""
    embedded: int
    """Passages that the model read. The vectors of the others were there already."""
    was_cut: bool
    """Whether one of them is longer than the model reads."""

    def any(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class _Found(NamedTuple):
    path: Path
    name: str
    stamp: str


def update_index(store: PassageStore, embedder: Embedder, notice: Notice, progress: Progress) -> Changes:
    """Updates the index to the current content of its folders. Waits if another update of it is running.

    Args:
        store: The open index.
        embedder: Its model.
        notice: Called with a line for each file that is skipped, in every update.
        progress: Called before and after each batch, which takes a fraction of a second, with the files that are done
            and all files to read. An exception that it raises ends the update. All batches so far are saved, and the
            next update continues from there.

    Raises:
        InputError: A whole folder of the index is gone. Nothing is changed.
        ModelMismatchError: The embedder is not of the index's model.
    """
    with store.locked(lambda: notice(f"{store.path}: another process updates it; waiting")):
        store.check_fingerprint(embedder.fingerprint)
        return _update(store, embedder, notice, progress)


def _update(store: PassageStore, embedder: Embedder, notice: Notice, progress: Progress) -> Changes:
    for name in store.settings.paths:
        if not Path(name).exists():
            raise InputError(f"{name}, which {store.path} is an index of, is not there; name the folders to index")
    known = store.files()
    split_again = store.meta("split_by") != __version__
    present, to_read = _scan(store, notice, {} if split_again else known)
    files = _ReadFiles(known, split_again, notice)
    added = changed = embedded = 0
    was_cut = False
    done = 0
    progress(0, len(to_read))
    for group in _groups(files.read(to_read, present)):
        if store.meta("complete") != "false":
            store.set_meta({"complete": "false"})
        texts = {text_hash: text_to_embed(part) for file in group for part, text_hash in file.passages}
        for text_hash in store.embedded_texts(texts):
            del texts[text_hash]
        by_length = sorted(texts, key=lambda text_hash: -len(texts[text_hash]))
        for start in range(0, len(by_length), BATCH_PASSAGES):
            batch = by_length[start : start + BATCH_PASSAGES]
            rows = embed_batch(embedder, [texts[text_hash] for text_hash in batch], "document")
            store.add_vectors(batch, rows.vectors)
            embedded += len(batch)
            was_cut |= rows.was_cut
            share = (start + len(batch)) / len(by_length)
            progress(done + int((files.read_count - done) * share), len(to_read))
        store.put_files(group)
        for file in group:
            before = known.get(file.path)
            added += before is None
            changed += before is not None and before.sha256 != file.state.sha256
        done = files.read_count
        progress(done, len(to_read))
    progress(len(to_read), len(to_read))
    if files.new_stamps:
        store.set_stamps(files.new_stamps)
    gone = known.keys() - present
    if gone:
        store.set_meta({"complete": "false"})
        store.remove_files(gone)
    if store.meta("complete") != "true" or split_again:
        store.remove_unused_vectors()
        store.set_meta({"complete": "true", "split_by": __version__})
    return Changes(added, changed, len(gone), len(present) - added - changed, files.without_text, embedded, was_cut)


def _scan(store: PassageStore, notice: Notice, known: dict[str, FileState]) -> tuple[set[str], list[_Found]]:
    """Returns the files that exist, and those of them that have to be read."""
    _, _, _, paths, globs, excludes = store.settings
    own = {f"{store.path.resolve()}{ending}" for ending in ("", "-journal", "-wal", "-shm", ".rebuild")}
    own.add(str(lock_path_of(store.path)))
    present: set[str] = set()
    to_read = []
    for path in find_text_files(map(Path, paths), globs=globs, excludes=excludes, notice=notice):
        name = str(path)
        if name in own:
            continue
        try:
            status = path.stat()
        except OSError:  # deleted a moment ago
            continue
        present.add(name)
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        if name in known and known[name].stamp == stamp:
            continue
        is_fresh = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _FRESH_NANOSECONDS
        to_read.append(_Found(path, name, "" if is_fresh else stamp))
    return present, to_read


class _ReadFiles:
    """Reads files into passages, and collects new stamps for files whose content is unchanged."""

    def __init__(self, known: dict[str, FileState], split_again: bool, notice: Notice) -> None:
        self.read_count = 0
        self.new_stamps: dict[str, str] = {}
        self.without_text = 0
        self._known = known
        self._split_again = split_again
        self._notice = notice

    def read(self, to_read: list[_Found], present: set[str]) -> Iterator[FilePassages]:
        """Yields changed files. Removes unreadable ones from `present`, so that the next update tries them again."""
        for path, name, stamp in to_read:
            self.read_count += 1
            content = read_content(path, self._notice)
            if content is None:
                present.discard(name)
                continue
            text = decode_text(path, content, self._notice)
            if text is None:
                self.without_text += 1
                stamp = ""  # so that the next update reads it again, and says again that it is left out
            state = FileState(stamp, hashlib.sha256(content).digest())
            before = self._known.get(name)
            if before and before.sha256 == state.sha256 and not self._split_again:
                if before.stamp != stamp:
                    self.new_stamps[name] = stamp
                continue
            passages = split_passages(_shown(name), text or "", kind_of(path) or "text")
            yield FilePassages(
                name, state, [(part, hashlib.sha256(text_to_embed(part).encode()).digest()) for part in passages]
            )


def _shown(name: str) -> str:
    """Returns a path that can be encoded; bytes that are no text become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _groups(files: Iterator[FilePassages]) -> Iterator[list[FilePassages]]:
    group: list[FilePassages] = []
    passage_count = 0
    for file in files:
        group.append(file)
        passage_count += len(file.passages)
        if passage_count >= _GROUP_PASSAGES:
            yield group
            group, passage_count = [], 0
    if group:
        yield group
