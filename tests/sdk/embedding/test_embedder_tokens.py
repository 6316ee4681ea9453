"""Texts as token ids: the seam between tokenizing and running, for callers that count and batch tokens themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError, InputTypeError

from ..tiny_models import tiny_vector, write_tiny_model


def test_ids_give_the_vectors_of_the_texts() -> None:
    embedder = Embedder()
    texts = ["How do I undo my last commit?", "", "git reset --soft HEAD~1"]
    np.testing.assert_array_equal(embedder.embed_tokens(embedder.tokenize(texts).ids), embedder.embed(texts))


def test_tokenize_has_special_tokens_prompt_and_what_was_left_out(tmp_path: Path) -> None:
    embedder = Embedder(write_tiny_model(tmp_path), max_tokens=4)
    assert embedder.tokenize(["red", "red green blue"], prompt="fast ") == (
        [[2, 7, 4, 3], [2, 7, 4, 3]],
        [0, 2],
    )
    np.testing.assert_allclose(embedder.embed_tokens([[2, 7, 4, 3]])[0], tiny_vector("fast red"), atol=1e-6)
    with pytest.raises(InputTypeError, match="text 1 is a int"):
        embedder.tokenize(["red", 3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "text 1 has 0 tokens; the model reads 1 to 32"),
        ([2] * 33, "text 1 has 33 tokens; the model reads 1 to 32"),
        ([2, 12, 3], "text 1 has ids from 2 to 12; the model has 12 tokens"),
        ([2, -1, 3], "text 1 has ids from -1 to 3; the model has 12 tokens"),
    ],
)
def test_ids_that_the_model_cannot_read_are_refused(tmp_path: Path, row: list[int], message: str) -> None:
    embedder = Embedder(write_tiny_model(tmp_path))
    with pytest.raises(InputError, match=message):
        embedder.embed_tokens([[2, 3], row])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, 3.0], "text 1 has a float among its token ids; give int"),
        ([2, 1.5], "text 1 has a float among its token ids"),
        ([True, False], "text 1 has a bool among its token ids"),
        (np.array([2.0, 3.0]), "text 1 has a float64 among its token ids"),
        ([2, "3"], "text 1 has a str among its token ids"),
        ([2, None], "text 1 has a NoneType among its token ids"),
        ([[2, 3]], "text 1 has a list among its token ids"),
        ("ab", "text 1 is a str: 'ab'; give a list of token ids"),
        (b"ab", "text 1 is a bytes"),
        (None, "text 1 is a NoneType"),
        (2, "text 1 is a int: 2"),
        ({2: 3}, "text 1 is a dict"),
        (np.array([[2, 3]]), "text 1 is a ndarray"),
        ([2**70], "text 1 has ids from 1180591620717411303424"),
    ],
)
def test_what_is_no_token_id_is_refused(tmp_path: Path, row: Any, message: str) -> None:
    embedder = Embedder(write_tiny_model(tmp_path))
    with pytest.raises(InputError) as caught:
        embedder.embed_tokens([[2, 3], row])
    assert message in str(caught.value)


@pytest.mark.parametrize("ids", [np.array([[2, 4, 3]]), [np.array([2, 4, 3], np.uint16)], [(2, np.int64(4), 3)]])
def test_whole_numbers_of_any_type_are_token_ids(tmp_path: Path, ids: Any) -> None:
    embedder = Embedder(write_tiny_model(tmp_path))
    np.testing.assert_array_equal(embedder.embed_tokens(ids), embedder.embed(["red"]))
