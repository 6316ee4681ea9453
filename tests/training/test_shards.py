"""A source of many shards: the same pairs from every format and place, by the row group, and what is left out."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import training.data.shards
from training.data.left_out import hash_evaluation_texts
from training.data.mixture import Mixture
from training.data.pairs import Pair, PairsError, Source
from training.data.shards import open_shards

from .tiny_run import losses, train

ROWS: list[dict[str, Any]] = [
    {"title": f"title {row}", "head": "Head", "body": f"body {row} " * 50, "score": row} for row in range(300)
]
COLUMNS = {"query": "title", "document": ["head", "body"]}


def lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], rows_a_group: int) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=rows_a_group)


def pairs_of(source: Source) -> list[Pair]:
    return source.read(np.arange(len(source)))


def test_every_format_gives_the_same_pairs_in_the_order_of_the_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", ROWS[:100], 7)
    (tmp_path / "1.jsonl").write_bytes(lines(ROWS[100:200]))
    # Two members, as tools that append write them.
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[200:220])) + gzip.compress(lines(ROWS[220:250])))
    with pa.CompressedOutputStream(str(tmp_path / "3.jsonl.zst"), "zstd") as file:
        file.write(lines(ROWS[250:]))
    (tmp_path / "README.md").write_text("no shard")
    source = open_shards("a__one", ["*"], COLUMNS, data=tmp_path, cache=tmp_path / "cache")
    assert pairs_of(source) == [Pair(row["title"], f"Head {row['body']}") for row in ROWS]
    assert (source.name, source.category, source.empty) == ("a__one", "a", 0)
    again = open_shards("a__one", ["*"], COLUMNS, data=tmp_path, cache=tmp_path / "cache")
    assert again.sha256 == source.sha256
    write_parquet(tmp_path / "0.parquet", ROWS[:99], 7)
    changed = open_shards("a__one", ["*"], COLUMNS, data=tmp_path, cache=tmp_path / "cache")
    assert (len(changed), changed.sha256 == source.sha256) == (299, False)


def test_row_groups_are_read_in_windows_from_a_remote_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.data.shards, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(training.data.shards, "WINDOW_BYTES", 16_000)
    remote = fsspec.filesystem("memory")
    for number in range(3):
        write_parquet(tmp_path / "local.parquet", ROWS[number * 100 : number * 100 + 100], 5)
        remote.pipe(f"/bucket/{number}.parquet", (tmp_path / "local.parquet").read_bytes())
    source = open_shards("a", ["memory://bucket/*.parquet"], COLUMNS, cache=tmp_path / "cache")
    block_count, a_window = len(source.blocks.starts) - 1, source.blocks.a_window
    assert (a_window, block_count) == (4, 60)
    reads: list[Any] = []
    original = training.data.shards._read_groups

    def counted(*arguments: Any) -> pa.RecordBatch:
        reads.append(arguments[-2:])
        return original(*arguments)

    monkeypatch.setattr(training.data.shards, "_read_groups", counted)
    mixture = Mixture([source], 20, alpha=0.5, seed=0)
    batches = [mixture.next_batch() for _ in range(15)]
    assert sorted(pair.query for batch in batches for pair in batch.pairs) == sorted(row["title"] for row in ROWS)
    assert len(reads) == block_count
    remote.rm("/bucket", recursive=True)


def test_a_row_group_too_large_for_memory_is_cut_once_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.data.shards, "MOST_BLOCK_BYTES", 20_000)
    monkeypatch.setattr(training.data.shards, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(training.data.shards, "ROWS_A_GROUP", 10)
    write_parquet(tmp_path / "a.parquet", ROWS, 1000)
    source = open_shards("a", ["a.parquet"], COLUMNS, data=tmp_path, cache=tmp_path / "cache")
    assert len(source.blocks.starts) > 10
    assert pairs_of(source) == [Pair(row["title"], f"Head {row['body']}") for row in ROWS]
    assert len(list((tmp_path / "cache" / "shards").glob("*.parquet"))) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_left_out_is_counted_over_all_shards(tmp_path: Path, workers: int) -> None:
    first = [
        {"query": "a", "document": "b"},
        {"query": "Test, text!", "document": "b"},
        {"query": "c", "document": "d"},
    ]
    second: list[dict[str, Any]] = [
        first[0],
        {"query": None, "document": "b"},
        {"query": "e", "document": " "},
        {"query": "f", "document": "g"},
    ]
    third: list[dict[str, Any]] = [first[2], {"query": "h", "document": "i"}, first[0]]
    for number, rows in enumerate([first, second, third]):
        write_parquet(tmp_path / f"{number}.parquet", rows, 2)
    source = open_shards(
        "a",
        [f"{tmp_path}/*.parquet"],
        forbidden=hash_evaluation_texts(["test text"]),
        cache=tmp_path / "cache",
        workers=workers,
    )
    assert pairs_of(source) == [Pair("a", "b"), Pair("c", "d"), Pair("f", "g"), Pair("h", "i")]
    assert (source.refused, source.repeated, source.empty) == (1, 3, 2)
    assert len(open_shards("a", [f"{tmp_path}/*.parquet"], cache=tmp_path / "cache")) == 5


def test_negatives_may_be_columns_of_one_text_each(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"anchor": "a", "positive": "b", "n1": "c", "n2": "d"},
        {"anchor": "e", "positive": "f", "n1": None, "n2": "g"},
    ]
    write_parquet(tmp_path / "a.parquet", rows, 2)
    columns = {"query": "anchor", "document": "positive", "negatives": ("n1", "n2")}
    source = open_shards("a", [f"{tmp_path}/a.parquet"], columns, cache=tmp_path / "cache")
    assert pairs_of(source) == [Pair("a", "b", ("c", "d")), Pair("e", "f", ("g",))]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write_parquet(tmp_path / "a.parquet", ROWS[:5], 5)
    (tmp_path / "bad.jsonl").write_bytes(lines(ROWS[:2]) + b"{\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines(ROWS))[:100])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("none*", COLUMNS, r"'none\*' matches no \.parquet, \.jsonl"),
        ("a.parquet", {}, r"a\.parquet has no column query but title, head, body, score"),
        ("a.parquet", {"query": "name", "document": "body"}, "has no column name but"),
        ("a.parquet", {"question": "title"}, r"a\.columns has 'question'; a pair has query, document"),
        ("a.parquet", {**COLUMNS, "negatives": "score"}, "its negatives is int64, not large_list"),
        ("bad.jsonl", COLUMNS, r"bad\.jsonl, row 3: '{' is malformed"),
        ("cut.jsonl.gz", COLUMNS, r"cut\.jsonl\.gz"),
        ("broken.parquet", COLUMNS, r"broken\.parquet cannot be read"),
        ("nosuch://bucket/*", COLUMNS, r"nosuch://bucket/\* cannot be read: ValueError: Protocol not known"),
        ("a.parquet", {"query": "title", "document": "label"}, "has no column label"),
    ]
    for files, columns, message in cases:
        with pytest.raises(PairsError, match=message):
            open_shards("a", [files], columns, data=tmp_path, cache=cache)
    with pytest.raises(PairsError, match="--data DIR"):
        open_shards("a", ["a.parquet"], COLUMNS, cache=cache)
    titles = hash_evaluation_texts(row["title"] for row in ROWS)
    with pytest.raises(PairsError, match="all 5 rows of a"):
        open_shards("a", ["a.parquet"], COLUMNS, data=tmp_path, cache=cache, forbidden=titles)


def test_a_run_on_shards_stops_and_continues_with_the_same_losses(data: Path) -> None:
    recipe = data.parent / "sharded.toml"
    recipe.write_text(
        """
extends = "tiny"
[stages.pretrain]
sources = []
[stages.pretrain.shards.web__pages]
files = ["stage1/*.parquet"]
[stages.finetune]
mining = { count = 2, first_rank = 0, last_rank = 20 }
"""
    )
    whole = train(data, "whole", "--stop-after", "10", recipe="sharded.toml")
    for steps in ("4", "6"):
        train(data, "parts", "--stop-after", steps, recipe="sharded.toml")
    assert losses(data.parent / "parts") == losses(whole)
    record = json.loads((whole / "run.json").read_text())
    assert [(of_one["name"], of_one["pairs"]) for of_one in record["data"]["pretrain"]] == [("web__pages", 90)]
