"""Mined negatives are near, are no answers, and stand within the window of ranks and below the positive's share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from training.data.mining import mine, read_corpus
from training.data.pairs import Pair, PairsError, open_source, write_pairs
from training.encoders.encoder import Encoder
from training.encoders.encoder_files import write_encoder
from training.mine_negatives import main
from training.recipes.recipe import Mining

# Texts are angles in degrees: cosines are known, and the order of documents by similarity is their order here.
PAIRS = [
    Pair("q0", "d10"),
    Pair("q0", "d12"),
    Pair("q1", "d15"),
    *(Pair(f"q{100 + a}", f"d{a}") for a in range(20, 80)),
]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    angles = np.radians([float(text[1:]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_negatives_come_from_the_window_and_below_the_positives_share() -> None:
    mined = mine(PAIRS, embed, Mining(count=100, first_rank=0, last_rank=62, max_ratio=0.95), seed=0)
    # cos(10) * 0.95 = 0.9356 = cos(20.7): d21 and farther; d12 is the other answer of q0 and d15 is too near.
    assert set(mined[0].negatives) == {f"d{angle}" for angle in range(21, 80)}
    window = mine(PAIRS, embed, Mining(count=100, first_rank=5, last_rank=9, max_ratio=0.95), seed=0)
    assert set(window[0].negatives) == {"d22", "d23", "d24", "d25", "d26"}


def test_a_corpus_of_its_own_stands_beside_the_documents(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": "d25.5"}\n{"text": "d12"}\n')
    pq.write_table(pa.table({"text": ["d26.5", "d25.5"]}), tmp_path / "more.parquet")
    corpus = read_corpus(["corpus", "more.parquet"], tmp_path)
    assert corpus == ["d25.5", "d12", "d26.5"]
    window = mine(PAIRS, embed, Mining(count=100, first_rank=5, last_rank=9, max_ratio=0.95), 0, corpus)
    assert set(window[0].negatives) == {"d22", "d23", "d24", "d25", "d25.5"}
    (tmp_path / "corpus.jsonl").write_text('{"document": "d25"}\n')
    with pytest.raises(PairsError, match=r"corpus\.jsonl: a corpus needs a column `text`: KeyError"):
        read_corpus(["corpus"], tmp_path)


def test_answers_of_the_same_query_and_own_negatives_are_respected() -> None:
    pairs = [PAIRS[0]._replace(negatives=("labelled",)), *PAIRS[1:]]
    first = mine(pairs, embed, Mining(count=4, first_rank=0, last_rank=62, max_ratio=2.0), seed=0)[0]
    assert first.negatives[0] == "labelled"
    assert len(first.negatives) == 4
    everything = mine(pairs, embed, Mining(count=100, first_rank=0, last_rank=62, max_ratio=2.0), seed=0)[0]
    assert not {"d10", "d12"} & set(everything.negatives)
    assert {"d15", "d79"} <= set(everything.negatives)


def test_the_draw_depends_on_the_seed_only() -> None:
    mining = Mining(count=3, first_rank=0, last_rank=62)
    assert mine(PAIRS, embed, mining, seed=1) == mine(PAIRS, embed, mining, seed=1)
    assert mine(PAIRS, embed, mining, seed=1) != mine(PAIRS, embed, mining, seed=2)


def test_command_line_writes_a_source_that_training_reads(
    tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path / "model")
    write_pairs(tmp_path / "a__b.parquet", [Pair(f"open {row}", f"file {row}") for row in range(30)])
    source = str(tmp_path / "a__b.parquet")
    main([str(tmp_path / "model"), source, "--output", str(tmp_path / "mined"), "--count", "3", "--max-ratio", "2"])
    mined = open_source(tmp_path / "mined" / "a__b.parquet", tmp_path / "cache")
    assert [len(mined[row].negatives) for row in range(30)] == [3] * 30
    assert "30 pairs, 3.0 negatives a pair" in capsys.readouterr().out
