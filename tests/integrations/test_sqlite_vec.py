"""sqlite-vec: the extension itself reads our bytes, makes the same ones, and finds the nearest rows by them."""

from typing import Any

import apsw
import numpy as np
import pytest
import sqlite_vec

import gte_sdk
from gte_sdk import InputError, InputTypeError
from gte_sdk.integrations.sqlite_vec import bit_bytes, float32_bytes, int8_bytes

TEXTS = [
    "the cat sleeps on the sofa", "a dog chases the ball", "the bank raises its interest rates",
    "shares fell on the stock market", "bread is baked from flour", "how to cook rice", "the train to Paris is late",
    "a flight was cancelled", "rain is expected tomorrow", "a sunny and warm afternoon",
]  # fmt: skip


@pytest.fixture
def database() -> Any:
    connection = apsw.Connection(":memory:")  # Python's own sqlite3 is often built without extensions
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def one(database: Any, query: str, *values: bytes) -> Any:
    return next(database.execute(f"SELECT {query}", values))[0]


def test_float32_and_bit_are_the_extensions_own_bytes(database: Any) -> None:
    for vector in gte_sdk.embed(TEXTS):
        assert one(database, "vec_f32(?)", float32_bytes(vector)) == sqlite_vec.serialize_float32(vector.tolist())
        assert bit_bytes(vector) == one(database, "vec_quantize_binary(vec_f32(?))", float32_bytes(vector))
        assert one(database, "vec_length(vec_bit(?))", bit_bytes(vector)) == len(vector)
        assert one(database, "vec_length(vec_int8(?))", int8_bytes(vector)) == len(vector)


def test_int8_keeps_the_cosine_where_the_extensions_own_loses_it(database: Any) -> None:
    vectors_ND = gte_sdk.embed(TEXTS)
    exact = vectors_ND @ vectors_ND.T
    rows = [int8_bytes(vector) for vector in vectors_ND]
    cosine = "1 - vec_distance_cosine(vec_int8(?), vec_int8(?))"
    ours = np.array([[one(database, cosine, a, b) for b in rows] for a in rows])
    unit = "1 - vec_distance_cosine(vec_quantize_int8(?, 'unit'), vec_quantize_int8(?, 'unit'))"
    floats = [float32_bytes(vector) for vector in vectors_ND]
    theirs = np.array([[one(database, unit, a, b) for b in floats] for a in floats])
    assert np.abs(ours - exact).max() < 0.01
    assert np.abs(ours - exact).max() < np.abs(theirs - exact).max() / 2


@pytest.mark.parametrize(
    ("column", "wrap", "to_bytes"),
    [
        ("float[384] distance_metric=cosine", "vec_f32(?)", float32_bytes),
        ("int8[384] distance_metric=cosine", "vec_int8(?)", int8_bytes),
        ("bit[384]", "vec_bit(?)", bit_bytes),
    ],
)
def test_a_table_finds_what_its_numbers_say(database: Any, column: str, wrap: str, to_bytes: Any) -> None:
    vectors_ND, question = gte_sdk.embed(TEXTS), gte_sdk.embed("my pet is napping")
    database.execute(f"CREATE VIRTUAL TABLE notes USING vec0(embedding {column})")
    rows = [(number, to_bytes(vector)) for number, vector in enumerate(vectors_ND)]
    database.executemany(f"INSERT INTO notes(rowid, embedding) VALUES (?, {wrap})", rows)
    found = database.execute(
        f"SELECT rowid, distance FROM notes WHERE embedding MATCH {wrap} AND k = 2", (to_bytes(question),)
    ).fetchall()
    if to_bytes is bit_bytes:
        expected = ((vectors_ND > 0) != (question > 0)).sum(axis=1).astype(np.float64)
        assert {number for number, _ in found} == {0, 1}  # the pets
    else:
        expected = 1 - vectors_ND.astype(np.float64) @ question
        assert found[0][0] == 0
    for number, distance in found:
        assert distance == pytest.approx(expected[number], abs=0.01)
    assert [distance for _, distance in found] == pytest.approx(np.sort(expected)[:2], abs=0.01)


def test_what_is_no_vector_is_refused() -> None:
    with pytest.raises(InputTypeError, match="the vector is float64; give a numpy array of float32"):
        float32_bytes(np.ones(8))  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="the vector is list"):
        float32_bytes([0.5])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \(2, 8\); give one vector"):
        int8_bytes(np.ones((2, 8), np.float32))
    with pytest.raises(InputError, match="NaN"):
        bit_bytes(np.full(8, np.nan, np.float32))
    with pytest.raises(InputError, match="has 9 numbers; bit"):
        bit_bytes(np.ones(9, np.float32))
    with pytest.raises(InputError, match="all zeros"):
        int8_bytes(np.zeros(8, np.float32))
