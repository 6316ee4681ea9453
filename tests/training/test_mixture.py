"""The mixture's frequencies, its single-source batches without repetition, and that a state continues the sequence."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.data.mixture import Batch, Mixture
from training.data.pairs import Pair, PairsError, Source, open_source, write_pairs


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Four sources of 10, 40, 90 and 160 pairs: sizes 1 : 4 : 9 : 16."""
    opened = []
    for number, count in enumerate((10, 40, 90, 160)):
        pairs = [Pair(f"q{number}.{row}", f"d{number}.{row}", (f"n{number}.{row}", "shared")) for row in range(count)]
        write_pairs(tmp_path / f"s__{number}.parquet", pairs)
        opened.append(open_source(tmp_path / f"s__{number}.parquet", tmp_path / "cache"))
    return opened


def draw(mixture: Mixture, count: int) -> list[Batch]:
    return [mixture.next_batch() for _ in range(count)]


def test_sources_are_drawn_by_size_to_the_alpha(sources: list[Source]) -> None:
    mixture = Mixture(sources, 2, alpha=0.5, seed=3)
    np.testing.assert_allclose(mixture.probabilities_S, [0.1, 0.2, 0.3, 0.4])
    counts = np.zeros(4)
    for batch in draw(mixture, 4000):
        assert len(set(batch.sources)) == 1
        counts[int(batch.sources[0][-1])] += 1
    np.testing.assert_allclose(counts / 4000, [0.1, 0.2, 0.3, 0.4], atol=0.025)
    np.testing.assert_allclose(Mixture(sources, 2, alpha=0, seed=3).probabilities_S, [0.25] * 4)
    np.testing.assert_allclose(Mixture(sources, 2, alpha=1, seed=3).probabilities_S, np.array([1, 4, 9, 16]) / 30)


def test_every_pass_takes_each_pair_once_in_a_new_order(sources: list[Source]) -> None:
    batches = draw(Mixture(sources[1:2], 10, alpha=0.5, seed=0), 8)
    passes = [[pair.query for batch in batches[start : start + 4] for pair in batch.pairs] for start in (0, 4)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(sources[1][row].query for row in range(40))
    assert passes[0] != passes[1]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_state_continues_the_very_sequence(sources: list[Source], mixed: bool) -> None:
    arguments = {"batch_size": 7, "alpha": 0.5, "seed": 5, "mixed": mixed, "negatives": 1}
    mixture = Mixture(sources, **arguments)  # type: ignore[arg-type]
    state = json.loads(json.dumps(draw(mixture, 23)[-1].state))
    resumed = Mixture(sources, **arguments)  # type: ignore[arg-type]
    resumed.restore(state)
    expected = draw(mixture, 40)
    assert [batch.pairs for batch in draw(resumed, 40)] == [batch.pairs for batch in expected]
    assert any(len(set(batch.sources)) > 1 for batch in expected) == mixed
    other = Mixture(sources, **{**arguments, "seed": 6})  # type: ignore[arg-type]
    other.restore(state)
    assert [batch.pairs for batch in draw(other, 40)] != [batch.pairs for batch in expected]
    with pytest.raises(ValueError, match="state is of 4 sources, but there are 2"):
        Mixture(sources[:2], 7, 0.5, 5).restore(state)


def test_no_text_stands_twice_in_a_batch_and_no_pair_is_lost(tmp_path: Path) -> None:
    pairs = [Pair(f"q{row % 10}", f"d{row}", (f"d{(row + 1) % 40}", "everybody's")) for row in range(40)]
    write_pairs(tmp_path / "s.parquet", pairs)
    source = open_source(tmp_path / "s.parquet", tmp_path / "cache")
    seen: list[str] = []
    for batch in draw(Mixture([source], 8, alpha=0.5, seed=0, negatives=2), 10):
        texts = [text for pair in batch.pairs for text in (pair.query, pair.document, *pair.negatives)]
        assert len(texts) == len(set(texts))
        seen += [pair.document for pair in batch.pairs]
    assert set(seen) == {pair.document for pair in pairs}


def test_a_source_smaller_than_a_batch_gives_what_it_has(sources: list[Source]) -> None:
    (batch,) = draw(Mixture(sources[:1], 64, alpha=0.5, seed=0), 1)
    assert len(batch.pairs) == 10
    (batch,) = draw(Mixture(sources[:1], 64, alpha=0.5, seed=0, multiple=4), 1)
    assert len(batch.pairs) == 8
    with pytest.raises(PairsError, match="fewer distinct pairs than there are processes"):
        draw(Mixture(sources[:1], 64, alpha=0.5, seed=0, multiple=11), 1)


def test_negatives_are_sampled_up_to_their_number(sources: list[Source]) -> None:
    (batch,) = draw(Mixture(sources[3:], 20, alpha=0.5, seed=0, negatives=2), 1)
    counts = [len(pair.negatives) for pair in batch.pairs]
    assert counts == [2] + [1] * 19  # "shared" may stand only once
    (batch,) = draw(Mixture(sources[3:], 20, alpha=0.5, seed=0), 1)
    assert all(pair.negatives == () for pair in batch.pairs)
