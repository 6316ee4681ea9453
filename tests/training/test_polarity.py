"""Sentences that feel the same way are pairs, and the nearest ones that feel otherwise are their negatives."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.pairs import Pair, PairsError, open_source, write_pairs
from training.data.polarity import load_lexicon, main, pair_by_sign, sentences_of, sort_by_sign


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """The angle in degrees that a text ends with, as a unit vector."""
    angles = np.radians([float(text.split()[-1]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_sentence_gets_the_nearest_of_its_sign_and_the_nearest_of_the_other() -> None:
    pairs = pair_by_sign(["good 0", "good 30", "good 80"], ["bad 5", "bad 50", "bad 100"], embed, 2)
    assert pairs == [
        Pair("good 0", "good 30", ("bad 5", "bad 50"), "positive"),
        Pair("good 30", "good 0", ("bad 50", "bad 5"), "positive"),
        Pair("good 80", "good 30", ("bad 100", "bad 50"), "positive"),
        Pair("bad 5", "bad 50", ("good 0", "good 30"), "negative"),
        Pair("bad 50", "bad 5", ("good 30", "good 80"), "negative"),
        Pair("bad 100", "bad 50", ("good 80", "good 30"), "negative"),
    ]


def test_the_same_text_in_other_words_is_no_partner() -> None:
    pairs = pair_by_sign(["good 0", "good 1", "good 40"], ["bad 90", "bad 91"], embed, 1)
    assert [(pair.query, pair.document) for pair in pairs] == [
        ("good 0", "good 40"),
        ("good 1", "good 40"),
        ("good 40", "good 1"),
    ]


def test_each_sign_is_filled_with_its_first_sentences_and_each_once() -> None:
    scores = {"a": 0.9, "b": -0.9, "c": 0.1, "d": 0.6, "e": -0.6, "f": 0.7}
    assert sort_by_sign("aacbdef", scores.__getitem__, 0.6, 2) == (["a", "d"], ["b", "e"])


def test_sentences_come_from_all_sources_in_turns(tmp_path: Path) -> None:
    long = " ".join(["word"] * 41)
    write_pairs(tmp_path / "a__x.parquet", [Pair("This is the first one. Short. And here the second!", long)])
    write_pairs(tmp_path / "b__y.parquet", [Pair("no", "A third line is here\nand a fourth line too")] * 2)
    sources = [open_source(tmp_path / name, tmp_path / "cache") for name in ("a__x.parquet", "b__y.parquet")]
    assert list(sentences_of(sources)) == [
        "This is the first one.",
        "And here the second!",
        "A third line is here",
        "and a fourth line too",
    ]


def test_the_command_writes_pairs_that_the_lexicon_has_sorted(tmp_path: Path) -> None:
    good = [f"I love this wonderful {thing} so much" for thing in ("book", "film", "song", "garden")]
    bad = [f"I hate this horrible {thing} so much" for thing in ("book", "film", "song", "garden")]
    neutral = [f"The {thing} stands on the table" for thing in ("book", "film", "song", "garden")]
    texts = zip(good, bad, neutral, strict=True)
    write_pairs(tmp_path / "a__x.parquet", [Pair(f"{first}. {third}.", second) for first, second, third in texts])
    output = tmp_path / "polarity__sentences.parquet"
    main([str(tmp_path / "a__x.parquet"), "--output", str(output), "--negatives", "1"])
    source = open_source(output, tmp_path / "cache")
    pairs = [source[index] for index in range(len(source))]
    assert {pair.query.rstrip(".") for pair in pairs} == {*good, *bad}
    for pair in pairs:
        assert ("love" in pair.query) == ("love" in pair.document) == (pair.label == "positive")
        assert all(("love" in text) != ("love" in pair.query) for text in pair.negatives)
    about_books = next(pair for pair in pairs if pair.query.startswith("I love this wonderful book"))
    assert about_books.negatives == ("I hate this horrible book so much",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sentiment", "0"], "--sentiment 0.0 must be above 0"),
        (["--negatives", "0"], "--negatives 0 must be at least 1"),
        (["--limit", "1"], "--limit 1 must be at least 2"),
        ([], "0 positive and 0 negative sentences"),
    ],
)
def test_one_error_names_the_value(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "a__x.parquet", [Pair("The table stands in the room.", "It is made of wood there.")])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a__x.parquet"), "--output", str(tmp_path / "out.parquet"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


def test_without_the_lexicon_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(PairsError, match="pip install vaderSentiment"):
        load_lexicon()
