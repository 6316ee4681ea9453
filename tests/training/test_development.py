"""A source as a set to measure on: every query finds its own documents there, and the same seed writes the same set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.pairs import Pair, write_pairs
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
