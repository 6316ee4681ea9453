"""A source as a set to measure on: every query finds its own documents there, and the same seed writes the same set."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.pairs import Pair, PairsError, write_pairs
from training.development import main
from training.evaluate.protocols import PROTOCOLS, read_ranking_set

PAIRS = [Pair(f"query {row // 2}", f"document {row}") for row in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "a__pairs.parquet", PAIRS)
    return tmp_path / "a__pairs.parquet"


def test_each_query_has_all_its_documents_among_the_number_asked_for(source: Path, tmp_path: Path) -> None:
    main([str(source), "--output", str(tmp_path / "sets"), "--queries", "5", "--documents", "20"])
    ranking = read_ranking_set(tmp_path / "sets" / "retrieval" / "a__pairs")
    assert len(ranking.documents) == len(set(ranking.documents)) == 20
    assert len(set(ranking.queries)) == len(ranking.queries) <= 5
    for query, grades in zip(ranking.queries, ranking.grades, strict=True):
        expected = {pair.document for pair in PAIRS if pair.query == query}
        assert {ranking.documents[number] for number in grades} == expected


def test_documents_of_the_queries_are_kept_beyond_the_number(source: Path, tmp_path: Path) -> None:
    main(
        [
            str(source),
            "--output",
            str(tmp_path / "sets"),
            "--queries",
            "40",
            "--documents",
            "1",
            "--task",
            "code_search",
        ]
    )
    path = tmp_path / "sets" / "code_search" / "a__pairs"
    assert len(read_ranking_set(path).documents) == 40

    def one_hot(texts: Sequence[str]) -> NDArray[np.float32]:
        numbers = [int(text.split()[1]) // (2 if text.startswith("document") else 1) for text in texts]
        rows: NDArray[np.float32] = np.eye(20, dtype=np.float32)[numbers]
        return rows

    assert PROTOCOLS["code_search"](path, one_hot, one_hot) == 1.0


def test_a_seed_decides_and_what_exists_is_kept(source: Path, tmp_path: Path) -> None:
    for output, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        main([str(source), "--output", str(tmp_path / output), "--queries", "5", "--seed", seed])
    queries = [(tmp_path / name / "retrieval/a__pairs/queries.jsonl").read_text() for name in ("one", "same", "other")]
    assert queries[0] == queries[1] != queries[2]
    with pytest.raises(SystemExit):
        main([str(source), "--output", str(tmp_path / "one")])
    with pytest.raises(SystemExit):
        main([str(source), "--output", str(tmp_path / "none"), "--queries", "0"])
    assert not (tmp_path / "none").exists()


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def one_hot_of_number(texts: Sequence[str]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = np.eye(100, dtype=np.float32)[[int(text.split()[-1]) for text in texts]]
    return rows


def test_pairs_with_negatives_are_told_apart_and_graded(tmp_path: Path) -> None:
    pairs = [Pair(f"query {row}", f"document {row}", (f"near {row + 50}",)) for row in range(30)]
    pairs += [Pair(f"query {row}", f"document {row}") for row in range(30, 40)]
    write_pairs(tmp_path / "a__pairs.parquet", pairs)
    for task in ("pair_classification", "sts"):
        main([str(tmp_path / "a__pairs.parquet"), "--output", str(tmp_path / "sets"), "--task", task, "--queries", "9"])
    labelled = rows_of(tmp_path / "sets/pair_classification/a__pairs/test.jsonl")
    assert len(labelled) == 18
    for row in labelled:
        assert row["label"] == int(row["b"].startswith("document"))
        assert row["label"] == 0 or row["a"].split()[1] == row["b"].split()[1]
    graded = rows_of(tmp_path / "sets/sts/a__pairs/test.jsonl")
    assert sorted(row["score"] for row in graded) == [0] * 9 + [1] * 9 + [2] * 9
    for row in graded:
        same = row["a"].split()[1] == row["b"].split()[1]
        assert row["score"] == (1 if row["b"].startswith("near") else 2 * same)
    path = tmp_path / "sets/pair_classification/a__pairs"
    assert PROTOCOLS["pair_classification"](path, one_hot_of_number, one_hot_of_number) == 1.0
    write_pairs(tmp_path / "b__none.parquet", PAIRS)
    with pytest.raises(PairsError, match=r"b__none\.parquet: 0 pairs have negatives"):
        main([str(tmp_path / "b__none.parquet"), "--output", str(tmp_path / "sets"), "--task", "sts"])
    assert not (tmp_path / "sets/sts/b__none").exists()


def test_labels_of_a_column_or_of_the_text_make_classes(tmp_path: Path) -> None:
    names = ["red", "green", "blue"]
    columns = [Pair(f"thing {row}", f"d {row}", (), names[row % 3]) for row in range(96)]
    columns += [Pair(f"rare {row}", f"d {row}", (), "rare") for row in range(96, 100)]
    texts = [Pair(f"{names[row % 3]}: thing {row}", f"d {row}") for row in range(96)]
    write_pairs(tmp_path / "a__column.parquet", columns)
    write_pairs(tmp_path / "b__text.parquet", texts)
    for name, more in (("a__column", []), ("b__text", ["--label", r"(\w+):"])):
        for task in ("classification", "clustering"):
            main([str(tmp_path / f"{name}.parquet"), "--output", str(tmp_path / "sets"), "--task", task, *more])
        clustering = rows_of(tmp_path / f"sets/clustering/{name}/test.jsonl")
        assert len(clustering) == 96
        assert all(row["label"] == names[int(row["text"].split()[1]) % 3] for row in clustering)
        train, test = (rows_of(tmp_path / f"sets/classification/{name}/{part}.jsonl") for part in ("train", "test"))
        assert (
            Counter(row["label"] for row in train) == Counter(row["label"] for row in test) == dict.fromkeys(names, 16)
        )
        assert not {row["text"] for row in train} & {row["text"] for row in test}

    def colour(texts: Sequence[str]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = np.eye(3, dtype=np.float32)[[int(text.split()[1]) % 3 for text in texts]]
        return rows

    for task in ("classification", "clustering"):
        assert PROTOCOLS[task](tmp_path / f"sets/{task}/a__column", colour, colour) == pytest.approx(1.0)
    with pytest.raises(PairsError, match=r"no two labels have 32 texts each, of 0 labels"):
        main([str(tmp_path / "b__text.parquet"), "--output", str(tmp_path / "more"), "--task", "clustering"])
    for wrong in (["--label", "red"], ["--label", "("]):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "b__text.parquet"), "--output", str(tmp_path / "n"), "--task", "clustering", *wrong])
