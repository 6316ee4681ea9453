"""The mixture's frequencies, its single-source batches without repetition, and that a state continues the sequence."""

import functools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.data.mixture import Batch, Mixture
from training.data.pairs import SCHEMA, Blocks, Pair, PairsError, Source, open_source, write_pairs
from training.recipes.recipe import Stage
from training.runs.plan import step_count


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
@pytest.mark.parametrize("multiple", [1, 3])
def test_an_epoch_is_a_pass_over_every_source(sources: list[Source], mixed: bool, multiple: int) -> None:
    mixture = Mixture(sources, 12, alpha=0, seed=1, mixed=mixed, whole_passes=True, multiple=multiple)
    sizes = [len(source) for source in sources]
    expected = {source[row].query for source in sources for row in range(len(source))}
    passes: list[list[str]] = [[], [], []]
    for batch in draw(mixture, 60):
        assert len(batch.pairs) % multiple == 0
        passes[batch.state["passes"][0]] += [pair.query for pair in batch.pairs]
    for queries in passes[:2]:
        assert len(set(queries)) == len(queries)
        assert len(expected - set(queries)) <= (multiple - 1) * len(sources)
    assert passes[0] != passes[1]
    stage = Stage(12, 1e-3, 16, epochs=2, mixed_sources=mixed)
    assert step_count(stage, sizes) == (50 if mixed else 2 * (1 + 4 + 8 + 14))


def test_an_epoch_without_a_batch_for_all_processes_ends(sources: list[Source]) -> None:
    mixture = Mixture(sources[:1], 12, alpha=0, seed=1, whole_passes=True, multiple=11)
    with pytest.raises(PairsError, match=r"source s__0 has fewer distinct pairs than there are processes \(11\)"):
        mixture.next_batch()


def test_missing_negatives_are_other_documents_of_the_source_at_random(sources: list[Source]) -> None:
    mixture = Mixture(sources, 4, alpha=1, seed=1, negatives=5, random_negatives=True)
    seen = set()
    for batch in draw(mixture, 40):
        texts = [text for pair in batch.pairs for text in (pair.query, pair.document, *pair.negatives)]
        assert len(set(texts)) == len(texts)
        number = batch.sources[0][-1]
        if number != "0":  # which has 10 pairs, too few for 4 groups of 7 texts
            assert {len(pair.negatives) for pair in batch.pairs} == {5}
        others = {text for pair in batch.pairs for text in pair.negatives if text.startswith("d")}
        assert all(text.startswith(f"d{number}.") for text in others)
        seen |= others
    assert len(seen) > 150  # of 300 documents
    resumed = Mixture(sources, 4, alpha=1, seed=1, negatives=5, random_negatives=True)
    resumed.restore(mixture.state())
    assert resumed.next_batch() == mixture.next_batch()


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


def made(name: str, queries: list[str], documents: list[str]) -> Source:
    empty = {key: pa.nulls(len(queries), SCHEMA.field(key).type) for key in ("negatives", "label")}
    batch = pa.RecordBatch.from_pydict({"query": queries, "document": documents, **empty}, schema=SCHEMA)
    return Source(name, Path(), "", Blocks(np.array([0, len(queries)]), lambda block: batch))


def test_what_waits_is_bounded_however_often_a_text_is_repeated() -> None:
    documents = ["everybody's" if row % 5 == 0 else f"d{row}" for row in range(30_000)]
    source = made("s", [f"q{row}" for row in range(30_000)], documents)
    mixture = Mixture([source], 400, alpha=0.5, seed=0)
    looked_at = [0]
    for batch in draw(mixture, 60):
        assert len(batch.pairs) == 400
        assert sum(pair.document == "everybody's" for pair in batch.pairs) == 1
        assert len(batch.state["waiting"][0]) <= 100
        looked_at.append(batch.state["positions"][0])
    assert max(np.diff(looked_at)) < 600  # a fifth of the pairs is passed over, whatever waits
    alike = made("s", ["q"] * 30_000, ["d"] * 30_000)
    assert len(Mixture([alike], 4, alpha=0.5, seed=0).next_batch().pairs) == 1


def simulated(name: str, count: int, a_window: int, log: list[int] | None = None) -> Source:
    """A source of any number of pairs, in blocks of 1,000 that cost nothing until they are read."""

    def read(block: int) -> pa.RecordBatch:
        if log is not None:
            log.append(block)
        rows = range(block * 1000, min((block + 1) * 1000, count))
        texts = {key: [f"{key[0]}{row}" for row in rows] for key in ("query", "document")}
        empty = {key: pa.nulls(len(rows), SCHEMA.field(key).type) for key in ("negatives", "label")}
        return pa.RecordBatch.from_pydict({**texts, **empty}, schema=SCHEMA)

    starts = np.append(np.arange(0, count, 1000), count)
    return Source(name, Path(), "", Blocks(starts, functools.lru_cache(max(1, a_window))(read), a_window))


def test_a_source_read_by_the_block_is_permuted_in_windows_and_each_block_is_read_once() -> None:
    log: list[int] = []
    source = simulated("s", 20_500, 4, log)
    mixture = Mixture([source], 500, alpha=0.5, seed=1)
    batches = draw(mixture, 41)
    assert sorted(log) == list(range(21))
    assert sorted(int(pair.query[1:]) for batch in batches for pair in batch.pairs) == list(range(20_500))
    for batch in batches[:8]:  # of the first window, or the first two
        assert len({int(pair.query[1:]) // 1000 for pair in batch.pairs}) == 4
    log.clear()
    resumed = Mixture([simulated("s", 20_500, 4, log)], 500, alpha=0.5, seed=1)
    resumed.restore(json.loads(json.dumps(batches[29].state)))
    assert resumed.next_batch().pairs == batches[30].pairs
    assert len(log) <= 8  # those of the window that it stopped in, and the next


def test_800_million_pairs_take_little_memory_and_are_drawn_by_size_to_the_alpha() -> None:
    millions = [147, 45, 106, 327, 38, 12, 3, 20, 91]  # the paper's table 1
    tracemalloc.start()
    sources = [simulated(f"s__{number}", size * 10**6, 8) for number, size in enumerate(millions)]
    mixture = Mixture(sources, 8, alpha=0.5, seed=0)
    batches = draw(mixture, 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, sources)) == 789 * 10**6
    assert peak < 100e6
    batches += draw(mixture, 580)
    expected = np.sqrt(millions) / np.sqrt(millions).sum()
    counts = np.array([sum(batch.sources[0] == source.name for batch in batches) for source in sources])
    np.testing.assert_allclose(counts / 600, expected, atol=0.05)
    resumed = Mixture(sources, 8, alpha=0.5, seed=0)
    resumed.restore(batches[-3].state)
    assert [batch.pairs for batch in draw(resumed, 2)] == [batch.pairs for batch in batches[-2:]]


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
