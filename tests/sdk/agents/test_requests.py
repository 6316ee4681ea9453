"""Arguments of tools: what is taken, and the one error for everything else."""

from typing import Any

import pytest

from gte_sdk.agents.requests import (
    MOST_PASSAGES,
    MOST_QUERY_CHARACTERS,
    TOOLS,
    ReadRequest,
    SearchRequest,
    SimilarRequest,
    StatusRequest,
    parse_request,
)
from gte_sdk.errors import InputError


def test_what_is_left_out_has_its_default() -> None:
    assert parse_request("search", {"query": "red"}) == SearchRequest("red", 10, None, None)
    assert parse_request("search", {"query": "red", "k": 5.0, "mode": None}) == SearchRequest("red", 5, None, None)
    assert parse_request("search", {"query": "red", "glob": "*.md"}) == SearchRequest("red", 10, None, None, "*.md")
    assert parse_request("read_passage", {"path": "a.md"}) == ReadRequest("a.md", 1, 60)
    assert parse_request("similar", {"path": "a.md", "line": 3}) == SimilarRequest("a.md", 3, 10)
    assert parse_request("index_status", {}) == StatusRequest()
    assert parse_request("search", {"query": "a\ud800b"}) == SearchRequest("a?b", 10, None, None)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search", {}, "query is missing"),
        ("search", {"query": None}, "query is missing"),
        ("search", {"query": 5}, "query is a int; give a text"),
        ("search", {"query": ["red"]}, "query is a list; give a text"),
        ("search", {"query": " \n"}, "query is empty"),
        ("search", {"query": "x" * 10_000_000}, "query has 10,000,000 characters; give at most 8,192"),
        ("search", {"query": "red", "k": 0}, "k=0; it must be at least 1 and at most 50"),
        ("search", {"query": "red", "k": -1}, "k=-1; it must be at least 1 and at most 50"),
        ("search", {"query": "red", "k": 10**9}, "k=1000000000; it must be at least 1 and at most 50"),
        ("search", {"query": "red", "k": 10**5000}, "k is a number of more than 18 digits; it must be at least 1 and"),
        ("search", {"query": "red", "k": 1e308}, "k is a number of more than 18 digits"),
        ("search", {"query": "red", "k": True}, "k=True is a bool; give an int"),
        ("search", {"query": "red", "k": "5"}, "k is a str; give an integer"),
        ("search", {"query": "red", "k": 1.5}, "k is a float; give an integer"),
        ("search", {"query": "red", "k": float("nan")}, "k is a float; give an integer"),
        ("search", {"query": "red", "mode": "exact"}, "mode='exact'; give one of hybrid, meaning, words"),
        ("search", {"query": "red", "mode": {}}, "mode={}; give one of hybrid, meaning, words"),
        ("search", {"query": "red", "min_score": 2}, "min_score is out of range; give a number from -1 to 1"),
        ("search", {"query": "red", "min_score": float("nan")}, "min_score is out of range"),
        ("search", {"query": "red", "min_score": "1"}, "min_score is a str; give a number from -1 to 1"),
        ("search", {"query": "red", "glob": ["*.md"]}, "glob is a list; give a text"),
        ("search", {"query": "red", "glob": " "}, "glob is empty"),
        ("search", {"query": "red", "glob": "*" * 1001}, "glob has 1,001 characters; give at most 1,000"),
        ("search", {"query": "red", "limit": 3}, "'limit' is not an argument of this tool; it has query, k, mode"),
        ("read_passage", {"path": "a\0b"}, "path='a\\x00b' is the name of no file"),
        ("read_passage", {"path": "a\ud800"}, "path='a\\ud800' is the name of no file"),
        ("read_passage", {"path": "a" * 5000}, "path has 5,000 characters; give at most 4,096"),
        ("read_passage", {"path": "a.md", "line": 0}, "line=0; it must be at least 1"),
        ("read_passage", {"path": "a.md", "line_count": 1001}, "line_count=1001; it must be at least 1 and at most"),
        ("similar", {"path": "a.md"}, "line is missing"),
        ("index_status", {"verbose": True}, "'verbose' is not an argument of this tool; it has none"),
    ],
)
def test_anything_else_is_one_error_with_the_remedy(tool: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_request(tool, arguments)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 200


def test_the_limits_themselves_are_taken() -> None:
    query = "x" * MOST_QUERY_CHARACTERS
    assert parse_request("search", {"query": query, "k": MOST_PASSAGES}) == SearchRequest(query, 50, None, None)
    assert len(TOOLS) == 4
