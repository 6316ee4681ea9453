"""A search by meaning, by words and by both: the scores by hand, identifiers first, and indexes without words."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import IndexFormatError, InputError
from gte_sdk.passages.searching import WORDS_SHARE, Found, PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, FileState, PassageStore, Settings
from gte_sdk.passages.text_files import Wanted
from gte_sdk.passages.updating import update_index

DIM = 2
SETTINGS = Settings("tiny", "sha256:tiny", DIM, ("/notes",))
EAST = np.array([1, 0], np.float32)


def put(store: PassageStore, texts: dict[str, tuple[str, float]]) -> None:
    """Stores one passage for each path: its text, and its cosine with EAST."""
    for path, (text, cosine) in texts.items():
        store.add_vectors([path.encode()], np.array([[cosine, np.sqrt(1 - cosine**2)]], np.float32))
        store.put_files([FilePassages(path, FileState("", b""), [(Passage(path, 1, "", text), path.encode())])])


def paths(found: Sequence[Found]) -> list[str]:
    return [hit.passage.path for hit in found]


def test_the_score_is_the_weighted_mean_of_cosine_and_share_of_words() -> None:
    texts = {"a": ("roof tiles", 0.2), "b": ("roof", 0.5), "c": ("garden", 0.9), "d": ("bread", -0.3), "e": ("x", 0.1)}
    with PassageStore(None, SETTINGS) as store:
        put(store, texts)
        search = PassageSearch(store)
        # Five texts. "roof" is in two of them and "tiles" in one; "absent" is in none, and counts in the bound.
        roof, tiles, absent = np.log(3.5 / 2.5), np.log(4.5 / 1.5), np.log(5.5 / 0.5)
        length = 1.2 * (0.25 + 0.75 * np.array([3, 2]) / (11 / 5))  # with the name of the file
        most = 2.2 * (roof + tiles + absent)
        shares = {"a": (roof + tiles) * 2.2 / (1 + length[0]) / most, "b": roof * 2.2 / (1 + length[1]) / most}
        question = "roof tiles absent"
        by_words = {hit.passage.path: hit.score for hit in search.find(None, 9, question)}
        assert by_words == pytest.approx(shares)
        by_meaning = {hit.passage.path: hit.score for hit in search.find(EAST, 9)}
        assert by_meaning == pytest.approx({path: cosine for path, (_, cosine) in texts.items()}, abs=1e-6)
        by_both = search.find(EAST, 9, question)
        expected = {path: 0.6 * cosine + 0.4 * shares.get(path, 0) for path, (_, cosine) in texts.items()}
        assert {hit.passage.path: hit.score for hit in by_both} == pytest.approx(expected, abs=1e-6)
        assert paths(by_both) == sorted(expected, key=lambda path: -expected[path])
        assert WORDS_SHARE == 0.4


def test_a_passage_far_by_meaning_is_found_by_its_words_with_its_own_cosine() -> None:
    texts = {f"{number:03}": (f"filler {number}", 0.9) for number in range(150)}
    with PassageStore(None, SETTINGS) as store:
        put(store, texts | {"far": ("the chimney leaks", -0.9)})
        search, question = PassageSearch(store), "does the chimney leak when it rains"
        (by_words,) = search.find(None, 200, question)
        (far,) = (hit for hit in search.find(EAST, 200, question) if hit.passage.path == "far")
        assert by_words.score > 0.1
        assert far.score == pytest.approx(0.6 * -0.9 + 0.4 * by_words.score, abs=1e-6)


def test_a_question_without_a_known_word_is_answered_by_meaning() -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, {"a": ("roof", 0.5), "b": ("garden", 0.25)})
        search = PassageSearch(store)
        for question in ("zzzz", "?!", ""):
            assert search.find(None, 5, question) == []
            assert [hit.score for hit in search.find(EAST, 5, question)] == pytest.approx([0.3, 0.15])


def test_words_that_all_passages_have_still_find_them() -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, {"a": ("roof", 0.5), "b": ("roof garden", 0.25)})
        assert paths(PassageSearch(store).find(None, 5, "the roof")) == ["a", "b"]


@pytest.mark.parametrize("vector", [EAST, None], ids=["by both", "by words"])
@pytest.mark.parametrize(
    "question",
    ["EADDRINUSE", "eaddrinuse", "why do I get EADDRINUSE when the server starts?", "chimney", "what raises E2BIG here",
     "readUserNames", "where is read_user_names called"],
)  # fmt: skip
def test_an_identifier_that_stands_in_one_file_comes_first(vector: np.ndarray | None, question: str) -> None:
    loud = "why do I get it when the server starts? what raises it here, where is it called: read user names"
    texts = {f"{number}": (f"{loud} {number}", 0.99) for number in range(8)}
    with PassageStore(None, SETTINGS) as store:
        put(store, texts | {"x": ("EADDRINUSE chimney E2BIG ReadUserNames and a lot more that hides it " * 5, -0.9)})
        assert paths(PassageSearch(store).find(vector, 3, question))[0] == "x"


def test_an_identifier_in_several_files_comes_first_only_alone() -> None:
    texts = {f"{number}": (f"about {number}", 0.9) for number in range(8)}
    with PassageStore(None, SETTINGS) as store:
        put(store, texts | {"x": ("getName", -0.9), "y": ("get_name", -0.8)})
        search = PassageSearch(store)
        assert paths(search.find(EAST, 2, "get_name")) == ["y", "x"]
        assert paths(search.find(EAST, 2, "all about get_name")) == ["0", "1"]


def test_the_least_score_holds_in_each_mode() -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, {"a": ("roof", 0.5), "b": ("roof garden walls doors", 0.4), "c": ("x", 0.3), "d": ("y", 0.2)})
        search = PassageSearch(store)
        for vector, question in ((EAST, None), (EAST, "the roof"), (None, "the roof")):
            every = search.find(vector, 9, question)
            for hit in every:
                assert search.find(vector, 9, question, hit.score) == [h for h in every if h.score >= hit.score]
            assert search.find(vector, 9, question, 1.1) == []


FILES = {
    "/notes/a.md": ("roof", 0.5), "/notes/b.py": ("roof garden", 0.4), "/notes/old/c.md": ("roof walls", 0.3),
    "/notes/old/d.py": ("tree", 0.9), "/notes/old/.git/e.md": ("roof", 0.5), "/elsewhere/f.md": ("roof", 0.1),
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), "abcdef"),
        (Wanted(ignore_files=False), "abcdef"),
        (Wanted(globs=("*.md",)), "acef"),
        (Wanted(globs=("old/*",)), "cde"),
        (Wanted(globs=["a.md", "d.*"]), "ad"),
        (Wanted(excludes=("old",)), "abf"),
        (Wanted(excludes=("old/.git", "*.py")), "acf"),
        (Wanted(types=("py",)), "bd"),
        (Wanted(types=("markdown",), excludes=("a*",)), "cef"),
        (Wanted(globs=("/notes/*",)), ""),
    ],
)
def test_only_the_files_that_are_wanted_are_searched(wanted: Wanted, names: str) -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, FILES)
        search = PassageSearch(store)
        for vector, question in ((EAST, None), (EAST, "the roof"), (None, "the roof"), (EAST, "garden")):
            every = search.find(vector, 9, question)
            expected = [hit for hit in every if Path(hit.passage.path).stem[-1] in names]
            for count in (1, 2, 9):
                assert search.find(vector, count, question, wanted=wanted) == expected[:count]


def test_files_are_chosen_before_the_best_are_taken() -> None:
    texts = {f"/notes/{number:03}.md": (f"roof {number}", 0.9) for number in range(400)}
    with PassageStore(None, SETTINGS) as store:
        put(store, texts | {"/notes/far.py": ("roof and a lot more that makes it long", -0.9)})
        search, wanted = PassageSearch(store), Wanted(types=("py",))
        for vector, question in ((EAST, None), (EAST, "the roof"), (None, "the roof")):
            assert paths(search.find(vector, 5, question, wanted=wanted)) == ["/notes/far.py"]
        put(store, {"/notes/new.py": ("roof", 0.95)})
        assert paths(search.find(EAST, 5, wanted=wanted)) == ["/notes/new.py", "/notes/far.py"]


def test_equal_passages_are_ordered_by_path_and_line() -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, dict.fromkeys("dbca", ("roof", 0.5)) | dict.fromkeys("hgfe", ("tree", 0.1)))
        search = PassageSearch(store)
        assert paths(search.find(EAST, 3, "the roof")) == ["a", "b", "c"]
        assert paths(search.find(None, 2, "the roof")) == ["a", "b"]
        assert paths(search.find(EAST, 6)) == ["a", "b", "c", "d", "e", "f"]


def test_neither_a_vector_nor_a_question_is_refused() -> None:
    with PassageStore(None, SETTINGS) as store, pytest.raises(InputError, match="a vector, a question, or both"):
        PassageSearch(store).find(None, 5)


# --- indexes of the first format


def take_words_away(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE words")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


def test_an_index_without_words_answers_by_meaning_and_gets_them_at_its_next_update(tmp_path: Path) -> None:
    embedder = Embedder()
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"Note {number} about bread.", encoding="utf-8")
    (folder / "net.py").write_text("def bind():\n    raise OSError(EADDRINUSE)\n", encoding="utf-8")
    settings = Settings("gte-mini", embedder.fingerprint, embedder.dim, (str(folder),))
    path = tmp_path / "i"
    with PassageStore(path, settings) as store:
        update_index(store, embedder, pytest.fail, lambda done, total: None)
        search = PassageSearch(store)
        wanted = search.find(None, 9, "EADDRINUSE")
        assert [Path(hit.passage.path).name for hit in wanted] == ["net.py"]
    take_words_away(path)
    with PassageStore(path) as old, PassageStore(path) as other:
        vector = embedder.embed_query("bread")
        search = PassageSearch(old)
        assert len(search.find(vector, 30)) == 21
        with pytest.raises(InputError, match="without the words of its passages") as refusal:
            search.find(vector, 5, "bread")
        assert refusal.value.remedy == "update index"
        changes = update_index(other, embedder, pytest.fail, lambda done, total: None)
        assert (changes.embedded, changes.any()) == (0, False)
        assert search.find(None, 9, "EADDRINUSE") == wanted  # in the connection that was open before, too
    with PassageStore(path) as store:
        assert PassageSearch(store).find(None, 9, "EADDRINUSE") == wanted


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_index_has_the_tables_of_its_format(tmp_path: Path, version: int) -> None:
    path = tmp_path / "i"
    with PassageStore(path, SETTINGS) as store:
        put(store, {"a": ("roof", 0.5)})
    if version == 2:
        take_words_away(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    with pytest.raises(IndexFormatError, match="has format version 3" if version == 3 else "tables are not those"):
        PassageStore(path)
