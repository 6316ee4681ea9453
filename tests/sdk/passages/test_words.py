"""The words of passages: how identifiers are cut, BM25 by its plain formula, and words that leave with passages."""

import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, FileState, PassageStore, Settings
from gte_sdk.passages.words import MAX_WORDS, match_any, words_of_question, words_of_text

DIM = 4
SETTINGS = Settings("tiny", "sha256:tiny", DIM, ("/notes",))


def put(store: PassageStore, texts: Mapping[str, Sequence[str]]) -> None:
    """Stores files of passages, with vectors that say nothing."""
    for path, parts in texts.items():
        hashes = [f"{path} {number}".encode() for number in range(len(parts))]
        store.add_vectors(hashes, np.ones((len(parts), DIM), np.float32))
        passages = [Passage(path, number, "", text) for number, text in enumerate(parts, 1)]
        store.put_files([FilePassages(path, FileState("", b""), list(zip(passages, hashes, strict=True)))])


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("getUserName", "get User Name"),
        ("get_user_name", "getusername"),
        ("_get__user_", "getuser"),
        ("HTTPServerError", "HTTP Server Error"),
        ("parse_HTTPUrl", "parseHTTPUrl HTTP Url"),
        ("utf8Name", "utf8 Name"),
        ("EADDRINUSE plain words 12", ""),
        ("Größe_in_m getÄrger", "Größe_in_m"),
    ],
)
def test_the_other_forms_of_identifiers_follow_the_text(text: str, forms: str) -> None:
    if text.startswith("Größe"):  # cut at its ASCII letters only, the same in every version of Unicode
        assert words_of_text(text) == f"{text} einm"
    else:
        assert words_of_text(text) == f"{text} {forms}".rstrip()


@pytest.mark.parametrize(
    ("question", "words", "identifiers", "has_nothing_else"),
    [
        ("getUserName", ["getusername", "get", "user", "name"], ["getusername"], True),
        ("Where is get_user_name?", ["where", "is", "getusername", "get", "user", "name"], ["getusername"], False),
        ("EADDRINUSE or E2BIG", ["eaddrinuse", "or", "e2big", "e2", "big"], ["eaddrinuse", "e2big"], False),
        ("chimney", ["chimney"], ["chimney"], True),
        ("The roof", ["the", "roof"], [], False),
        ("the 2nd of 12", ["the", "2nd", "of", "12"], [], False),
        ("__init__ __", ["init"], ["init"], True),
        ('"* (NEAR) ^:', ["near"], ["near"], True),
        ("-- ?! _", [], [], True),
    ],
)
def test_the_words_of_a_question(
    question: str, words: list[str], identifiers: list[str], has_nothing_else: bool
) -> None:
    assert words_of_question(question) == (words, identifiers, has_nothing_else)


def test_the_words_of_a_question_are_bounded() -> None:
    assert len(words_of_question(" ".join(f"w{number}" for number in range(5000))).words) == MAX_WORDS


@pytest.mark.parametrize("style", ["readUserNames", "read_user_names", "ReadUserNames", "READ_USER_NAMES"])
def test_each_style_of_a_name_finds_every_other_and_its_parts(style: str) -> None:
    texts = ["readUserNames()", "read_user_names()", "ReadUserNames()", "READ_USER_NAMES", "nothing of it"]
    with PassageStore(None, SETTINGS) as store:
        put(store, {"a.py": texts})
        assert [store.count_word(word) for word in words_of_question(style).words] == [4, 4, 4, 4]


@settings(deadline=None, max_examples=60)
@given(st.text() | st.text(alphabet='"*^:()+-{}\\NEARORANDT _\0é') | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_question_and_any_text_are_safe(text: str) -> None:
    with PassageStore(None, SETTINGS) as store:
        encodable = text.encode("utf-8", "replace").decode()
        put(store, {"a.txt": [encodable, "other words"]})
        words = words_of_question(text).words
        assert all(store.count_word(word) <= 2 for word in words)
        assert len(store.find_words(words, 9)) <= 2 if words else True
        put(store, {"a.txt": ["short"]})  # takes exactly the words away that it put there
        assert [store.count_word(word) for word in ("short", "other")] == [1, 0]


def test_what_would_be_an_operator_is_a_word() -> None:
    assert match_any(["near", 'a"b']) == '"near" OR "a""b"'


def bm25(documents: Sequence[Sequence[str]], words: Sequence[str]) -> list[float]:
    """The plain formula of Okapi BM25, with the bound of FTS5 for words that more than half of the documents have."""
    k1, b = 1.2, 0.75
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts = Counter(document)
        score = 0.0
        for word in words:
            having = sum(word in other for other in documents)
            weight = max(1e-6, math.log((len(documents) - having + 0.5) / (having + 0.5)))
            times = counts[word]
            score += weight * times * (k1 + 1) / (times + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


def test_bm25_is_that_of_the_plain_formula() -> None:
    random = np.random.default_rng(0)
    vocabulary = [f"w{letter}" for letter in "abcdefghijklmnopq"]
    odds = 1 / np.arange(1, 18)
    texts = [" ".join(random.choice(vocabulary, random.integers(3, 40), p=odds / odds.sum())) for _ in range(60)]
    with PassageStore(None, SETTINGS) as store:
        put(store, {"name": texts})
        documents = [["name", *text.split()] for text in texts]
        for words in (["wq"], ["wa", "wb"], ["wc", "wh", "wn", "absent"], vocabulary):
            hits = store.find_words(words, 100)
            found = {store.passages([hit.passage_id])[hit.passage_id].line - 1: hit.bm25 for hit in hits}
            expected = {number: score for number, score in enumerate(bm25(documents, words)) if score}
            assert found == pytest.approx(expected, rel=1e-9)
            assert [hit.bm25 for hit in hits] == sorted(found.values(), reverse=True)
            assert store.find_words(words, 2) == hits[:2]


def everything(store: PassageStore) -> dict[tuple[str, int], list[float]]:
    """The words that the tests ask for, with the BM25 of each, by place."""
    found: dict[tuple[str, int], list[float]] = {}
    for word in ("red", "green", "blue", "getcolor", "color", "py"):
        for hit in store.find_words([word], 99):
            passage = store.passages([hit.passage_id])[hit.passage_id]
            found.setdefault((passage.path, passage.line), []).append(round(hit.bm25, 12))
    return found


def test_words_come_and_go_with_their_passages(tmp_path: Path) -> None:
    last = {"a.py": ["red getColor", "green", "x", "y"], "c.py": ["get_color blue", "z"]}
    with PassageStore(tmp_path / "fresh", SETTINGS) as fresh, PassageStore(tmp_path / "i", SETTINGS) as store:
        put(fresh, last)
        put(store, {"a.py": ["green getColor", "blue"], "b.py": ["red " * 50], "c.py": ["get_color"]})
        assert everything(store) != everything(fresh)
        put(store, last)
        store.remove_files(["b.py"])
        store.remove_unused_vectors()
        assert everything(store) == everything(fresh)
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as connection:
        connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_a_change_that_fails_leaves_passages_and_words_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PassageStore(tmp_path / "i", SETTINGS) as store:
        put(store, {"a.py": ["red", "x"], "b.py": ["green", "y"]})
        before = everything(store), store.counts()
        monkeypatch.setattr("gte_sdk.passages.store.words_of_text", lambda text: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            put(store, {"a.py": ["blue"]})
        with pytest.raises(ZeroDivisionError):
            store.remove_files(["b.py"])
        monkeypatch.undo()
        assert (everything(store), store.counts()) == before


def test_words_are_stemmed_and_freed_of_accents() -> None:
    with PassageStore(None, SETTINGS) as store:
        put(store, {"a.txt": ["Connections to the Café", "x", "y"]})
        assert [store.count_word(word) for word in ("connect", "connected", "cafe", "café", "conn")] == [1, 1, 1, 1, 0]
