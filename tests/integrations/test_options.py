"""The parameters of Embedder, which every adapter takes: the same names and defaults, one model for equal ones."""

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

from gte_sdk import Embedder, ModelMismatchError
from gte_sdk.integrations.lancedb import GteEmbeddingFunction
from gte_sdk.integrations.lazy_model import LazyModel, ModelOptions, ModelSettings
from gte_sdk.integrations.llama_index import GteEmbedding
from gte_sdk.integrations.scikit_learn import GteTransformer

PARAMETERS = {name: parameter.default for name, parameter in inspect.signature(Embedder).parameters.items()}
OPTIONS = {name: default for name, default in PARAMETERS.items() if name != "model"}


def test_options_and_settings_are_the_parameters_of_embedder() -> None:
    assert ModelSettings(PARAMETERS["model"])._asdict() == PARAMETERS
    assert list(ModelOptions.__annotations__) == list(OPTIONS)
    types = inspect.get_annotations(ModelSettings)
    assert {name: types[name] for name in OPTIONS} == inspect.get_annotations(ModelOptions)


@pytest.mark.parametrize(
    "declared",
    [
        {name: field.default for name, field in GteEmbedding.model_fields.items()},
        {name: field.default for name, field in GteEmbeddingFunction.model_fields.items()},
        GteTransformer().get_params(),
    ],
    ids=["LlamaIndex", "LanceDB", "scikit-learn"],
)
def test_frameworks_that_want_parameters_declared_have_them_all(declared: dict[str, Any]) -> None:
    assert {name: declared[name] for name in OPTIONS} == OPTIONS


def test_every_option_reaches_the_model(prompted: Path) -> None:
    options: ModelOptions = {"max_tokens": 4, "engine": "onnxruntime", "variant": "fp32", "device": "cpu", "threads": 1}
    embedder = LazyModel(prompted, **options).open()
    assert (embedder.max_tokens, embedder.engine, embedder.variant) == (4, "onnxruntime", "fp32")
    with pytest.raises(TypeError, match="devise"):
        LazyModel(prompted, devise="cpu")  # type: ignore[call-arg]


def test_a_path_means_the_same_in_another_folder(prompted: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(prompted.parent)
    for model in (prompted.name, Path(prompted.name), prompted, str(prompted)):
        assert LazyModel(model).settings.model == str(prompted)
    by_name = LazyModel(prompted.name)
    monkeypatch.chdir(tmp_path)
    assert by_name.open().dim == 5
    Path("gte-mini").mkdir()
    for name in ("gte-mini", "thenlper/gte-small"):
        assert LazyModel(name).settings.model == name


def test_equal_settings_are_opened_once_and_travel_as_text(prompted: Path) -> None:
    lazy_model = LazyModel(prompted, Embedder(prompted).fingerprint, threads=1)
    assert lazy_model.open() is LazyModel(str(prompted), threads=1).open()
    pickled = pickle.dumps(lazy_model)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).open() is lazy_model.open()
    with pytest.raises(ModelMismatchError, match=r"made by a model with fingerprint another, and .* now"):
        pickle.loads(pickle.dumps(LazyModel(prompted, "another"))).open()
