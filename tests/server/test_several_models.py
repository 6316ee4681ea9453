"""Several models in one server: each request has its own, and what they have in common is shared."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.updating import update_index

from .servers import ServerProcess, gte_serve, refused

NAMES = ("gte-mini", "gte-nano")


@pytest.fixture(scope="module")
def embedders(embedder: Embedder) -> dict[str, Embedder]:
    return {"gte-mini": embedder, "gte-nano": Embedder("gte-nano", truncation="ignore")}


@pytest.fixture(scope="module")
def indexes(embedders: dict[str, Embedder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("notes")
    (folder / "cats.md").write_text("A kitten sleeps for most of the day.\n", encoding="utf-8")
    (folder / "roof.md").write_text("The north side leaks.\n", encoding="utf-8")
    paths = {}
    for name, each in embedders.items():
        paths[name] = folder.parent / f"{folder.name}-{name}.index"
        with PassageStore(paths[name], Settings(name, each.fingerprint, each.dim, (str(folder),))) as store:
            update_index(store, each, print, lambda done, total: None)
    return paths


@pytest.fixture(scope="module")
def server(indexes: dict[str, Path]) -> Iterator[ServerProcess]:
    options = [part for name in NAMES for part in ("--model", name, "--index", f"{name}={indexes[name]}")]
    # Every request finds its model freed, or about to be.
    with gte_serve(*options, "--alias", "other", "--unload-after", "0.001") as started:
        yield started


def vectors(server: ServerProcess, model: str, texts: list[str]) -> NDArray[np.float32]:
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"model": model, "input": texts}).json()
    return np.array([row["embedding"] for row in answer["data"]], np.float32)


def test_each_model_embeds_by_its_name(server: ServerProcess, embedders: dict[str, Embedder]) -> None:
    texts = ["a text", "another"]
    for _ in range(3):
        for name, each in embedders.items():
            np.testing.assert_array_equal(vectors(server, name, texts), each.embed(texts))
    np.testing.assert_array_equal(vectors(server, "other", texts), embedders["gte-mini"].embed(texts))
    wrong = httpx.post(f"{server.url}/v1/embeddings", json={"model": "third", "input": "a"})
    assert refused(wrong) == (404, "model_not_found", "model")
    assert "gte-mini, gte-nano, other" in wrong.json()["error"]["message"]


def test_documents_are_ranked_by_the_model_that_is_named(server: ServerProcess, embedders: dict[str, Embedder]) -> None:
    documents = ["kitten", "bank", "cat"]
    for name, each in embedders.items():
        body = {"model": name, "query": "young cat", "documents": documents}
        answer = httpx.post(f"{server.url}/rerank", json=body).json()
        assert answer["model"] == name
        cosines = each.embed_documents(documents) @ each.embed_query("young cat")
        assert [row["index"] for row in answer["results"]] == np.argsort(-cosines).tolist()


def test_each_index_is_searched_by_its_own_model(server: ServerProcess, embedders: dict[str, Embedder]) -> None:
    for name, each in embedders.items():
        body = {"index": name, "query": "young cat", "k": 1, "mode": "meaning"}
        (best,) = httpx.post(f"{server.url}/v1/search", json=body).json()["data"]
        cosine = each.embed_documents([best["text"]])[0] @ each.embed_query("young cat")
        assert (Path(best["path"]).name, best["score"]) == ("cats.md", pytest.approx(cosine, abs=2e-6))


def test_models_and_metrics_are_listed_one_by_one(server: ServerProcess, embedders: dict[str, Embedder]) -> None:
    def texts_of(model: str) -> int:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return int(next(x.split()[1] for x in lines if x.startswith(f'gte_model_texts_total{{model="{model}"}} ')))

    cards = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["gte-mini", "gte-nano", "other"]
    fingerprints = [each.fingerprint for each in embedders.values()]
    assert [card["fingerprint"] for card in cards] == [*fingerprints, fingerprints[0]]
    before = [texts_of(name) for name in NAMES]
    vectors(server, "gte-nano", ["a", "b", "c"])
    vectors(server, "other", ["a"])
    assert [texts_of(name) for name in NAMES] == [before[0] + 1, before[1] + 3]
    document = httpx.get(f"{server.url}/openapi.json").json()
    request = document["components"]["schemas"]["EmbeddingsRequest"]["properties"]
    assert request["model"]["enum"] == ["gte-mini", "gte-nano", "other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "gte-mini", "--model", "gte-mini"], "two models have the same name: gte-mini, gte-mini"),
        (["--model", "gte-mini", "--model", "gte-nano", "--alias", "gte-nano"], "two models have the same name"),
        (["--model", "gte-mini", "--model", "gte-nano", "--name", "one"], "are of one model"),
        (["--model", "gte-mini", "--model", "gte-nano", "--prompt", "query=q: "], "are of one model"),
        (["--unload-after", "0"], "0.0 is not in the range x>0"),
        (["--index", __file__], "is no passage index; make one with: gte index"),
    ],
)
def test_options_that_contradict_each_other_are_errors(options: list[str], message: str) -> None:
    result = CliRunner().invoke(gte, ["serve", *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
