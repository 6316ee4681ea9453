"""Notes on a small computer, searched by meaning: lines in, answers out, and nothing that was answered is lost.

    sensor-program | python examples/edge/field_notes.py FOLDER [DOCUMENT ...]

Every line of the standard input is a note, or a question where it begins with "?"; documents are read in passages.
FOLDER/notes.txt is the truth: appended to, and on the disk before anything is answered. Every SEGMENT_NOTES notes
their vectors are written to a file that is mapped into memory and never written again, which is kind to an SD card.
The newest notes are embedded again at the start: at most SEGMENT_NOTES of them, a fraction of a second.
"""

import argparse
import fcntl
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gte_sdk import Embedder, GteError, Index, InputError
from gte_sdk.passages.splitting import split_passages, text_to_embed
from gte_sdk.passages.text_files import LeftOut, kind_of, read_text

MODEL = "gte-nano"
SEGMENT_NOTES = 4096
BATCH_NOTES = 256
ANSWER_COUNT = 3


def main() -> None:
    options = _options()
    with Embedder(MODEL, threads=options.threads, truncation="ignore") as embedder:
        log = NoteLog(options.folder, embedder)
        report(f"{len(log)} notes, ready", log)
        for path in options.documents:
            text = read_text(path, say_left_out)
            if text is not None:
                passages = split_passages(str(path), text, kind_of(path) or "text")
                log.add([f"{path}:{part.line}: {text_to_embed(part)}" for part in passages])
        for lines in line_batches(sys.stdin.fileno()):
            notes: list[str] = []
            for line in lines:
                if line.startswith("?"):
                    log.add(notes)
                    notes = []
                    answer(log, line[1:].strip())
                else:
                    notes.append(line)
            log.add(notes)
        report(f"{len(log)} notes, done", log)


def say_left_out(file: LeftOut) -> None:
    print(f"{file.path}: {file.detail}; skipped", file=sys.stderr)


class NoteLog:
    """The notes of a folder and the index over them, which can be made again from notes.txt.

    A note's id is its place in notes.txt in bytes. A second program on the same folder gets an InputError.
    """

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._embedder = embedder
        self._file = (folder / "notes.txt").open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is in use by another program; give this one a folder of its own") from None
        self._sealed, self._newest_start = self._open_segments()
        self._newest = self._new_index()
        self._drop_torn_note()
        self._index_from(self._newest_start)

    def __len__(self) -> int:
        return sum(map(len, (*self._sealed, self._newest)))

    @property
    def mapped_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("*.gte"))

    def add(self, notes: Sequence[str]) -> None:
        """Appends notes, one line each; they are on the disk when this returns."""
        lines = [line.encode("utf-8", "replace") + b"\n" for note in notes if (line := " ".join(note.split()))]
        if lines:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._index_from(start)

    def search(self, question: str, count: int) -> list[tuple[float, str]]:
        """The `count` notes of highest cosine, or all there are, best first."""
        query_D = self._embedder.embed_query(question)
        found: list[tuple[float, int]] = []
        for index in (*self._sealed, self._newest):
            scores, places = index.search(query_D, count)
            found += zip(scores[0].tolist(), places[0].tolist(), strict=True)
        best = sorted(found, key=lambda hit: (-hit[0], hit[1]))[:count]
        return [(score, self._note_at(place)) for score, place in best]

    def _index_from(self, start: int) -> None:
        """Embeds the notes from a place in notes.txt to its end, and seals each segment that becomes full."""
        place = self._file.seek(start)
        batch: list[tuple[int, str]] = []
        for line in self._file:
            batch.append((place, line.decode("utf-8", "replace").rstrip("\n")))
            place += len(line)
            if len(batch) == min(BATCH_NOTES, SEGMENT_NOTES - len(self._newest)):
                self._index_batch(batch)
                batch = []
                if len(self._newest) == SEGMENT_NOTES:
                    self._seal(place)
        if batch:
            self._index_batch(batch)

    def _index_batch(self, batch: list[tuple[int, str]]) -> None:
        vectors_ND = self._embedder.embed_documents([note for _, note in batch])
        self._newest.add(vectors_ND, [place for place, _ in batch], fingerprint=self._embedder.fingerprint)

    def _seal(self, end: int) -> None:
        path = self._folder / f"{self._newest_start:012d}-{end:012d}.gte"
        self._newest.save(path)
        self._sealed.append(Index.open(path, verify=False))
        self._newest = self._new_index()
        self._newest_start = end

    def _open_segments(self) -> tuple[list[Index], int]:
        """The segments, which follow one another without a gap, and where in notes.txt they end.

        What is damaged, of another model or behind such a file is deleted: notes.txt has all that it holds.
        """
        segments: list[Index] = []
        size, end = self._file.seek(0, os.SEEK_END), 0
        for path in sorted(self._folder.glob("*.gte")):
            try:
                first, last = map(int, path.stem.split("-"))
                if first != end or last > size:
                    raise InputError(f"it does not follow on {end} of {size} bytes")
                segments.append(Index.open(path, fingerprint=self._embedder.fingerprint))
                end = last
            except (GteError, ValueError) as error:
                print(f"{path.name} is made again: {error}", file=sys.stderr)
                path.unlink()
        return segments, end

    def _drop_torn_note(self) -> None:
        """Of a line without an end, which only a power cut leaves, nobody was told that it is stored."""
        self._file.seek(self._newest_start)
        whole_lines = self._file.read().rfind(b"\n") + 1
        self._file.truncate(self._newest_start + whole_lines)

    def _note_at(self, place: int) -> str:
        self._file.seek(place)
        return self._file.readline().decode("utf-8", "replace").rstrip("\n")

    def _new_index(self) -> Index:
        return Index(self._embedder.dim, "int8", self._embedder.fingerprint)


def line_batches(descriptor: int) -> Iterator[list[str]]:
    """The lines of a stream, together with those that are there already: a slow sensor's note is not kept waiting."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [line.decode("utf-8", "replace") for line in lines]
    yield [rest.decode("utf-8", "replace")]


def answer(log: NoteLog, question: str) -> None:
    started = time.perf_counter()
    found = log.search(question, ANSWER_COUNT)
    milliseconds = 1000 * (time.perf_counter() - started)
    print(f"? {question}  ({milliseconds:.1f} ms)")
    for score, note in found:
        print(f"  {score:.2f}  {note[:200]}")
    sys.stdout.flush()


def report(what: str, log: NoteLog) -> None:
    """One line of figures: seconds since the process began, resident memory, the part of it that is no file, index."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    megabytes = {line.split()[0]: int(line.split()[1]) / 1024 for line in status.splitlines() if line.endswith(" kB")}
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{what}: {seconds:.2f} s since the start, {used.ru_utime + used.ru_stime:.2f} s of processor time; "
        f"{megabytes['VmRSS:']:.0f} MB resident, {megabytes['RssAnon:']:.0f} MB of it not backed by files; "
        f"{log.mapped_bytes / 2**20:.1f} MB of mapped index",
        file=sys.stderr,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the notes are kept; made if it is not there")
    parser.add_argument("documents", type=Path, nargs="*", help="text files to read first")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except GteError as error:
        sys.exit(f"field_notes.py: {error}")
