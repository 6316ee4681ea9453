"""What every function that takes texts accepts and refuses: one table of inputs for all of them."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

import gte_sdk
from gte_sdk import Embedder, InputTypeError
from gte_sdk.embedding import WINDOW_TEXTS, embedder
from gte_sdk.embedding.text_kinds import embed_batch, embed_function
from gte_sdk.integrations.lazy_model import LazyModel

from ..tiny_models import write_tiny_model

PROMPTS = {"query": "query : ", "document": "document : "}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(write_tiny_model(tmp_path_factory.mktemp("tiny"), prompts=PROMPTS))


class Table:
    """Iterates over the names of its columns, as tables of many libraries do."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __iter__(self) -> Any:
        return iter(["text", "label"])


# A single str is one text.
TAKE_ONE_TEXT: dict[str, Callable[[Embedder, Any], Any]] = {
    "embed": lambda model, texts: model.embed(texts),
    "embed_query": lambda model, texts: model.embed_query(texts),
    "embed_documents": lambda model, texts: model.embed_documents(texts),
    "encode": lambda model, texts: model.encode(texts),
    "encode_query": lambda model, texts: model.encode_query(texts),
    "encode_document": lambda model, texts: model.encode_document(texts),
    "aembed": lambda model, texts: asyncio.run(model.aembed(texts)),
    "gte_sdk.embed": lambda model, texts: gte_sdk.embed(texts),
    "embed_function": lambda model, texts: embed_function(model, "query")(texts),
}
TAKE_LISTS_ONLY: dict[str, Callable[[Embedder, Any], Any]] = {
    "embed_iter": lambda model, texts: (
        model.embed_iter(texts) if isinstance(texts, str) else [*model.embed_iter(texts)]
    ),
    "tokenize": lambda model, texts: model.tokenize(texts),
    "embed_batch": lambda model, texts: embed_batch(model, texts, "plain"),
    "LazyModel.embed_queries": lambda model, texts: asyncio.run(LazyModel("gte-nano").embed_queries(texts)),
    "LazyModel.embed_documents": lambda model, texts: asyncio.run(LazyModel("gte-nano").embed_documents(texts)),
}
CALLS = TAKE_ONE_TEXT | TAKE_LISTS_ONLY


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([None], "text 0 is a NoneType: None; give a str"),
        (["a", b"x"], "text 1 is a bytes: b'x'; give a str"),
        (["a", "b", 1], "text 2 is a int: 1; give a str"),
        ([["a"]], "text 0 is a list"),
        ([float("nan")], "text 0 is a float: nan"),
        (None, "texts is a NoneType"),
        (7, "texts is a int: 7"),
        (b"bytes", "texts is a bytes"),
        ({"a": 1}, "texts is a dict"),
        ({"a"}, "texts is a set"),
        (Table(ndim=2, columns=["text", "label"]), "texts is a Table of 2 dimensions; give one column of texts"),
        (Table(columns=["text", "label"]), "texts is a Table; give one column of texts, such as frame['text']"),
        (np.array([["a", "b"]]), "texts is a ndarray of 2 dimensions"),
        (np.array("a"), "texts is a ndarray of 0 dimensions"),
        (pyarrow.array(["a", None]), "text 1 is a NoneType"),
        (pyarrow.table({"text": ["a"]}), "texts is a Table; give one column of texts"),
    ],
)
def test_what_is_no_text_is_refused(tiny: Embedder, name: str, texts: Any, message: str) -> None:
    with pytest.raises(InputTypeError) as caught:
        CALLS[name](tiny, texts)
    assert message in str(caught.value)
    assert issubclass(InputTypeError, TypeError)
    assert issubclass(InputTypeError, ValueError)


@pytest.mark.parametrize("name", TAKE_LISTS_ONLY)
@pytest.mark.parametrize("text", ["hello", "", "x" * 10_000_000])
def test_one_str_is_no_list_of_its_characters(tiny: Embedder, name: str, text: str) -> None:
    with pytest.raises(InputTypeError, match=r"texts is a str, '.{0,40}'; give a list of str, such as \[text\]"):
        TAKE_LISTS_ONLY[name](tiny, text)


@pytest.mark.parametrize("name", TAKE_ONE_TEXT)
def test_one_str_is_one_text(tiny: Embedder, name: str) -> None:
    assert TAKE_ONE_TEXT[name](tiny, "red green").ndim == 1


@pytest.mark.parametrize(
    "texts",
    [
        ("red", "green"),
        np.array(["red", "green"]),
        iter(["red", "green"]),
        pyarrow.array(["red", "green"]),
        pyarrow.chunked_array([["red"], ["green"]]),
    ],
)
def test_any_ordered_collection_will_do(tiny: Embedder, texts: Any) -> None:
    np.testing.assert_array_equal(tiny.embed(texts), tiny.embed(["red", "green"]))


def test_bad_text_late_in_a_stream_names_its_place(tiny: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "WINDOW_TEXTS", 4)
    with pytest.raises(InputTypeError, match="text 9 is a NoneType"):
        list(tiny.embed_iter(["red"] * 9 + [None]))  # type: ignore[list-item]


@pytest.mark.parametrize("kind", ["plain", "query", "document", "other"])
def test_every_way_to_embed_a_kind_gives_the_same_rows(tiny: Embedder, kind: Any) -> None:
    prompt = PROMPTS.get(kind, "")
    assert tiny.prompt_for(kind) == prompt
    texts = ["red", "green blue"]
    expected = tiny.embed([prompt + text for text in texts])
    np.testing.assert_array_equal(asyncio.run(tiny.aembed(texts, prompt=tiny.prompt_for(kind))), expected)
    np.testing.assert_array_equal(np.array([*tiny.embed_iter(texts, prompt=prompt)]), expected)
    np.testing.assert_array_equal(tiny.embed_tokens(tiny.tokenize(texts, prompt=prompt).ids), expected)
    np.testing.assert_array_equal(embed_batch(tiny, texts, kind).vectors, expected)
    if kind != "other":
        np.testing.assert_array_equal(embed_function(tiny, kind)(texts), expected)


@pytest.mark.parametrize("truncation", ["warn", "error", "ignore"])
@pytest.mark.filterwarnings("error")
def test_what_was_cut_is_a_value(tmp_path: Path, truncation: str) -> None:
    model = Embedder(write_tiny_model(tmp_path, prompts=PROMPTS), max_tokens=6, truncation=truncation)
    embedded = embed_batch(model, ["red", "red green blue fast slow"], "query")
    assert (embedded.left_out, embedded.was_cut) == ([0, 3], True)
    assert not embed_batch(model, ["red"], "query").was_cut


def test_a_progress_bar_counts_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Embedder(write_tiny_model(tmp_path)).encode(["red"] * (WINDOW_TEXTS + 3), show_progress_bar=True)
    assert f" {WINDOW_TEXTS + 3}/{WINDOW_TEXTS + 3} " in capsys.readouterr().err


def test_a_progress_bar_without_standard_streams_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Embedder(write_tiny_model(tmp_path))
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert model.encode(["red"] * 3, show_progress_bar=True).shape == (3, model.dim)
