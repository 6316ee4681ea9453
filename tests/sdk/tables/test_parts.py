"""The parts of `gte embed --on ray`, without Ray: the local engine's rows and bits, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from gte_sdk import Embedder, InputError
from gte_sdk.cli.commands import gte
from gte_sdk.cli.embed_ray import PartWriter, RayOptions, describe_model
from gte_sdk.model_files.published import ModelFacts
from gte_sdk.tables.parts import (
    MAX_DEATHS,
    PART_ROWS,
    Part,
    PartsWork,
    Source,
    check_output_folder,
    cut_parts,
    is_done,
    open_unfinished,
    put_in_place,
    read_sources,
    remove_leftovers,
    write_part,
)

from ..tiny_models import DIM, write_tiny_model

ROWS = 2 * PART_ROWS + 700
COLORS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts={"query": "query: "})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Row groups that fit neither the batches nor the parts; columns of several kinds, one of them with nulls."""
    rows = range(ROWS)
    columns = {
        "id": pyarrow.array([None if row % 7 == 0 else row for row in rows], pyarrow.int64()),
        "text": pyarrow.array([" ".join(COLORS[: row % 4]) for row in rows]).dictionary_encode(),
        "tags": pyarrow.array([[row, row + 1] for row in rows], pyarrow.list_(pyarrow.int32())),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet", row_group_size=3001)
    return tmp_path / "in.parquet"


def work_of(model: Path, column: str = "text", **changes: Any) -> PartsWork:
    embedder = Embedder(model)
    work = PartsWork(
        column, "embedding", "plain", str(model), embedder.fingerprint, embedder.variant, embedder.device, embedder.dim,
        embedder.prompt_for("plain"), embedder.max_tokens,
    )  # fmt: skip
    return work._replace(**changes)


def options_of(model: Path, **facts: Any) -> RayOptions:
    return RayOptions(str(model), "cpu", 1, None, ModelFacts(**facts))


def opened(source: Path, model: Path, *, resume: bool = False, overwrite: bool = False, **changes: Any) -> Path:
    work = work_of(model, **changes)
    return open_unfinished(
        source.with_name("out"), work, read_sources(source, None)[1], resume=resume, overwrite=overwrite
    )


def test_the_parts_are_the_local_engines_file_cut_into_row_groups(model: Path, source: Path) -> None:
    local = source.with_name("local.parquet")
    arguments = ["embed", str(source), "-o", str(local), "--model", str(model)]
    assert CliRunner().invoke(gte, arguments).exit_code == 0

    column, sources = read_sources(source, None)
    parts = cut_parts(sources)
    assert (column, [part.row_count for part in parts]) == ("text", [PART_ROWS, PART_ROWS, 700])
    folder = opened(source, model)
    for part in reversed(parts):  # in any order
        write_part(folder, part, work_of(model), Embedder(model))
    assert all(is_done(folder, part) for part in parts)
    put_in_place(folder, source.with_name("out"), parts, overwrite=False)

    out = source.with_name("out")
    assert sorted(path.name for path in out.iterdir()) == [f"part-00000{number}.parquet" for number in range(3)]
    whole = parquet.ParquetFile(local)
    for number, path in enumerate(sorted(out.iterdir())):
        part_table = parquet.read_table(path)
        assert part_table.schema.equals(whole.schema_arrow, check_metadata=True)
        assert part_table.equals(whole.read_row_group(number))
    assert parquet.read_table(out).equals(parquet.read_table(local))
    assert not source.with_name("out.unfinished").exists()


def test_a_part_written_twice_is_the_same_file(model: Path, source: Path) -> None:
    folder = opened(source, model)
    part = cut_parts(read_sources(source, None)[1])[2]
    write_part(folder, part, work_of(model), Embedder(model))
    first = (folder / part.name).read_bytes()
    write_part(folder, part, work_of(model), Embedder(model))
    assert (folder / part.name).read_bytes() == first
    assert [path.name for path in folder.iterdir()] == [part.name]


def test_files_of_a_folder_keep_their_order_and_rows(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number, name in enumerate(["b.parquet", "a.parquet", "empty.parquet", "c.pq"]):
        texts = [COLORS[number % 3]] * (0 if name == "empty.parquet" else number + 1)
        parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())}), folder / name)
    (folder / "_SUCCESS").touch()
    _, sources = read_sources(folder, None)
    parts = cut_parts(sources)
    assert [(Path(part.source.path).name, part.row_count) for part in parts] == [
        ("a.parquet", 2), ("b.parquet", 1), ("c.pq", 4),
    ]  # fmt: skip
    unfinished = opened(folder, model)
    for part in parts:
        write_part(unfinished, part, work_of(model), Embedder(model))
    put_in_place(unfinished, tmp_path / "out", parts, overwrite=False)
    assert parquet.read_table(tmp_path / "out").column("text").to_pylist() == ["green"] * 2 + ["red"] + ["red"] * 4


def test_an_input_without_rows_gives_its_columns(model: Path, tmp_path: Path) -> None:
    table = pyarrow.table({"id": pyarrow.array([], pyarrow.int8()), "text": pyarrow.array([], pyarrow.string())})
    parquet.write_table(table, tmp_path / "none.parquet")
    parts = cut_parts(read_sources(tmp_path / "none.parquet", None)[1])
    folder = opened(tmp_path / "none.parquet", model)
    write_part(folder, parts[0], work_of(model), Embedder(model))
    put_in_place(folder, tmp_path / "out", parts, overwrite=False)
    read = parquet.read_table(tmp_path / "out")
    assert (read.num_rows, read.schema.names) == (0, ["id", "text", "embedding"])
    assert read.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), DIM)


def test_what_cannot_be_an_input_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputError, match="holds no Parquet file"):
        read_sources(folder, None)
    parquet.write_table(pyarrow.table({"text": ["a"]}), folder / "a.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"], "id": [1]}), folder / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet has other columns or types than .*a.parquet"):
        read_sources(folder, None)
    (folder / "b.parquet").rename(folder / "b.csv")
    with pytest.raises(InputError, match=r"holds 'b.csv'; expected .parquet"):
        read_sources(folder, None)
    (folder / "year=2024").mkdir()
    with pytest.raises(InputError, match="holds the folder 'year=2024'"):
        read_sources(folder, None)


def test_only_the_same_work_is_gone_on_with(model: Path, source: Path, tmp_path: Path) -> None:
    folder = opened(source, model)
    (folder / "part-000000.parquet").write_bytes(b"kept")
    with pytest.raises(InputError, match=r"out.unfinished belongs to an unfinished run$"):
        opened(source, model)
    assert opened(source, model, resume=True) == folder
    with pytest.raises(InputError, match=r"has kind plain, this run query"):
        opened(source, model, resume=True, kind="query")
    with pytest.raises(InputError, match=r"has fingerprint .*, this run other"):
        opened(source, model, resume=True, fingerprint="other")
    table = parquet.read_table(source)
    parquet.write_table(table.set_column(0, "id", pyarrow.array(range(ROWS))), source)
    with pytest.raises(InputError, match=r"has sources .*, this run "):
        opened(source, model, resume=True)
    assert (folder / "part-000000.parquet").read_bytes() == b"kept"
    assert list(opened(source, model, overwrite=True).iterdir()) == []


def test_a_foreign_folder_in_the_place_of_the_parts_is_left_alone(model: Path, source: Path) -> None:
    mine = source.with_name("out.unfinished")
    mine.mkdir()
    (mine / "mine").touch()
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="does not belong to an unfinished run"):
            opened(source, model, **options)
    assert [path.name for path in mine.iterdir()] == ["mine"]


def test_a_damaged_part_is_written_again_and_a_missing_one_keeps_the_rest_back(model: Path, source: Path) -> None:
    parts = cut_parts(read_sources(source, None)[1])
    folder = opened(source, model)
    for part in parts:
        write_part(folder, part, work_of(model), Embedder(model))
    damaged = folder / parts[1].name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    (folder / ".part-000001.parquet.0badcafe.part").touch()  # of a worker that was killed
    assert [is_done(folder, part) for part in parts] == [True, False, True]
    with pytest.raises(InputError, match=r"part-000001.parquet is missing or incomplete$"):
        put_in_place(folder, source.with_name("out"), parts, overwrite=False)
    assert not source.with_name("out").exists()
    write_part(folder, parts[1], work_of(model), Embedder(model))
    put_in_place(folder, source.with_name("out"), parts, overwrite=False)
    assert parquet.read_table(source.with_name("out")).num_rows == ROWS


def test_a_part_that_workers_die_of_ends_the_run(model: Path, source: Path) -> None:
    folder = opened(source, model)
    part = cut_parts(read_sources(source, None)[1])[2]
    write = PartWriter(folder, [part], work_of(model), options_of(model))
    for number in range(MAX_DEATHS - 1):
        (folder / f".{part.name}.{number:08x}.part").touch()
    (folder / ".part-000001.parquet.0badcafe.part").touch()  # of another part
    assert write({"place": 0})["error"] == ""
    (folder / f".{part.name}.0badcafe.part").touch()
    assert "in.parquet, rows 16385 to 17084: 5 workers died of them; give workers more" in write({"place": 0})["error"]
    remove_leftovers(folder, cut_parts(read_sources(source, None)[1]))
    assert [path.name for path in folder.iterdir()] == [part.name]
    assert write({"place": 0})["error"] == ""


def test_only_an_output_of_ours_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_output_folder(out, overwrite=False)
    out.mkdir()
    (out / "part-000000.parquet").touch()
    with pytest.raises(InputError, match=r"exists$"):
        check_output_folder(out, overwrite=False)
    check_output_folder(out, overwrite=True)
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds 'thesis.tex' too"):
        check_output_folder(out, overwrite=True)
    with pytest.raises(InputError, match="does not exist; create it first"):
        check_output_folder(tmp_path / "no" / "out", overwrite=False)


def test_a_worker_says_what_is_wrong_as_a_value(model: Path, source: Path) -> None:
    folder = opened(source, model)
    part = cut_parts(read_sources(source, None)[1])[2]
    receipt = PartWriter(folder, [part], work_of(model), options_of(model))({"place": 0})
    assert receipt == {"name": "part-000002.parquet", "row_count": 700, "was_cut": False, "error": ""}

    other = PartWriter(folder, [part], work_of(model, fingerprint="other"), options_of(model))({"place": 0})
    assert f"fingerprint {Embedder(model).fingerprint}, expected other; give every machine the same" in other["error"]

    os.utime(source, ns=(0, 0))
    assert (
        "in.parquet changed while it was being embedded"
        in (PartWriter(folder, [part], work_of(model), options_of(model))({"place": 0})["error"])
    )
    parquet.write_table(pyarrow.table({"text": ["red", None]}), source)
    status = source.stat()
    null_part = Part(0, Source(str(source), status.st_size, status.st_mtime_ns, "", 2), 0, 2)
    assert (
        "in.parquet, row 2: 'text' is null; expected text"
        in (PartWriter(folder, [null_part], work_of(model), options_of(model))({"place": 0})["error"])
    )
    assert [path.name for path in folder.iterdir()] == ["part-000002.parquet"]


def test_the_manifest_names_what_the_parts_are_made_of(model: Path, source: Path) -> None:
    manifest = json.loads((opened(source, model).parent / "manifest.json").read_bytes())
    assert manifest["format"] == "gte-embed-parts 1"
    assert manifest["fingerprint"] == Embedder(model).fingerprint
    ((name, rows, sha256),) = manifest["sources"]
    assert (name, rows, len(sha256)) == ("in.parquet", ROWS, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "-o", "out", "--on", "ray"], "--on ray takes INPUT and --output as paths"),
        (["{source}", "--on", "ray"], "--on ray takes INPUT and --output as paths"),
        (["{source}", "-o", "out", "--on", "ray", "--format", "npy"], "--on ray reads and writes Parquet"),
        (["{source}", "-o", "out", "--workers", "2"], "--workers goes with --on ray"),
        (["{folder}", "-o", "out.parquet"], "is a folder; --on ray takes one"),
    ],
)
def test_wrong_usage(source: Path, arguments: list[str], message: str) -> None:
    words = [word.format(source=source, folder=source.parent) for word in arguments]
    result = CliRunner().invoke(gte, ["embed", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_a_worker_opens_the_model_as_the_options_describe_it(model: Path, source: Path) -> None:
    options = options_of(model, prompts={"query": "blue "}, max_tokens=5)
    described = describe_model(options, "query")
    assert (described["prompt"], described["max_tokens"]) == ("blue ", 5)
    work = work_of(model, kind="query", **described)
    folder = open_unfinished(
        source.with_name("out"), work, read_sources(source, None)[1], resume=False, overwrite=False
    )
    part = cut_parts(read_sources(source, None)[1])[0]
    assert PartWriter(folder, [part], work, options)({"place": 0})["error"] == ""
    expected = Embedder(model, prompts={"query": "blue "}, max_tokens=5, truncation="ignore").embed_query(
        parquet.read_table(source).column("text").to_pylist()[: part.row_count]
    )
    vectors = np.stack(parquet.read_table(folder / part.name).column("embedding").to_numpy())
    np.testing.assert_array_equal(vectors, expected)
    with pytest.raises(InputError, match="has prompt blue"):
        opened(source, model, resume=True, kind="query")
