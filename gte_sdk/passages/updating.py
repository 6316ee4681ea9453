"""Updates a passage index: reads changed files, embeds new texts, and removes what is gone.

Files with the same size and times are not read again, and texts with the same hash are not embedded again. Each batch
is saved as soon as it is done, so an interrupted update continues where it stopped. `gte index`, `gte search` and an
application's own thread (examples/desktop) run the same update.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gte_sdk import __version__
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.errors import IndexFormatError, InputError
from gte_sdk.passages.reading.decoding import NoTextError, decode
from gte_sdk.passages.reading.outline import MAX_CODE_BYTES, language_of, splitter_of_code
from gte_sdk.passages.reading.parser import Parser
from gte_sdk.passages.reading.sections import Reading, Section, passages_of
from gte_sdk.passages.reading.worker import CODE
from gte_sdk.passages.splitting import Passage, text_to_embed
from gte_sdk.passages.store import FilePassages, FileState, PassageStore
from gte_sdk.passages.text_files import LeaveOut, LeftOut, Wanted, find_text_files, format_of, kind_of, read_content
from gte_sdk.passages.update_lock import lock_path_of

Notice = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Is called with the number of files that are done, and of all files to read."""

BATCH_PASSAGES = 128
# Texts that are sorted by length together, so that a batch holds little padding.
_GROUP_PASSAGES = 1024
BY_INDENTATION = "not parsed as code"
"""Reason of `LeftOut` for source code whose grammar was of no help; the other files are cut at their definitions."""
NOT_WHOLLY = ("read in part", "ignore file not obeyed", BY_INDENTATION)
"""Reasons of `LeftOut` for files of which something is used all the same."""
# A file system may keep times no finer than this: a file that changed since may change again under the same times.
_FRESH_NANOSECONDS = 3_000_000_000


class Changes(NamedTuple):
    """What an update found and embedded."""

    added: int
    changed: int
    removed: int
    unchanged: int
    without_text: int
    """Files among them that have no text that can be read."""
    embedded: int
    """Passages that the model read. The vectors of the others were there already."""
    was_cut: bool
    """Whether one of them is longer than the model reads."""
    left_out: tuple[LeftOut, ...]
    """All that was not read, in this update or an earlier one."""

    def any(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Status(NamedTuple):
    """How an index compares with its folders."""

    added: int
    changed: int
    removed: int
    unchanged: int
    is_complete: bool
    """Whether the last update came to its end."""
    left_out: tuple[LeftOut, ...]


class _Found(NamedTuple):
    path: Path
    name: str
    stamp: str


def update_index(store: PassageStore, embedder: Embedder, notice: Notice, progress: Progress) -> Changes:
    """Updates the index to the current content of its folders. Waits if another update of it is running.

    Args:
        store: The open index.
        embedder: Its model.
        notice: Called with a line for each file that could not be read, in every update.
        progress: Called before and after each batch, which takes a fraction of a second, with the files that are done
            and all files to read. An exception that it raises ends the update. All batches so far are saved, and the
            next update continues from there.

    Raises:
        InputError: A whole folder of the index is gone. Nothing is changed.
        ModelMismatchError: The embedder is not of the index's model.
    """
    with store.locked(lambda: notice(f"{store.path}: another process updates it; waiting")):
        store.check_fingerprint(embedder.fingerprint)
        if not store.has_words():
            store.add_all_words()
        return _update(store, embedder, notice, progress)


def index_status(store: PassageStore) -> Status:
    """Compares an index with its folders: by the content of files whose size or times are not those of the index.

    Raises:
        InputError: A whole folder of the index is gone.
    """
    left_out: list[LeftOut] = []
    known = store.files()
    present, to_read = _scan(store, left_out.append, known)
    added = changed = 0
    as_before = present.copy()
    for path, name, _ in to_read:
        content = read_content(path, left_out.append)
        if content is None:
            present.discard(name)
        elif name not in known:
            added += 1
        elif hashlib.sha256(content).digest() != known[name].sha256:
            changed += 1
        else:
            continue
        as_before.discard(name)
    left_out += [file for name, file in _left_out_before(store).items() if name in as_before]
    return Status(
        added, changed, len(known.keys() - present), len(present) - added - changed,
        store.meta("complete") == "true", tuple(left_out),
    )  # fmt: skip


def _update(store: PassageStore, embedder: Embedder, notice: Notice, progress: Progress) -> Changes:
    left_out: list[LeftOut] = []

    def leave_out(file: LeftOut) -> None:
        left_out.append(file)
        if file.detail:
            notice(f"{file.path}: {file.detail}{'' if file.reason in NOT_WHOLLY else '; skipped'}")

    known = store.files()
    splitter = split_by()
    split_again = store.meta("split_by") != splitter
    if split_again and store.meta("split_by"):
        notice(f"{store.path} was split by {store.meta('split_by')}, and is split again by {splitter}")
    present, to_read = _scan(store, leave_out, {} if split_again else known)
    left_out_before = _left_out_before(store)
    not_read_again = {name: left_out_before[name] for name in left_out_before.keys() & present}
    for found in to_read:
        not_read_again.pop(found.name, None)
    for remembered in not_read_again.values():
        leave_out(remembered)

    def remember(newly: dict[str, LeftOut]) -> None:
        text = json.dumps({name: file[1:] for name, file in {**not_read_again, **newly}.items()})
        if store.meta("left_out") != text:
            store.set_meta({"left_out": text})

    added = changed = embedded = 0
    was_cut = False
    done = 0
    progress(0, len(to_read))
    with Parser() as parser:
        files = _ReadFiles({} if split_again else known, left_out_before, leave_out, parser)
        for group in in_groups(files.read(to_read, present)):
            if store.meta("complete") != "false":
                store.set_meta({"complete": "false"})

            def batch_done(share: float, done: int = done) -> None:
                progress(done + int((files.read_count - done) * share), len(to_read))

            count, cut = embed_group(store, embedder, group, batch_done)
            embedded += count
            was_cut |= cut
            remember(files.left_out)  # first: what is stored is not read again
            store.put_files(group)
            for file in group:
                before = known.get(file.path)
                added += before is None
                changed += before is not None and before.sha256 != file.state.sha256
            done = files.read_count
            progress(done, len(to_read))
    progress(len(to_read), len(to_read))
    remember(files.left_out)
    if files.new_stamps:
        store.set_stamps(files.new_stamps)
    gone = known.keys() - present
    if gone:
        store.set_meta({"complete": "false"})
        store.remove_files(gone)
    if store.meta("complete") != "true" or split_again:
        store.remove_unused_vectors()
        store.set_meta({"complete": "true", "split_by": splitter})
    without_text = sum(file.reason not in NOT_WHOLLY for file in {**not_read_again, **files.left_out}.values())
    unchanged = len(present) - added - changed
    return Changes(added, changed, len(gone), unchanged, without_text, embedded, was_cut, tuple(left_out))


def embed_group(
    store: PassageStore, embedder: Embedder, group: Sequence[FilePassages], batch_done: Callable[[float], None]
) -> tuple[int, bool]:
    """Stores the vectors of some files' texts, as far as they are not there, batch by batch.

    Args:
        store: The index.
        embedder: Its model.
        group: The files.
        batch_done: Called after each batch with the share that is done, up to 1.

    Returns:
        How many texts were embedded, and whether one of them is longer than the model reads.
    """
    texts = {text_hash: text_to_embed(part) for file in group for part, text_hash in file.passages}
    for text_hash in store.embedded_texts(texts):
        del texts[text_hash]
    by_length = sorted(texts, key=lambda text_hash: -len(texts[text_hash]))
    was_cut = False
    for start in range(0, len(by_length), BATCH_PASSAGES):
        batch = by_length[start : start + BATCH_PASSAGES]
        rows = embed_batch(embedder, [texts[text_hash] for text_hash in batch], "document")
        store.add_vectors(batch, rows.vectors)
        was_cut |= rows.was_cut
        batch_done((start + len(batch)) / len(by_length))
    return len(by_length), was_cut


def _scan(store: PassageStore, leave_out: LeaveOut, known: dict[str, FileState]) -> tuple[set[str], list[_Found]]:
    """Returns the files that exist, and those of them that have to be read."""
    for name in store.settings.paths:
        if not Path(name).exists():
            raise InputError(f"{name}, which {store.path} is an index of, is not there; name the folders to index")
    wanted = Wanted(*store.settings[4:8])
    own = {f"{store.path.resolve()}{ending}" for ending in ("", "-journal", "-wal", "-shm", ".rebuild")}
    own.add(str(lock_path_of(store.path)))
    present: set[str] = set()
    to_read = []
    not_own = lambda file: None if str(file.path) in own else leave_out(file)  # noqa: E731
    for path in find_text_files(map(Path, store.settings.paths), wanted, leave_out=not_own):
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


def _left_out_before(store: PassageStore) -> dict[str, LeftOut]:
    """Returns why earlier updates left out files that they read, or a part of them."""
    try:
        remembered = json.loads(store.meta("left_out") or "{}")
        return {name: LeftOut(Path(name), *map(str, why)) for name, why in remembered.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{store.path} is damaged: what it left out is not readable", remedy="rebuild"
        ) from error


class _ReadFiles:
    """Reads files into passages, and collects new stamps for files whose content is unchanged."""

    def __init__(
        self, known: dict[str, FileState], left_out_before: dict[str, LeftOut], leave_out: LeaveOut, parser: Parser
    ) -> None:
        self.read_count = 0
        self.new_stamps: dict[str, str] = {}
        self.left_out: dict[str, LeftOut] = {}
        self._known = known
        self._left_out_before = left_out_before
        self._leave_out = leave_out
        self._parser = parser

    def read(self, to_read: list[_Found], present: set[str]) -> Iterator[FilePassages]:
        """Yields changed files. Removes unreadable ones from `present`, so that the next update tries them again."""
        for path, name, stamp in to_read:
            self.read_count += 1
            content = read_content(path, self._leave_out)
            if content is None:
                present.discard(name)
                continue
            state = FileState(stamp, hashlib.sha256(content).digest())
            before = self._known.get(name)
            if before and before.sha256 == state.sha256:
                if before.stamp != stamp:
                    self.new_stamps[name] = stamp
                if name in self._left_out_before:
                    self._leave(name, self._left_out_before[name])
                continue
            reading = read_sections(path, content, self._parser)
            if reading.reason:
                self._leave(name, LeftOut(path, reading.reason, reading.detail))
            passages = passages_of(_shown(name), reading.sections)
            yield FilePassages(name, state, [(part, hash_of(part)) for part in passages])

    def _leave(self, name: str, file: LeftOut) -> None:
        self.left_out[name] = file
        self._leave_out(file)


def hash_of(passage: Passage) -> bytes:
    """Returns the SHA-256 of the text that is embedded for a passage."""
    return hashlib.sha256(text_to_embed(passage).encode()).digest()


def read_sections(path: Path, content: bytes, parser: Parser) -> Reading:
    """Returns the text of a file. What cannot be read gives no sections and the reason."""
    format = format_of(path, content)
    if format != "text":
        return parser.read(format, content)
    try:
        text = decode(content)
    except NoTextError as error:
        return Reading([], *error.args)
    kind = kind_of(path) or ("code" if text.startswith("#!") else "text")
    language = language_of(path.suffix) if kind == "code" and text.strip() else None
    if language is None:
        return Reading([Section(text, kind)])
    source = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    if len(source) > MAX_CODE_BYTES:
        reading = Reading([], "too large", f"more than {MAX_CODE_BYTES // 2**10} KiB")
    else:
        reading = parser.read(f"{CODE}{language}", source)
    if reading.sections:
        return reading
    return Reading([Section(text, kind)], BY_INDENTATION, f"cut by its indentation: {reading.detail}")


def split_by() -> str:
    """Says what splits files, as an index notes it: files that another version or grammar split are split again."""
    grammars = splitter_of_code()
    return f"{__version__}, {grammars}" if grammars else __version__


def _shown(name: str) -> str:
    """Returns a path that can be encoded; bytes that are no text become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def in_groups(files: Iterator[FilePassages]) -> Iterator[list[FilePassages]]:
    """Yields files in lists of about _GROUP_PASSAGES passages, whose texts are embedded together."""
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
