"""Sources: what is read, what is refused with file and row, what the evaluation filter leaves out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.left_out import find_repeated, hash_evaluation_texts
from training.data.pairs import ROWS_A_BATCH, Pair, PairsError, open_source, write_pairs
from training.data.sources import describe_sources, label_sources, open_sources
from training.recipes.recipe import RecipeError

from .tiny_run import full_disk

PAIRS = [
    Pair("open a file", "open(path)", ("close(file)",)),
    Pair("sort", "sorted(xs)"),
    Pair("naïve ✓", "x\ny", (), "topic"),
]


def test_parquet_and_json_lines_give_the_same_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a__one.parquet", PAIRS)
    lines = [json.dumps(pair._asdict()) for pair in PAIRS]
    lines[1] = json.dumps({"query": "sort", "document": "sorted(xs)"})
    (tmp_path / "b__two.jsonl").write_text("\n".join(lines))
    for name in ("a__one.parquet", "b__two.jsonl"):
        source = open_source(tmp_path / name, tmp_path / "cache")
        assert [source[index] for index in range(len(source))] == PAIRS
        assert source.category == name[0]


def test_pairs_that_a_full_disk_cuts_off_leave_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "mined.parquet"
    write_pairs(path, PAIRS)
    with full_disk(path.stat().st_size), pytest.raises(OSError, match="too large"):
        write_pairs(path, [Pair(f"question {row * row}", f"document {row * row}") for row in range(10_000)])
    source = open_source(path, tmp_path / "cache")
    assert [source[index] for index in range(len(source))] == PAIRS
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["mined.parquet"]


def test_a_source_longer_than_a_batch_is_read_by_row_from_the_cached_file(tmp_path: Path) -> None:
    count = ROWS_A_BATCH + 3
    write_pairs(tmp_path / "long.parquet", [Pair(f"q{row}", f"d{row}") for row in range(count)])
    open_source(tmp_path / "long.parquet", tmp_path / "cache")
    source = open_source(tmp_path / "long.parquet", tmp_path / "cache")
    assert len(source) == count
    assert source[ROWS_A_BATCH + 1] == Pair(f"q{ROWS_A_BATCH + 1}", f"d{ROWS_A_BATCH + 1}")
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


def test_texts_that_pairs_connect_have_one_label(tmp_path: Path) -> None:
    of_one = [
        Pair("wake me at six", "set an alarm"),
        Pair("set an alarm", "alarm for noon"),
        Pair("rouse me", "alarm for noon"),
    ]
    of_another = [Pair("what is the time", "which hour is it"), Pair("time, please", "what is the time")]
    named = [Pair("play jazz", "music", (), "music")]
    write_pairs(tmp_path / "intent__some.parquet", [*of_one, *of_another, *named])
    write_pairs(tmp_path / "other.parquet", of_one)
    opened = open_sources(["*"], tmp_path, cache=tmp_path / "cache")
    labelled, other = label_sources(opened, ["intent__*"], "key")
    labels = [pair.label for pair in labelled.read(np.arange(len(labelled)))]
    assert len({*labels[:3]}) == len({*labels[3:5]}) == 1
    assert len({*labels}) == 3
    assert labels[5] == "music"
    assert [pair.label for pair in labelled.with_rows(np.array([1, 4])).read(np.arange(2))] == [labels[1], labels[4]]
    assert [pair.label for pair in other.read(np.arange(3))] == ["", "", ""]
    with pytest.raises(RecipeError, match=r"key: 'topic__\*' matches none of the stage's sources intent__some, other"):
        label_sources(opened, ["topic__*"], "key")


def test_a_row_that_is_no_text_is_named_with_its_file(tmp_path: Path) -> None:
    fine = b'{"query": "fine", "document": "fine"}\n'
    (tmp_path / "latin.jsonl").write_bytes(fine + fine.replace(b"fine", b"caf\xe9"))
    with pytest.raises(PairsError, match=r"latin\.jsonl, row 2: .*caf.*xe9.* is malformed"):
        open_source(tmp_path / "latin.jsonl", tmp_path / "cache")
    pairs = [Pair(f"question {row}", "document") for row in range(ROWS_A_BATCH + 7)]
    pairs[ROWS_A_BATCH + 4] = Pair("question", " ")
    write_pairs(tmp_path / "blank.parquet", pairs)
    with pytest.raises(PairsError, match=rf"blank\.parquet, row {ROWS_A_BATCH + 5}: document is ' '"):
        open_source(tmp_path / "blank.parquet", tmp_path / "cache")
    content = bytearray((tmp_path / "blank.parquet").read_bytes())
    content[100:2000] = bytes(1900)
    (tmp_path / "damaged.parquet").write_bytes(content)
    with pytest.raises(PairsError, match=r"damaged\.parquet is damaged: "):
        open_source(tmp_path / "damaged.parquet", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.parquet", [Pair(f"question {row}", "document") for row in range(1000)])
    message = r"a\.parquet cannot be read, or cached in .*cache: .*; free space there"
    with full_disk(1000), pytest.raises(PairsError, match=message):
        open_source(tmp_path / "a.parquet", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", r"row 2: 'not json' is malformed"),
        ('["a", "b"]', r"row 2: .* is malformed"),
        ('{"query": "a"}', r"row 2: document is None"),
        ('{"query": " ", "document": "b"}', r"row 2: query is ' '"),
        ('{"query": "a", "document": 3}', r"row 2: .* is malformed"),
        ('{"query": "a", "document": "b", "negatives": "c"}', r"row 2: .* is malformed"),
        ('{"query": "a", "document": "b", "negatives": [null]}', r"row 2: a negative is null"),
    ],
)
def test_a_malformed_row_is_named_with_its_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "fine", "document": "fine"}\n' + line + "\n")
    with pytest.raises(PairsError, match=f"bad\\.jsonl, {message}"):
        open_source(path, tmp_path / "cache")


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match=r"gone\.parquet is missing"):
        open_source(tmp_path / "gone.parquet", tmp_path / "cache")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PairsError, match=r"empty\.jsonl is empty"):
        open_source(tmp_path / "empty.jsonl", tmp_path / "cache")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(PairsError, match="not a readable Parquet file"):
        open_source(tmp_path / "broken.parquet", tmp_path / "cache")
    pq.write_table(pa.table({"question": ["a"], "document": ["b"]}), tmp_path / "other.parquet")
    with pytest.raises(PairsError, match="has no column query but question, document"):
        open_source(tmp_path / "other.parquet", tmp_path / "cache")
    pq.write_table(pa.table({"query": ["a"], "document": ["b"], "negatives": [1]}), tmp_path / "typed.parquet")
    with pytest.raises(PairsError, match="its negatives is int64, not large_list"):
        open_source(tmp_path / "typed.parquet", tmp_path / "cache")


def test_texts_of_an_evaluation_set_are_refused_and_counted(tmp_path: Path) -> None:
    pairs = [*PAIRS, Pair("How to  OPEN, a file?", "other"), Pair("clean", "document", ("Sorted: XS!",))]
    write_pairs(tmp_path / "a__one.parquet", pairs)
    forbidden = hash_evaluation_texts(["how to open a file", "sorted xs", "..."])
    source = open_source(tmp_path / "a__one.parquet", tmp_path / "cache", forbidden)
    assert [source[index] for index in range(len(source))] == [PAIRS[0], PAIRS[2]]
    assert describe_sources([source])[0]["refused"] == 3
    assert describe_sources([source])[0]["repeated"] == 0
    with pytest.raises(PairsError, match="has no pair left"):
        open_source(
            tmp_path / "a__one.parquet", tmp_path / "cache", hash_evaluation_texts(pair.query for pair in pairs)
        )


def test_exact_repetitions_are_left_out_and_counted(tmp_path: Path) -> None:
    other_negatives = PAIRS[0]._replace(negatives=("exit()",))
    write_pairs(tmp_path / "a__one.parquet", [*PAIRS, PAIRS[1], other_negatives, PAIRS[0], PAIRS[1]])
    source = open_source(tmp_path / "a__one.parquet", tmp_path / "cache", hash_evaluation_texts(["sort"]))
    assert source.read(np.array([2, 0, 1])) == [other_negatives, PAIRS[0], PAIRS[2]]
    assert source.rows.tolist() == [0, 2, 4]
    assert (source.refused, source.repeated, source.empty, len(source)) == (3, 3, 0, 3)
    some = source.with_rows(np.array([2, 4]))
    assert [some[0], some[1]] == [PAIRS[2], other_negatives]


def test_repetitions_are_found_in_parts_as_they_are_at_once() -> None:
    random = np.random.default_rng(0)
    hashes = [random.integers(0, 300, count).astype(np.uint64) * np.uint64(2**50 + 1) for count in (0, 100, 1, 399)]
    seen: set[int] = set()
    expected = []
    for row, value in enumerate(np.concatenate(hashes).tolist()):
        if value in seen:
            expected.append(row)
        seen.add(value)
    for rows_a_part in (7, 100, 1000):
        assert find_repeated(hashes, rows_a_part).tolist() == expected


def test_patterns_exclusions_and_the_manifest_choose_sources(tmp_path: Path) -> None:
    for folder, name in (("stage1", "code__a"), ("stage1", "kb__b"), ("stage1", "kb__c"), ("stage2", "nli__d")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_pairs(tmp_path / folder / f"{name}.parquet", [Pair(name, "document")])
    manifest = "stage,category,name,commercial\nstage1,code,a,yes\nstage1,kb,b,no\nstage1,kb,c,unknown\n"
    (tmp_path / "manifest.csv").write_text(manifest)
    cache = tmp_path / "cache"

    def names(*patterns: str, exclude: tuple[str, ...] = (), commercial: tuple[str, ...] = ()) -> list[str]:
        sources = open_sources(patterns, tmp_path, exclude=exclude, commercial=commercial, cache=cache)
        return [source.name for source in sources]

    assert names("stage1/*") == ["code__a", "kb__b", "kb__c"]
    assert names("stage2/nli__d", "stage1/kb__*") == ["nli__d", "kb__b", "kb__c"]
    assert names("stage1/*", "stage1/kb__b.parquet", exclude=("kb__c",)) == ["code__a", "kb__b"]
    assert names("stage1/*", commercial=("yes", "unknown")) == ["code__a", "kb__c"]
    assert names(str(tmp_path / "stage1" / "kb__b.parquet")) == ["kb__b"]
    with pytest.raises(PairsError, match=r"'stage3/\*' matches no"):
        names("stage1/*", "stage3/*")
    with pytest.raises(PairsError, match="no source is left"):
        names("stage1/kb__b", commercial=("yes",))
    with pytest.raises(PairsError, match="--data DIR"):
        open_sources(["stage1/*"], None, cache=cache)
    (tmp_path / "other").mkdir()
    write_pairs(tmp_path / "other" / "kb__b.parquet", PAIRS)
    with pytest.raises(PairsError, match="two sources have the name kb__b"):
        names("stage1/*", "other/*")


def test_an_installed_package_is_a_source_of_what_its_functions_say_and_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "made_up"
    (package / "inner" / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(
        'def area(r):\n    """Area of a circle.\n\n    More."""\n    # pi r squared\n    return 3.14 * r * r\n'
        'def same(r):\n    """Area of a circle."""\n    return r\n'
        'def empty(r):\n    """Nothing but a docstring."""\n'
        'def short(r):\n    """Too short."""\n    return r\n'
    )
    (package / "inner" / "deep.py").write_text(
        'class Door:\n    def open(self):\n        """Opens the front door."""\n        self.is_open = True\n'
        'PATTERN = "\\d"\n'
    )
    (package / "inner" / "template.py").write_text("def {{ name }}():")
    (package / "inner" / "tests" / "test_deep.py").write_text(
        'def f():\n    """Tests how the door opens."""\n    g()\n'
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "manifest.csv").write_text("category,name,commercial\n")
    (source,) = open_sources(["docstrings:made_up"], tmp_path, commercial=("yes",), cache=tmp_path / "cache")
    assert source.name == "code__docstrings_made_up"
    assert [source[0], source[1]] == [
        Pair("Area of a circle.", "def area(r):\nreturn 3.14 * r * r"),
        Pair("Opens the front door.", "def open(self):\nself.is_open = True"),
    ]
    assert len(source) == 2
    for pattern in ("docstrings:not_here", "docstrings:../made_up", "docstrings:json.decoder"):
        with pytest.raises(PairsError, match=f"source '{pattern}': package .* is not installed here"):
            open_sources([pattern], cache=tmp_path / "cache")
