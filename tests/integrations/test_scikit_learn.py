"""scikit-learn: the transformer in pipelines and column transformers, cloned, pickled, searched over."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import gte_sdk
from gte_sdk import Embedder, InputError, InputTypeError, ModelMismatchError
from gte_sdk.integrations.scikit_learn import GteTransformer

from ..sdk.tiny_models import TABLE, write_tiny_model

ANIMALS = ["a cat sleeps", "the dog barks", "horses run", "a bird sings", "the cow eats grass", "fish swim"]
MONEY = [
    "the bank raises rates",
    "shares fell",
    "a loan to pay back",
    "taxes are due",
    "buy bonds",
    "the price of gold",
]
TEXTS, LABELS = ANIMALS + MONEY, ["animal"] * 6 + ["money"] * 6


def test_a_pipeline_learns_from_the_vectors_of_gte_sdk() -> None:
    pipeline = make_pipeline(GteTransformer(), LogisticRegression()).fit(TEXTS, LABELS)
    assert pipeline.predict(["a sheep in the field", "interest on a credit"]).tolist() == ["animal", "money"]
    vectors_ND = pipeline[0].transform(TEXTS)
    assert vectors_ND.dtype == np.float32
    np.testing.assert_array_equal(vectors_ND, gte_sdk.embed(TEXTS))
    loaded = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), pipeline.predict_proba(TEXTS))
    assert len(pickle.dumps(pipeline[0])) < 2000  # no model inside


@pytest.mark.parametrize("kind", ["plain", "query", "document"])
def test_every_container_of_texts_and_every_prompt(tmp_path: Path, kind: Any) -> None:
    model = write_tiny_model(tmp_path, prompts={"query": "query: ", "document": "document: "})
    embedder = Embedder(model)
    embed = {"plain": embedder.embed, "query": embedder.embed_query, "document": embedder.embed_documents}[kind]
    texts = ["red", "green blue", ""]
    transformer = GteTransformer(model, kind=kind)
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, dtype=object), pandas.Series(texts)):
        np.testing.assert_array_equal(transformer.fit_transform(given), embed(texts))


def test_names_and_frames() -> None:
    frame = pandas.DataFrame({"title": ANIMALS, "legs": [4, 2, 4, 2, 4, 0]}, index=list("abcdef"))
    columns = ColumnTransformer([("title", GteTransformer(), "title")], remainder="passthrough")
    columns.set_output(transform="pandas")
    found = columns.fit_transform(frame)
    assert found.shape == (6, 385)
    assert found.columns[:2].tolist() == ["title__gtetransformer0", "title__gtetransformer1"]
    assert (found.columns[-1], found.index.tolist()) == ("remainder__legs", list("abcdef"))
    np.testing.assert_array_equal(found.iloc[:, :384].to_numpy(np.float32), gte_sdk.embed(ANIMALS))


def test_parameters_are_cloned_and_searched_over(tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path)
    original = GteTransformer(other, kind="query", threads=1)
    assert clone(original).get_params() == original.get_params()
    assert "model" in repr(original)
    pipeline = make_pipeline(GteTransformer(), LogisticRegression())
    search = GridSearchCV(pipeline, {"gtetransformer__model": ["gte-mini", other]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_ == {"gtetransformer__model": "gte-mini"}


def test_what_is_no_column_of_texts_is_named() -> None:
    transformer = GteTransformer()
    with pytest.raises(NotFittedError):
        transformer.transform(TEXTS)
    transformer.fit(TEXTS)
    with pytest.raises(InputError, match=r"X is of shape \(1, 2\); give a list or a 1-D array"):
        transformer.transform(np.array([["a", "b"]]))
    with pytest.raises(InputError, match="X is one str"):
        transformer.transform("a text")
    with pytest.raises(InputTypeError, match="text 1 is a float: nan"):
        transformer.transform(pandas.Series(["a", np.nan], dtype=object))
    with pytest.raises(InputError, match="kind='passage'"):
        GteTransformer(kind="passage").fit(TEXTS)  # type: ignore[arg-type]


def test_a_pipeline_whose_model_has_changed_is_refused(tmp_path: Path) -> None:
    fitted = GteTransformer(write_tiny_model(tmp_path / "model"), threads=1).fit(["red"])
    assert fitted.fingerprint_ == Embedder(tmp_path / "model").fingerprint
    stored = pickle.dumps(fitted)
    write_tiny_model(tmp_path / "model", table=TABLE * np.float32(-1))
    loaded = pickle.loads(stored)
    loaded.set_params(threads=2)  # another process would open the model anew; here other settings do
    with pytest.raises(ModelMismatchError, match=r"has .* now"):
        loaded.transform(["red"])


@pytest.mark.parametrize(
    "name",
    [
        "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init",
        "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
        "check_estimator_tags_renamed", "check_valid_tag_types", "check_mixin_order",
    ],
)  # fmt: skip
def test_scikit_learns_own_checks(name: str) -> None:
    getattr(estimator_checks, name)("GteTransformer", GteTransformer())
