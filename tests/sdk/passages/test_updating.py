"""Bringing an index of a folder up to date from a program: progress, and an end in the middle."""

import os
from pathlib import Path

import numpy as np
import pytest

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.passages import updating
from gte_sdk.passages.reading.parser import Parser
from gte_sdk.passages.reading.sections import Reading
from gte_sdk.passages.searching import PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.updating import BATCH_PASSAGES, update_index

from .documents import docx

FILE_COUNT = 2 * BATCH_PASSAGES + 10


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(FILE_COUNT):
        (folder / f"{number}.txt").write_text(f"Note number {number}.")
    (folder / "bread.txt").write_text("Knead the dough and let it rise.")
    return folder


def new_store(path: Path, folder: Path, embedder: Embedder) -> PassageStore:
    return PassageStore(path, Settings("gte-mini", embedder.fingerprint, embedder.dim, (str(folder),)))


def test_progress_grows_from_nothing_to_all_files(folder: Path, tmp_path: Path, embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    with new_store(tmp_path / "index", folder, embedder) as store:
        changes = update_index(store, embedder, pytest.fail, lambda *step: seen.append(step))
        best = PassageSearch(store).find(embedder.embed_query(["baking"]), 1)[0]
    assert (changes.added, changes.embedded) == (FILE_COUNT + 1, FILE_COUNT + 1)
    done = [step[0] for step in seen]
    assert (seen[0], seen[-1]) == ((0, FILE_COUNT + 1), (FILE_COUNT + 1, FILE_COUNT + 1))
    assert done == sorted(done)
    assert any(0 < count < FILE_COUNT for count in done)
    assert Path(best.passage.path).name == "bread.txt"


def test_what_progress_raises_ends_the_update_and_the_next_one_embeds_the_rest(
    folder: Path, tmp_path: Path, embedder: Embedder
) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    def stop_after_a_batch(done: int, total: int) -> None:
        if done:
            raise Stopped

    with new_store(tmp_path / "index", folder, embedder) as store:
        with pytest.raises(Stopped):
            update_index(store, embedder, pytest.fail, stop_after_a_batch)
        assert store.counts() == (0, 0)
        changes = update_index(store, embedder, pytest.fail, lambda done, total: None)
        assert changes.embedded == FILE_COUNT + 1 - BATCH_PASSAGES
        assert store.counts() == (FILE_COUNT + 1, FILE_COUNT + 1)


def test_the_vectors_are_those_of_embed_documents(folder: Path, tmp_path: Path, embedder: Embedder) -> None:
    text = (folder / "bread.txt").read_text()
    with new_store(tmp_path / "index", folder, embedder) as store:
        update_index(store, embedder, pytest.fail, lambda done, total: None)
        best = PassageSearch(store).find(embedder.embed_documents([text]), 1)[0]
    assert best.passage.text == text
    assert best.score == pytest.approx(1, abs=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="names that are no Unicode exist on POSIX systems")
def test_a_name_that_is_no_unicode_is_indexed_under_its_own_name(tmp_path: Path, embedder: Embedder) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    path = folder / os.fsdecode(b"caf\xe9.txt")
    try:
        path.write_text("Coffee and cake.")
    except OSError:
        pytest.skip("the file system takes only Unicode names")
    with new_store(tmp_path / "index", folder, embedder) as store:
        update_index(store, embedder, pytest.fail, lambda done, total: None)
        assert np.isfinite(store.snapshot().vectors).all()
        assert list(store.files()) == [str(path)]


def test_a_file_that_cannot_be_read_is_parsed_once_and_reported_in_each_update(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    bad, good = folder / "bad.docx", folder / "good.docx"
    bad.write_bytes(b"nothing")
    good.write_bytes(docx(("Heading1", "Bread"), ("", "Knead the dough.")))
    for path in (bad, good):
        os.utime(path, ns=(1, 1))
    monkeypatch.setattr(updating, "_FRESH_NANOSECONDS", 0)
    parsed: list[str] = []
    read = Parser.read

    def counted(parser: Parser, format: str, content: bytes) -> Reading:
        parsed.append(format)
        return read(parser, format, content)

    monkeypatch.setattr(Parser, "read", counted)
    with new_store(tmp_path / "index", folder, embedder) as store:
        for count in (2, 2, 2):
            notices: list[str] = []
            changes = update_index(store, embedder, notices.append, lambda done, total: None)
            assert [(file.path, file.reason) for file in changes.left_out] == [(bad, "damaged")]
            assert (changes.without_text, len(parsed)) == (1, count)
            assert notices == [f"{bad}: damaged (File is not a zip file); skipped"]
            os.utime(bad)  # another time, the same content
        best = PassageSearch(store).find(embedder.embed_query(["baking"]), 1)[0]
        assert best.passage == Passage(str(good), 1, "", "# Bread\n\nKnead the dough.")
        bad.write_bytes(docx(("", "Now it is one.")))
        assert update_index(store, embedder, pytest.fail, lambda done, total: None).left_out == ()
        good.unlink()
        assert update_index(store, embedder, pytest.fail, lambda done, total: None).removed == 1
