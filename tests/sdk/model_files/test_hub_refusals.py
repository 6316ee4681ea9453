"""What a Hub name that cannot be used says: one sentence with the value and the remedy, and never a hang."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gte_sdk import InputError
from gte_sdk.model_files.directory import sha256_of_file
from gte_sdk.model_files.hub.download import fetch_model

from ..tiny_models import tiny_vector, write_json, write_tiny_model
from .hub_programs import open_all, open_one
from .hub_stand_in import COMMIT, Fault, open_hub, serve_hub

NAME = "somebody/tiny-model"


def only_safetensors(path: Path) -> None:
    (path / "onnx" / "model.onnx").unlink()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "pytorch_model.bin").write_bytes(b"weights")


def another_architecture(path: Path) -> None:
    only_safetensors(path)
    write_json(path / "config.json", {"model_type": "deberta-v2", "hidden_size": 5})


def only_a_pickle(path: Path) -> None:
    (path / "onnx" / "model.onnx").unlink()
    (path / "pytorch_model.bin").write_bytes(b"weights")


def no_weights(path: Path) -> None:
    (path / "onnx" / "model.onnx").unlink()


def unknown_graph(path: Path) -> None:
    write_json(path / "config.json", {"model_type": "bert", "hidden_size": 5})
    (path / "onnx" / "model.onnx").rename(path / "onnx" / "model_O3.onnx")


def no_fast_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").rename(path / "vocab.txt")


@pytest.mark.parametrize(
    ("change", "variant", "messages"),
    [
        (only_safetensors, "auto", ["has safetensors weights and no ONNX graph; gte-sdk's export does not take"]),
        (
            only_a_pickle,
            "auto",
            ["as pytorch_model.bin only, a pickle, which is refused because loading it runs", "ONNX"],
        ),
        (no_weights, "auto", ["has neither an ONNX graph nor weights; check the name"]),
        (unknown_graph, "auto", ["under names that are not known (onnx/model_O3.onnx); gte-sdk's export takes only"]),
        (
            another_architecture,
            "auto",
            ["gte-sdk's export does not take the architecture 'deberta-v2' with that config: choose a repo"],
        ),
        (
            no_fast_tokenizer,
            "auto",
            ["has no tokenizer.json; transformers makes one from other files of a tokenizer: Auto", NAME],
        ),
        (
            lambda path: None,
            "int8",
            ["has none of ['onnx/model_quantized.onnx'", "variant='int8'; it has variant 'fp32'"],
        ),
    ],
)
def test_a_repository_that_cannot_be_run(
    tmp_path: Path, change: Callable[[Path], None], variant: str, messages: list[str]
) -> None:
    source = write_tiny_model(tmp_path / "source")
    change(source)
    with serve_hub(NAME, source) as (endpoint, requests):
        answer = open_one(endpoint, tmp_path / "cache", NAME, variant=variant)
        # Only what says what the repository is.
        fetched = {request.split("/main/")[-1].split(f"/{COMMIT}/")[-1] for request in requests[1:]}
        assert requests[0] == f"GET /api/models/{NAME}?blobs=true"
        assert fetched == {"config.json", "modules.json"}
    assert answer["error"] == "HubError"
    assert answer["message"].startswith(f"model='{NAME}' revision=None ")
    assert "\n" not in answer["message"]
    for message in messages:
        assert message in answer["message"]


def test_weights_with_an_adapter_are_refused_before_they_are_fetched(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    only_safetensors(source)
    write_json(source / "config.json", {"model_type": "bert", "hidden_size": 64, "max_position_embeddings": 32})
    write_json(source / "adapter_config.json", {"peft_type": "LORA"})
    with serve_hub(NAME, source) as (endpoint, requests):
        answer = open_one(endpoint, tmp_path / "cache", NAME)
        assert not any("safetensors" in request for request in requests)
    assert answer["error"] == "ModelFormatError"
    assert "adapter_config.json adds an adapter to the weights" in answer["message"]


@pytest.mark.parametrize("name", ["somebody/..", "somebody/.", "somebody/a--b", "somebody/a.git", "a/" + "b" * 300])
@pytest.mark.parametrize("offline", [True, None])
def test_a_name_that_no_repository_has_is_refused_without_a_request(
    tmp_path: Path, name: str, offline: bool | None
) -> None:
    answer = open_one("http://127.0.0.1:9", tmp_path, name, offline=offline)
    assert answer["error"] == "HubError"
    assert answer["message"].startswith(f"model={name!r} revision=None is no valid Hub name: ")


def test_names_and_tokens_that_the_hub_refuses(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        page = f"{served.endpoint}/{NAME}"
        unknown, malformed = open_all([("somebody/else", {}), ("somebody/a--b", {})], served.endpoint, tmp_path / "1")
        assert unknown["message"] == (
            f"model='somebody/else' revision=None is not on {served.endpoint}, or is private; check the name, "
            "or set HF_TOKEN if it is private"
        )
        assert malformed["message"].startswith("model='somebody/a--b' revision=None is no valid Hub name: ")
        served.gate = "hf_member"
        gated = open_one(served.endpoint, tmp_path / "2", NAME)
        assert gated["message"] == (
            f"model='{NAME}' revision=None is gated; accept its terms at {page} and set HF_TOKEN to a token of that "
            "account"
        )
        (stranger,) = open_all([(NAME, {})], served.endpoint, tmp_path / "3", HF_TOKEN="hf_stranger")
        assert stranger["message"] == gated["message"]
        (invalid,) = open_all([(NAME, {})], served.endpoint, tmp_path / "4", HF_TOKEN="invalid")
        assert "was refused, as the token is not valid; set HF_TOKEN to a valid one" in invalid["message"]
        (member,) = open_all([(NAME, {})], served.endpoint, tmp_path / "5", HF_TOKEN="hf_member")
        np.testing.assert_allclose(member["vector"], tiny_vector("red green"), atol=1e-6)
        for token in ("hf_member", "hf_stranger"):
            assert token not in str([gated, stranger, invalid, member])


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("403", "was refused with status 403; give the token in HF_TOKEN read access to "),
        ("429", "was refused with status 429, too many requests; wait some minutes"),
        ("503", "status 503; try again later, or check HF_ENDPOINT"),
    ],
)
def test_a_hub_that_answers_with_an_error(tmp_path: Path, status: str, message: str) -> None:
    source = write_tiny_model(tmp_path / "source")
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        served.faults.append(Fault("GET /api/models", status, times=99))
        answer = open_one(served.endpoint, tmp_path / "cache", NAME)
    assert answer["error"] == "HubError"
    assert message in answer["message"]


def test_a_hub_that_does_not_answer_ends_in_time(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    cache = tmp_path / "cache"
    short = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    advice = "check network and HTTPS_PROXY, or raise HF_HUB_ETAG_TIMEOUT"
    with open_hub(NAME, {COMMIT: source}, {"main": COMMIT}) as served:
        served.faults.append(Fault("GET /api/models", "wait"))
        (silent,) = open_all([(NAME, {})], served.endpoint, cache, **short)
        assert (
            f"could not be fetched from {served.endpoint}: no answer in time (ReadTimeout); {advice}"
            in silent["message"]
        )
        # The content stops half-way, and so does every attempt to go on.
        digest = sha256_of_file(source / "onnx" / "model.onnx")
        served.faults.append(Fault(f"GET /{digest}", "hang", times=99))
        (stalled,) = open_all([(NAME, {})], served.endpoint, cache, **short)
        assert "no answer in time (" in stalled["message"]
        assert advice in stalled["message"]
        served.faults.clear()
        (whole,) = open_all([(NAME, {})], served.endpoint, cache)
        np.testing.assert_allclose(whole["vector"], tiny_vector("red green"), atol=1e-6)
        served.faults.append(Fault("GET /api/models", "wait"))
        (cached,) = open_all([(NAME, {})], served.endpoint, cache, **short)
        assert {**cached, "warnings": []} == whole
        assert "the Hub cannot be reached (ReadTimeout), so the cached commit" in cached["warnings"][0]


def test_offline_and_not_in_the_cache(tmp_path: Path) -> None:
    with serve_hub(NAME, write_tiny_model(tmp_path / "source")) as (endpoint, requests):
        answer = open_one(endpoint, tmp_path / "cache", NAME, offline=True, revision="v1", variant="int8")
        (variable, insisting) = open_all(
            [(NAME, {}), (NAME, {"offline": False})], endpoint, tmp_path / "cache", HF_HUB_OFFLINE="1"
        )
        assert requests == []
    assert answer["error"] == variable["error"] == "HubError"
    assert answer["message"] == (
        f"model='{NAME}' revision='v1' is not in the cache; fetch it once with the network on, without offline=True "
        f"and HF_HUB_OFFLINE: gte download {NAME} --revision v1 --variant int8"
    )
    assert "is not in the cache; fetch it once with the network on" in variable["message"]
    assert insisting["message"].endswith("cannot be fetched while HF_HUB_OFFLINE is set; unset it")


def test_an_unknown_variant() -> None:
    with pytest.raises(InputError, match=r"variant='int4'; one of \('auto', 'fp32', 'fp16', 'int8'\) is supported"):
        fetch_model(NAME, "int4", None, None)
