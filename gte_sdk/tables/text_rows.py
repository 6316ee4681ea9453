"""Reads rows of JSON Lines, JSON arrays, CSV and TSV, numbered from 1 without the header of CSV."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gte_sdk.errors import InputError
from gte_sdk.tables.text_lines import MAX_ROW_BYTES, too_long

# Far below what Python's own JSON and pyarrow's columns take without an error of theirs, or an hour.
MAX_DEPTH = 64
# Lists, objects and what they hold, in one row of JSON; columns of CSV and TSV. Each takes about 100 bytes.
MAX_VALUES, MAX_COLUMNS = 250_000, 100_000

Row = dict[str, Any]
Lines = Iterable[tuple[int, str]]

# What separates columns in the files that people have; the first line of a file with one column holds none of them.
_DELIMITERS = ",;\t|"
_JSON_SPACES = re.compile(r"[ \t\n\r]*")
_CHUNK_CHARACTERS = 1 << 16
# A field in quotes that ends with the field, else everything up to the next tab.
_TSV_FIELD = re.compile(r'"(?:[^"]|"")*"(?=\t|\Z)|[^\t]*')


def jsonl_rows(lines: Lines, name: str) -> Iterator[tuple[int, Row]]:
    """Yields the objects of JSON Lines. Blank lines are skipped. A row has the number of its line."""
    for number, line in lines:
        if line.strip():
            yield number, _checked_object(_parsed(line, name, number), name, number)


def json_rows(lines: Lines, name: str) -> Iterator[tuple[int, Row]]:
    """Yields the objects of one JSON array, or of concatenated JSON objects, as a stream."""
    chunks = (line for _, line in lines)
    text, position, number = "", 0, 0

    def more() -> bool:
        """Reads at least as much text as is left over. Returns False at the end of the file."""
        nonlocal text, position
        parts, size = [text[position:]], 0
        if len(parts[0]) > MAX_ROW_BYTES:
            raise too_long(name, f"row {number}")
        _check_value_count(parts[0], name, number)
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > max(len(parts[0]), _CHUNK_CHARACTERS):
                break
        text, position = "".join(parts), 0
        return size > 0

    def next_mark() -> str:
        """Returns the next character that is not white space; "" at the end of the file."""
        nonlocal position
        while True:
            position = _JSON_SPACES.match(text, position).end()  # type: ignore[union-attr]
            if position < len(text) or not more():
                return text[position : position + 1]

    in_array = next_mark() == "["
    position += in_array
    while mark := next_mark():
        if in_array and mark == "]":
            position += 1
            if next_mark():
                raise InputError(f"{name}: text follows the end of the array")
            return
        if in_array and number:
            if mark != ",":
                raise InputError(f"{name}, row {number + 1}: not JSON: expected a comma between two rows")
            position += 1
            next_mark()
        number += 1
        while True:
            try:
                row, end = _DECODER.raw_decode(text, position)
                break
            except (ValueError, RecursionError) as error:
                if not (_is_cut_off(error, text) and more()):
                    raise _not_json(error, name, number) from error
        _check_value_count(text[position:end], name, number)
        position = end
        yield number, _checked_object(row, name, number)
    if in_array:
        raise InputError(f"{name}, after row {number}: the array does not end")


def _is_cut_off(error: Exception, text: str) -> bool:
    """Returns whether more text may help: a string is open, or the error is at the last few characters."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - len("\\ud800\\udc00")


def csv_rows(lines: Lines, name: str, delimiter: str | None) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Returns the columns and the rows of a CSV file. None as the delimiter means a comma."""
    csv.field_size_limit(MAX_ROW_BYTES)
    size = 0

    def measured() -> Iterator[str]:
        nonlocal size
        for _, line in lines:
            size += len(line)
            if size > MAX_ROW_BYTES:
                raise too_long(name, f"the row that ends in line {reader.line_num + 1}")
            yield line

    reader = csv.reader(measured(), delimiter=delimiter or ",", strict=True)

    def fields_of(where: str) -> list[str] | None:
        nonlocal size
        size = 0
        try:
            return next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, {where} (line {reader.line_num}): {error}") from error

    header = fields_of("header")
    if header is None:
        raise InputError(f"{name}: empty; a CSV file starts with a line of column names")
    _check_header(header, name, delimiter, ",")

    def rows() -> Iterator[tuple[int, Row]]:
        number = 1
        while (fields := fields_of(f"row {number}")) is not None:
            # A blank line is an empty text where there is one column, else a row without its fields.
            yield number, _row(header, fields or [""], f"{name}, row {number} (line {reader.line_num})")
            number += 1

    return header, rows()


def tsv_rows(lines: Lines, name: str) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Returns the columns and the rows of a TSV file.

    A line is a row. A quote that is not closed on its line is an ordinary character.
    """
    remaining = iter(lines)
    first = next(remaining, None)
    if first is None:
        raise InputError(f"{name}: empty; a TSV file starts with a line of column names")
    header = _tsv_fields(first[1])
    _check_header(header, name, None, "\t")

    def rows() -> Iterator[tuple[int, Row]]:
        for number, (line_number, line) in enumerate(remaining, 1):
            yield number, _row(header, _tsv_fields(line), f"{name}, row {number} (line {line_number})")

    return header, rows()


def _tsv_fields(line: str) -> list[str]:
    line = line.removesuffix("\n").removesuffix("\r")
    fields = []
    position = 0
    while position <= len(line):
        match = _TSV_FIELD.match(line, position)
        assert match is not None
        field = match[0]
        if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', ""):
            field = field[1:-1].replace('""', '"')
        fields.append(field)
        position = match.end() + 1
    return fields


def _check_header(header: list[str], name: str, delimiter: str | None, own: str) -> None:
    if len(header) > MAX_COLUMNS:
        raise InputError(f"{name}: {len(header):,} columns, more than {MAX_COLUMNS:,}; give the texts alone")
    if (doubled := first_doubled(header)) is not None:
        raise InputError(f"{name}: the column {doubled!r:.80} is there twice; rename one")
    other = next((mark for mark in _DELIMITERS if mark != own and len(header) == 1 and mark in header[0]), None)
    if delimiter is None and other:
        raise InputError(
            f"{name}: the header {header[0]!r:.80} is one column, but holds {other!r}; say what separates the columns",
            remedy="delimiter",
        )


def _row(header: list[str], fields: list[str], where: str) -> Row:
    if len(fields) != len(header):
        raise InputError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
    return dict(zip(header, fields, strict=True))


def _check_value_count(text: str, name: str, number: int) -> None:
    """Before they are made: 3 MiB of "[]," are a million lists."""
    marks = "[{,"
    if sum(map(text.count, marks)) > MAX_VALUES:
        pieces = text.replace("\\\\", "").replace('\\"', "").split('"')
        outside_of_texts = "".join(pieces[::2])
        if sum(map(outside_of_texts.count, marks)) > MAX_VALUES:
            raise InputError(f"{name}, row {number} has more than {MAX_VALUES:,} values; give the texts alone")


def _parsed(text: str, name: str, number: int) -> Any:
    _check_value_count(text, name, number)
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(error, name, number) from error


def _not_json(error: Exception, name: str, number: int) -> InputError:
    reason = f"nested too deeply, in more than {MAX_DEPTH} levels" if isinstance(error, RecursionError) else str(error)
    return InputError(f"{name}, row {number}: not JSON: {reason}")


def _checked_object(row: Any, name: str, number: int) -> Row:
    if isinstance(row, list) and number == 1:
        raise InputError(f"{name}: an array, not an object on each line", remedy="input format json")
    if not isinstance(row, dict):
        raise InputError(f'{name}, row {number}: {shown(row)}; expected an object like {{"text": "..."}}')
    level: list[Any] = [row]
    for _ in range(MAX_DEPTH):
        items = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return row
    raise InputError(f"{name}, row {number}: not JSON: nested too deeply, in more than {MAX_DEPTH} levels")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number:.40} is beyond the range of 64-bit numbers")
    return value


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {first_doubled([name for name, _ in pairs])!r:.80} is there twice")
    return row


def first_doubled(names: Sequence[str]) -> str | None:
    """Returns the first name that is there twice."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant, object_pairs_hook=_unique_keys)


def shown(value: object) -> str:
    """Describes a JSON value for a message: its kind and its beginning."""
    if value is None:
        return "null"
    kind = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return f"{kind.get(type(value), 'a text')} ({json.dumps(value, ensure_ascii=False):.60})"
