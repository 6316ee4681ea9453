"""The feed: each process's share of the same batches, tokenized by a thread or by workers, up to the last."""

from pathlib import Path

import pytest

from gte_sdk.runtime.tokens import load_tokenizer, tokenize
from training.data.feed import open_feed
from training.data.mixture import Mixture
from training.data.pairs import Pair, PairsError, Source, open_source, write_pairs


@pytest.fixture
def source(tmp_path: Path) -> Source:
    pairs = [Pair(f"open file {row}", f"sort list {row}", (f"send {row}", f"text {row}")) for row in range(40)]
    write_pairs(tmp_path / "s.parquet", pairs)
    return open_source(tmp_path / "s.parquet", tmp_path / "cache")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_mixture_in_shares_with_their_states(
    source: Source, tokenizer_directory: Path, workers: int
) -> None:
    file = tokenizer_directory / "tokenizer.json"
    mixture = Mixture([source], 6, alpha=0.5, seed=3, negatives=1, multiple=2)
    expected = [mixture.next_batch() for _ in range(5)]
    ahead = Mixture([source], 6, alpha=0.5, seed=3, negatives=1, multiple=2)
    with open_feed(ahead, file, 5, process=1, processes=2, workers=workers, count=5) as feed:
        tokenized = list(feed)
    assert [of_one.batch for of_one in tokenized] == expected
    assert ahead.state() == expected[-1].state  # nothing is drawn beyond the last
    for batch, of_one in zip(expected, tokenized, strict=True):
        own = batch.pairs[3:]
        texts = [pair.query for pair in own] + [pair.document for pair in own] + [pair.negatives[0] for pair in own]
        assert of_one.queries + of_one.documents == texts[:6]
        assert of_one.counts == [(3, 3, 3), (3, 3, 3)]
        assert [list(ids) for ids in of_one.token_ids] == tokenize(load_tokenizer(file), texts, 5).ids


def test_an_error_of_the_mixture_reaches_the_step(source: Source, tokenizer_directory: Path) -> None:
    mixture = Mixture([source], 64, alpha=0.5, seed=0, multiple=41)
    feed = open_feed(mixture, tokenizer_directory / "tokenizer.json", 5, process=0, processes=41, workers=0, count=1)
    with feed as batches, pytest.raises(PairsError, match="fewer distinct pairs"):
        next(batches)
