"""Vectors on disk: found by their text, resumed after a kill, refused if damaged; and a run that is taught by them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.pairs import PairsError, open_source, write_pairs
from training.data.sources import open_sources
from training.data.text_vectors import (
    find_rows_with_vectors,
    hash_texts,
    iterate_texts,
    open_text_vectors,
    write_text_vectors,
)
from training.recipes.recipe import load_recipe
from training.runs.run_log import read_log
from training.runs.teaching import teacher_vectors

from .tiny_run import change, losses, train

TEXTS = [f"text {number}" for number in range(25)]
PRETRAIN = "[stages.finetune]"  # what is put before it belongs to the first stage


def vector_of(text: str) -> NDArray[np.float32]:
    drawn = np.random.default_rng(list(text.encode())).standard_normal(6).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn)
    return unit


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([vector_of(text) for text in texts])


def write(directory: Path, texts: Sequence[str], shard: int = 4) -> list[int]:
    made = write_text_vectors(directory, texts, embed, teacher="made", max_tokens=8, texts_a_shard=shard)
    return list(made)


def test_every_text_finds_its_own_vector_and_others_none(tmp_path: Path) -> None:
    assert write(tmp_path, [*TEXTS[:9], *TEXTS[:9]]) == [4, 8, 9]
    assert write(tmp_path, TEXTS) == [13, 17, 21, 25]
    vectors = open_text_vectors(tmp_path)
    asked = [TEXTS[20], "unknown", TEXTS[0], TEXTS[8], "", TEXTS[24]]
    rows = vectors.find(asked)
    assert (rows >= 0).tolist() == [True, False, True, True, False, True]
    found = [text for text, row in zip(asked, rows, strict=True) if row >= 0]
    np.testing.assert_allclose(vectors.read(rows[rows >= 0]), embed(found), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors.read(rows[rows >= 0]), axis=1), 1, atol=1e-6)
    assert (len(vectors), vectors.dim, vectors.max_tokens, vectors.teacher) == (25, 6, 8, "made")
    assert hash_texts(["a text"]).tolist() == [
        [0x1CEEC7E8D9606870, 0x3156B7E5C11B2665]
    ]  # the format of files that exist


def test_what_a_killed_writer_left_is_completed(tmp_path: Path) -> None:
    write(tmp_path, TEXTS[:8])
    (tmp_path / "000001.keys.npy").unlink()  # the vectors of a shard are there, its keys were not reached
    assert write(tmp_path, TEXTS) == [8, 12, 16, 20, 24, 25]
    vectors = open_text_vectors(tmp_path)
    np.testing.assert_allclose(vectors.read(vectors.find(TEXTS)), embed(TEXTS), atol=1e-3)


def test_another_teacher_and_damage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PairsError, match=r"vectors\.json is missing; python -m training\.runs\.teaching\.teacher_vectors"
    ):
        open_text_vectors(tmp_path)
    write(tmp_path, TEXTS[:8])
    with pytest.raises(PairsError, match="holds vectors of made on 8 tokens, not of another on 8"):
        list(write_text_vectors(tmp_path, TEXTS, embed, teacher="another", max_tokens=8))
    nothing = lambda texts: np.full((len(texts), 6), np.nan, dtype=np.float32)  # noqa: E731
    with pytest.raises(PairsError, match="not finite"):
        list(write_text_vectors(tmp_path, TEXTS, nothing, teacher="made", max_tokens=8))
    np.save(tmp_path / "000001.vectors.npy", np.zeros((3, 6), dtype=np.float16))
    with pytest.raises(PairsError, match=r"000001\.vectors\.npy is float16 \(3, 6\), not float16 \(4, 6\)"):
        open_text_vectors(tmp_path)
    (tmp_path / "000001.vectors.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(PairsError, match=r"000001\.vectors\.npy is not readable"):
        open_text_vectors(tmp_path)
    (tmp_path / "vectors.json").write_text(json.dumps({"format_version": 2}))
    with pytest.raises(PairsError, match=r"vectors\.json"):
        open_text_vectors(tmp_path)


def test_sources_take_turns_and_every_text_comes(data: Path) -> None:
    sources = open_sources(["stage1/*"], data)
    texts = list(iterate_texts(sources, 0.5, 1))
    pairs = [source[index] for source in sources for index in range(len(source))]
    assert sorted(texts) == sorted(text for pair in pairs for text in (pair.query, pair.document))
    assert [texts[index + 1] for index in range(0, len(texts), 2)] == [
        next(pair.document for pair in pairs if pair.query == text) for text in texts[::2]
    ]
    assert texts == list(iterate_texts(sources, 0.5, 1)) != list(iterate_texts(sources, 0.5, 2))


def test_pairs_with_vectors(data: Path, tmp_path: Path) -> None:
    source = open_source(data / "stage1" / "b__two.parquet")
    pairs = [source[index] for index in range(len(source))]
    write(tmp_path / "some", [pair.query for pair in pairs[:20]] + [pair.document for pair in pairs[10:]])
    vectors = open_text_vectors(tmp_path / "some")
    assert find_rows_with_vectors(source, vectors, "queries").tolist() == list(range(20))
    assert find_rows_with_vectors(source, vectors, "documents").tolist() == list(range(10, 30))
    assert find_rows_with_vectors(source, vectors, "both").tolist() == list(range(10, 20))


@pytest.fixture
def taught(data: Path) -> tuple[Path, Path, str]:
    """Data, a directory of a checkpoint's vectors of all of it, and a recipe that is taught by them."""
    start = train(data, "start")
    vectors = data.parent / "vectors"
    teacher_vectors.main(
        [str(start / "model"), "stage1/*", "--data", str(data), "--max-tokens", "12", "--output", str(vectors)]
    )
    table = (
        f'[stages.pretrain.distillation.stored]\nteacher = "{vectors}"\nweight = 3.0\nkind = "similarities"\n{PRETRAIN}'
    )
    return data, vectors, change(data, (PRETRAIN, table), name="taught.toml")


def test_stored_vectors_teach_what_their_teacher_does(taught: tuple[Path, Path, str]) -> None:
    data, vectors, recipe = taught
    stored = train(data, "stored", recipe=recipe)
    live = train(data, "live", "--teacher", f"stored={data.parent / 'start' / 'model'}", recipe=recipe)
    assert losses(stored) == pytest.approx(losses(live), abs=2e-3)  # float16
    untaught = train(data, "untaught")
    assert abs(losses(stored)[0] - losses(untaught)[0]) > 1e-2
    assert load_recipe(str(stored / "recipe.toml")) == load_recipe(str(data.parent / recipe))
    record = json.loads((stored / "run.json").read_text())
    assert record["recipe"]["stages"]["pretrain"]["distillation"]["stored"]["teacher"] == str(vectors)


def test_two_teachers_add_up_and_a_category_has_its_own_weight(taught: tuple[Path, Path, str]) -> None:
    data, _vectors, recipe = taught
    once = train(data, "once", "--stop-after", "1", recipe=recipe)
    text = (data.parent / recipe).read_text()
    half = text.replace("weight = 3.0", "weight = 1.5")
    second = half.replace("distillation.stored]", "distillation.second]")
    table = second[second.index("[stages.pretrain.distillation.second]") : second.index(PRETRAIN)]
    (data.parent / "two.toml").write_text(half.replace(PRETRAIN, f"{table}{PRETRAIN}"))
    two = train(data, "two", "--stop-after", "1", recipe="two.toml")
    assert losses(two) == pytest.approx(losses(once), rel=1e-6)
    off = "weight = 3.0\ncategory_weights = { a = 0.0, b = 3.0 }"
    (data.parent / "b.toml").write_text(text.replace("weight = 3.0", off))
    only_b = read_log(train(data, "b", recipe="b.toml") / "log.csv")[:8]
    plain, full = losses(train(data, "plain")), losses(train(data, "full", recipe=recipe))
    first = [line.source for line in only_b].index("a__one")
    if first == 0:
        assert only_b[0].loss == pytest.approx(plain[0])
    else:
        assert only_b[0].loss == pytest.approx(full[0])


def test_a_text_without_a_vector_stops_the_run_or_is_left_out(
    taught: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    data, _vectors, recipe = taught
    source = open_source(data / "stage1" / "b__two.parquet")
    pairs = [source[index] for index in range(len(source))]
    write_pairs(
        data / "stage1" / "b__two.parquet", [*pairs, pairs[0]._replace(query="new"), pairs[1]._replace(document="q")]
    )
    message = (
        r"stages\.pretrain\.distillation\.stored: 2 of 32 pairs of b__two have a text without a vector in .*vectors\. "
        r"Compute them with `python -m training\.runs\.teaching\.teacher_vectors .*model .*b__two\.parquet "
        r"--max-tokens 12 --output"
    )
    with pytest.raises(PairsError, match=message) as refused:
        train(data, "refused", recipe=recipe)
    text = (data.parent / recipe).read_text()
    (data.parent / "left.toml").write_text(text.replace("weight = 3.0", 'weight = 3.0\nwithout_vectors = "leave_out"'))
    left = train(data, "left", "--stop-after", "4", recipe="left.toml")
    assert "pretrain: 90 of 92 pairs have their vectors, in 2 of 2 sources" in capsys.readouterr().out
    recorded = json.loads((left / "run.json").read_text())["data"]["pretrain"]
    assert [source["pairs"] for source in recorded] == [60, 30]

    command = re.search("`python -m training.runs.teaching.teacher_vectors (.*?)`", str(refused.value))
    assert command is not None
    teacher_vectors.main(command[1].split())  # the directory grows, and a run that began goes on as it was
    whole = train(data, "whole", recipe="left.toml")
    assert [source["pairs"] for source in json.loads((whole / "run.json").read_text())["data"]["pretrain"]] == [60, 32]
    train(data, "left", recipe="left.toml")
    assert [source["pairs"] for source in json.loads((left / "run.json").read_text())["data"]["pretrain"]] == [60, 30]
    train(data, "refused", recipe=recipe)
