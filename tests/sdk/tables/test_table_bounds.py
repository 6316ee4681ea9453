"""Tables that would take memory or time without bound: of one row, of one batch, of very many columns."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from gte_sdk.errors import InputError
from gte_sdk.tables import parquet_texts
from gte_sdk.tables.parquet_texts import READ_ROWS, read_parquet_texts
from gte_sdk.tables.text_batches import BATCH_CHARACTERS, TableOptions
from gte_sdk.tables.text_tables import Format

from ..run_python import run_python
from .test_table_faults import opened, read


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_cell_of_parquet_without_an_end_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, count: int, dictionary: bool, nested: bool
) -> None:
    monkeypatch.setattr(parquet_texts, "MOST_GROUP_BYTES_A_ROW", 2**17)
    cells = ["x" * (3 * count * 2**16), *["a"] * (count - 1)]
    table = pyarrow.table({"doc": [{"text": cell} for cell in cells]} if nested else {"text": cells})
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd", use_dictionary=dictionary)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_: pytest.fail("it is read"))
    with pytest.raises(InputError, match=f"rows 1 to {count} have [07] MiB together"):
        opened(file.getvalue(), "parquet", column="doc.text" if nested else "text")


@pytest.mark.parametrize("group_rows", [1000, 100, 7])
def test_long_texts_of_parquet_are_read_a_few_at_a_time(group_rows: int) -> None:
    """Parts that start at a multiple of BATCH_ROWS have the batches of the whole file."""
    texts = [str(number) * (40_000 if 200 <= number < 700 else 1) for number in range(1000)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts, "id": range(1000)}), file, row_group_size=group_rows)

    def batches(rows: range | None) -> list[tuple[int, list[str]]]:
        table = read_parquet_texts(file, "file", TableOptions(), rows)
        return [(batch.first_row, batch.texts) for batch in table.batches]

    whole = batches(None)
    assert [text for _, batch in whole for text in batch] == texts
    assert [first for first, _ in whole] == [1, 257, 321, 385, 449, 513, 577, 641, 705]
    assert max(sum(map(len, batch)) for _, batch in whole) <= BATCH_CHARACTERS + READ_ROWS * 120_000
    assert batches(range(512)) + batches(range(512, 1000)) == whole


MANY = 60_000


@pytest.mark.parametrize(
    ("content", "file_format"),
    [
        (",".join([f"c{number}" for number in range(MANY)] + ["c0"]).encode(), "csv"),
        ("\t".join([f"c{number}" for number in range(MANY)] + [f"c{MANY - 1}"]).encode(), "tsv"),
        (json.dumps({f"c{number}": 0 for number in range(MANY)}).encode().replace(b"}", b', "c59999": 1}'), "jsonl"),
        (json.dumps({f"c{number}": 0 for number in range(MANY)}).encode().replace(b"}", b', "c59999": 1}'), "json"),
    ],
)
def test_a_name_that_is_there_twice_is_found_among_very_many(content: bytes, file_format: Format) -> None:
    """Takes minutes where each name is compared with all."""
    with pytest.raises(InputError, match="is there twice"):
        read(content, file_format)


@pytest.mark.parametrize(
    ("value", "is_much"),
    [
        ("[" + "[]," * 300_000 + "[]]", True),
        ("[" + "{}," * 300_000 + "{}]", True),
        ("[" + ("[" * 40 + "]" * 40 + ",") * 7000 + "[]]", True),
        ("[" + "1," * 300_000 + "1]", True),
        ('["' + '","' * 300_000 + '"]', True),
        ("{" + ",".join(f'"{number}":0' for number in range(260_000)) + "}", True),
        ('"' + "[1,{}]," * 300_000 + '"', False),
        ('"' + '\\"[1,{}],\\\\' * 150_000 + '"', False),
        ("[" + "1," * 100_000 + "1]", False),
    ],
)
@pytest.mark.parametrize("file_format", ["jsonl", "json"])
def test_a_row_has_so_many_values_and_its_texts_hold_what_they_like(
    value: str, is_much: bool, file_format: Format
) -> None:
    row = f'{{"text": "a", "more": {value}}}\n'.encode()
    if is_much:
        with pytest.raises(InputError, match="row 1 has more than 250,000 values"):
            read(row, file_format)
    else:
        assert read(row, file_format) == ["a"]


def test_a_table_has_so_many_columns() -> None:
    for separator, file_format in ((",", "csv"), ("\t", "tsv")):
        header = separator.join(map(str, range(100_001))).encode()
        with pytest.raises(InputError, match="100,001 columns, more than 100,000"):
            opened(header, file_format)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="the columns are 0, 1, 2") as refusal:
            opened(header.rpartition(separator.encode())[0], file_format)  # type: ignore[arg-type]
        assert len(str(refusal.value)) < 1200


@pytest.mark.parametrize("more", ["x" * 400_000, ["x" * 1000] * 400, {"a": {"b": "x" * 400_000}}, [[]] * 6000])
def test_a_batch_of_rows_with_much_beside_the_text_is_cut(more: Any) -> None:
    rows = "".join(json.dumps({"text": "a", "more": more}) + "\n" for _ in range(40)).encode()
    sizes = [len(batch.texts) for batch in opened(rows, "jsonl").batches]
    assert sum(sizes) == 40
    assert max(sizes) <= 11


DAMAGED_FOOTERS = """
import io, os, pathlib
from gte_sdk.errors import InputError
from gte_sdk.tables.text_batches import TableOptions
from gte_sdk.tables.parquet_texts import read_parquet_texts
whole = pathlib.Path(os.environ["TABLE"]).read_bytes()
size = int.from_bytes(whole[-8:-4], "little")
for place in range(len(whole) - 8 - size, len(whole) - 8):
    for value in (0, 1, 0x19):
        damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
        try:
            for batch in read_parquet_texts(io.BytesIO(damaged), "file", TableOptions()).batches:
                pass
        except InputError:
            pass
print("done")
"""


def test_a_damaged_description_of_a_column_of_parquet_ends_no_process(tmp_path: Path) -> None:
    """pyarrow has no error for the one that it is asked for by RowGroupMetaData.column, and ends the process."""
    table = pyarrow.table({"text": ["a", "b"], "doc": [{"n": None}, {"n": 1}]})
    parquet.write_table(table, tmp_path / "table.parquet")
    assert run_python(DAMAGED_FOOTERS, TABLE=str(tmp_path / "table.parquet")) == "done\n"
