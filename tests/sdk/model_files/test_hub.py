"""Models by their Hub name against a stand-in Hub: which files, which commit, whole, and what each failure says."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk.model_files.directory import sha256_of_file
from gte_sdk.model_files.hub import download as hub

from ..tiny_models import TABLE, tiny_vector, write_json, write_tiny_model
from .hub_programs import answers_of, hub_environment, open_all, open_one, start
from .hub_stand_in import COMMIT, Fault, open_hub, open_proxy, serve_hub

NAME = "somebody/tiny-model"
OLD = "1" * 40
GRAPH = "onnx/model.onnx"


def blob_of(cache: Path, name: str, commit: str = COMMIT) -> Path:
    return (cache / "hub" / "models--somebody--tiny-model" / "snapshots" / commit / name).resolve(strict=True)


def damage(blob: Path) -> None:
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)


def test_a_hub_model_is_fetched_once_and_then_works_offline(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"not wanted")
    write_json(source / "onnx" / "config.json", {"not": "wanted"})
    cache = tmp_path / "cache"
    with serve_hub(NAME, source) as (endpoint, requests):
        (online,) = open_all([(NAME, {})], endpoint, cache)
        np.testing.assert_allclose(online["vector"], tiny_vector("red green"), atol=1e-6)
        assert any(request.endswith(GRAPH) for request in requests)
        assert not any("pytorch_model.bin" in request or "onnx/config.json" in request for request in requests)
        requests.clear()
        assert open_one(endpoint, cache, NAME) == online
        assert requests == [f"GET /api/models/{NAME}?blobs=true"]
        requests.clear()
        calls: list[tuple[str, dict[str, Any]]] = [(NAME, {"revision": COMMIT}), (NAME, {"offline": True})]
        assert open_all(calls, endpoint, cache) == [online, online]
        assert open_all([(NAME, {})], endpoint, cache, HF_HUB_OFFLINE="1") == [online]
        assert requests == []
    # The Hub is gone now.
    assert open_one(endpoint, cache, NAME, offline=True) == online
    unreachable = open_one(endpoint, cache, NAME)
    assert {**unreachable, "warnings": []} == online
    warned = unreachable["warnings"][0]
    assert "the Hub cannot be reached (Connect" in warned  # ConnectError, or ConnectionError before 1.0
    assert f"so the cached commit {COMMIT} is used" in warned
    insisting = open_one(endpoint, cache, NAME, offline=False)
    assert f"could not be fetched from {endpoint}" in insisting["message"]


def test_branch_tag_and_commit_pin_the_weights(tmp_path: Path) -> None:
    new = write_tiny_model(tmp_path / "new")
    old = write_tiny_model(tmp_path / "old", table=TABLE[:, ::-1].copy())
    references = {"main": COMMIT, "v1.0": OLD, "refs/pr/4": OLD}
    cache = tmp_path / "cache"
    with open_hub(NAME, {COMMIT: new, OLD: old}, references) as served:
        revisions = [None, "main", COMMIT, "v1.0", "refs/pr/4", OLD]
        calls: list[tuple[str, dict[str, Any]]] = [(NAME, {"revision": revision}) for revision in revisions]
        answers = open_all(calls, served.endpoint, cache)
        for answer, revision in zip(answers, revisions, strict=True):
            expected = (
                tiny_vector("red green") if revision in (None, "main", COMMIT) else tiny_vector("red green")[::-1]
            )
            np.testing.assert_allclose(answer["vector"], expected, atol=1e-6)
        assert answers[0]["fingerprint"] != answers[3]["fingerprint"]
        # What a tag stood for is known without the Hub; where it moves to is learnt from the Hub.
        served.references["v1.0"] = COMMIT
        assert open_one(served.endpoint, cache, NAME, revision="v1.0", offline=True) == answers[3]
        assert open_one(served.endpoint, cache, NAME, revision="v1.0") == answers[0]
        assert open_one(served.endpoint, cache, NAME, revision="v1.0", offline=True) == answers[0]
        unknown = open_one(served.endpoint, cache, NAME, revision="v9")
    assert unknown["error"] == "HubError"
    assert f"model='{NAME}' revision='v9' has no such branch, tag or commit; " in unknown["message"]


def test_a_download_that_was_cut_goes_on_where_it_ended(tmp_path: Path) -> None:
    # huggingface_hub writes blocks of 10 MiB; what arrived of the block that was cut is asked for again.
    block = 10 * 1024 * 1024
    table = np.concatenate([TABLE, np.zeros((block // 8, TABLE.shape[1]), np.float32)])
    source = write_tiny_model(tmp_path / "source", table=table)
    assert block < (source / GRAPH).stat().st_size // 2 < 2 * block
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        digest = sha256_of_file(source / GRAPH)
        served.faults.append(Fault(f"GET /{digest}", "cut"))
        answer = open_one(served.endpoint, tmp_path / "cache", NAME)
        np.testing.assert_allclose(answer["vector"], tiny_vector("red green"), atol=1e-6)
        assert [request for request in served.requests if digest in request] == [
            f"GET /{digest}", f"GET /{digest} bytes={block}-",
        ]  # fmt: skip
    assert blob_of(tmp_path / "cache", GRAPH).read_bytes() == (source / GRAPH).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_download_leaves_nothing_that_is_taken_for_a_model(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    cache = tmp_path / "cache"
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        digest = sha256_of_file(source / GRAPH)
        served.faults.append(Fault(f"GET /{digest}", "hang"))
        process = start([(NAME, {})], hub_environment(served.endpoint, cache))
        deadline = time.monotonic() + 300
        while not served.count(f"GET /{digest}") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        offline = open_one(served.endpoint, cache, NAME, offline=True)
        assert "is in the cache without any of ['onnx/model.onnx'" in offline["message"]
        served.requests.clear()
        answer = open_one(served.endpoint, cache, NAME)
        np.testing.assert_allclose(answer["vector"], tiny_vector("red green"), atol=1e-6)
        # What had arrived whole is not fetched again.
        assert {request.split("?")[0] for request in served.requests} == {
            f"GET /api/models/{NAME}", f"HEAD /{NAME}/resolve/{COMMIT}/{GRAPH}", f"GET /{digest}",
        }  # fmt: skip


@pytest.mark.parametrize("name", [GRAPH, "tokenizer.json", "1_Pooling/config.json"])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, name: str) -> None:
    source = write_tiny_model(tmp_path / "source")
    cache = tmp_path / "cache"
    with serve_hub(NAME, source) as (endpoint, requests):
        whole = open_one(endpoint, cache, NAME)
        damage(blob_of(cache, name))
        requests.clear()
        pinned_offline, offline = open_all(
            [(NAME, {"revision": COMMIT, "offline": True}), (NAME, {"offline": True})], endpoint, cache
        )
        assert requests == []
        for answer in (pinned_offline, offline):
            assert answer["error"] == "HubError"
            assert (
                f"{name} is damaged in the cache; fetch it again with the network on: gte download" in answer["message"]
            )
        online = open_one(endpoint, cache, NAME, revision=COMMIT)
        assert {**online, "warnings": []} == whole
        assert f"{name} is damaged, and is fetched again" in online["warnings"][0]
        assert blob_of(cache, name).read_bytes() == (source / name).read_bytes()
        assert open_one(endpoint, cache, NAME, offline=True) == whole
        # A file that lost its end
        blob_of(cache, name).write_bytes((source / name).read_bytes()[:-1])
        assert {**open_one(endpoint, cache, NAME), "warnings": []} == whole


def test_content_that_changed_on_its_way_is_not_used(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        digest = sha256_of_file(source / GRAPH)
        served.faults.append(Fault(f"GET /{digest}", "flip"))
        once = open_one(served.endpoint, tmp_path / "once", NAME)
        np.testing.assert_allclose(once["vector"], tiny_vector("red green"), atol=1e-6)
        served.faults.append(Fault(f"GET /{digest}", "flip", times=99))
        always = open_one(served.endpoint, tmp_path / "always", NAME)
    assert f"{GRAPH} arrives with another content than the Hub lists; check proxy and mirror" in always["message"]


def test_two_processes_fetch_a_model_at_once(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        digest = sha256_of_file(source / GRAPH)
        served.faults.append(Fault(f"GET /{digest}", "wait"))
        environment = hub_environment(served.endpoint, tmp_path / "cache")
        processes = [start([(NAME, {})], environment) for _ in range(2)]
        deadline = time.monotonic() + 300
        while served.count(f"HEAD /{NAME}/resolve/{COMMIT}/{GRAPH}") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        served.released.set()
        first, second = (answers_of(process)[0] for process in processes)
        np.testing.assert_allclose(first["vector"], tiny_vector("red green"), atol=1e-6)
        assert first == second
        # Who came second waited for the first one's file.
        assert served.count(f"GET /{digest}") == 1


def test_a_proxy_is_used(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        host = served.endpoint.removeprefix("http://")
        with open_proxy({"hub.invalid": host}) as (proxy, asked):
            through = open_all([(NAME, {})], "http://hub.invalid", tmp_path / "cache", HTTP_PROXY=proxy)[0]
            np.testing.assert_allclose(through["vector"], tiny_vector("red green"), atol=1e-6)
            assert f"GET http://hub.invalid/api/models/{NAME}?blobs=true" in asked
            assert len(asked) == len(served.requests)
        dead = open_all([(NAME, {})], "http://hub.invalid", tmp_path / "other", HTTP_PROXY=proxy)[0]
    assert "could not be fetched from http://hub.invalid: " in dead["message"]
    assert "check network, HTTPS_PROXY and HF_ENDPOINT" in dead["message"]


def test_where_the_cache_is(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with serve_hub(NAME, source) as (endpoint, _):
        home, elsewhere, xdg = tmp_path / "home", tmp_path / "elsewhere", tmp_path / "xdg"
        open_all([(NAME, {})], endpoint, home, HF_HUB_CACHE=str(elsewhere))
        assert (elsewhere / "models--somebody--tiny-model").is_dir()
        assert not home.exists()
        environment = hub_environment(endpoint, home, XDG_CACHE_HOME=str(xdg))
        del environment["HF_HOME"]
        answers_of(start([(NAME, {})], environment))
        assert (xdg / "huggingface" / "hub" / "models--somebody--tiny-model").is_dir()
        (tmp_path / "a file").touch()
        (answer,) = open_all([(NAME, {})], endpoint, home, HF_HUB_CACHE=str(tmp_path / "a file"))
    assert answer["error"] == "HubError"
    assert f"could not be stored in {tmp_path / 'a file'}: " in answer["message"]
    assert answer["message"].endswith("; free space or set HF_HUB_CACHE")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thenlper/gte-small", True),
        ("a/b.c_d-1", True),
        ("gte-mini", False),
        ("a/b/c", False),
        ("../a", False),
        ("/a/b", False),
        ("a b/c", False),
        ("C:\\models\\x", False),
    ],
)
def test_what_looks_like_a_hub_name(name: str, expected: bool) -> None:
    assert hub.is_hub_name(name) == expected
