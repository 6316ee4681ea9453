"""Embedder(..., variant="int8") on float32 weights: what it makes, keeps, compares and refuses."""

import json
import warnings
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import numpy as np
import pytest

from gte_sdk import Embedder, InputError
from gte_sdk.model_files import user_cache
from gte_sdk.model_files.user_cache import cached_bytes, clear_cache
from gte_sdk.runtime.int8 import at_open

from ..native.look_alikes import random_texts, write_look_alike

TEXTS = random_texts([3, 20, 60])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_look_alike(tmp_path / "model")


def quantize_again(*_: object) -> NoReturn:
    raise AssertionError("the model is quantized although its weights are in the cache")


def open_int8(model: Path, **options: Any) -> Embedder:
    return Embedder(model, variant="int8", threads=1, **options)


def kept(cache: Path) -> Path:
    (file,) = cache.glob("*.safetensors")
    return file


def test_it_is_close_to_float32_and_says_what_runs(model: Path) -> None:
    with open_int8(model) as embedder, Embedder(model, threads=1) as float_embedder:
        assert (embedder.engine, embedder.variant, embedder.device) == ("native", "int8", "cpu")
        assert float_embedder.variant == "fp32"
        assert embedder.fingerprint == float_embedder.fingerprint
        cosines = np.einsum("nd,nd->n", embedder.embed(TEXTS), float_embedder.embed(TEXTS))
    assert 0.99 < cosines.min() < 1 - 1e-6


def test_the_second_time_it_comes_from_the_cache(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_int8(model).embed(TEXTS)
    assert cached_bytes() == (1, sum(file.stat().st_size for file in cache.iterdir()))
    monkeypatch.setattr(at_open, "quantize_model", quantize_again)
    monkeypatch.setattr(user_cache, "sha256_of_file", quantize_again)
    assert np.array_equal(open_int8(model).embed(TEXTS), first)
    embedder = open_int8(model, unload_after=1000)
    embedder._engine.close()  # as when it was idle
    assert np.array_equal(embedder.embed(TEXTS), first)


def test_other_weights_configuration_or_tokenizer_are_another_model(model: Path, cache: Path) -> None:
    open_int8(model).close()
    weights = (model / "model.safetensors").read_bytes()
    for name, content in {
        "model.safetensors": weights[:-4] + np.float32(0.5).tobytes(),
        "config.json": (model / "config.json").read_bytes() + b"\n",
        "tokenizer.json": (model / "tokenizer.json").read_bytes() + b"\n",
    }.items():
        count = len(list(cache.glob("*.safetensors")))
        (model / name).write_bytes(content)
        open_int8(model).close()
        assert len(list(cache.glob("*.safetensors"))) == count + 1


def test_a_moved_model_is_the_same(model: Path, cache: Path) -> None:
    open_int8(model).close()
    model.rename(model.with_name("moved"))
    open_int8(model.with_name("moved")).close()
    assert len(list(cache.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["byte", "cut", "empty", "other"])
def test_a_damaged_file_is_made_anew(damage: str, model: Path, cache: Path) -> None:
    first = open_int8(model).embed(TEXTS)
    whole = kept(cache).read_bytes()
    content = bytearray(whole)
    content[len(content) // 2] ^= 16
    kept(cache).write_bytes({"byte": bytes(content), "cut": whole[:-1], "empty": b"", "other": b"\0" * 999}[damage])
    assert np.array_equal(open_int8(model).embed(TEXTS), first)
    assert kept(cache).read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_a_warning(model: Path, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder belongs")
    with pytest.warns(UserWarning, match="cannot be kept in the cache"):
        embedder = open_int8(model)
    expected = embedder.embed(TEXTS)
    cache.parent.unlink()
    assert np.array_equal(open_int8(model).embed(TEXTS), expected)


def test_a_full_disk_is_a_warning(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(at_open, "write_int8", fill)
        with pytest.warns(UserWarning, match="No space left"):
            open_int8(model).close()
    assert not list(cache.glob("*.safetensors"))
    assert not list(cache.glob("*.part"))


def test_a_user_without_a_home(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_cache, "cache_folder", lambda: None)
    with pytest.warns(UserWarning, match="no home"):
        open_int8(model).close()
    assert cached_bytes() == clear_cache() == (0, 0)


@pytest.mark.parametrize("limit", ["LEAST_MEAN", "LEAST_COSINE"])
def test_int8_that_loses_too_much_is_not_used(
    limit: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_open, limit, 0.9999999)
    with pytest.warns(UserWarning, match=r"loses too much in int8: mean cosine 0\.\d+ .*variant='fp32' is used"):
        embedder = open_int8(model)
    assert (embedder.variant, embedder.engine) == ("fp32", "native")
    monkeypatch.setattr(at_open, "quantize_model", quantize_again)  # the result of the comparison is kept too
    with pytest.warns(UserWarning, match="loses too much in int8"):
        assert np.array_equal(open_int8(model).embed(TEXTS), embedder.embed(TEXTS))
    assert cached_bytes()[0] == 1


def test_weights_that_are_not_finite(model: Path, cache: Path) -> None:
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-4] + np.float32("nan").tobytes())
    with pytest.raises(InputError, match="has NaN or infinity: the weights are damaged"):
        open_int8(model)
    assert not list(cache.glob("*.safetensors"))


def test_a_model_of_another_family_says_why(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    with pytest.raises(InputError, match=r"does not quantize it: model.safetensors: config.json has is_decoder=True"):
        open_int8(model)
    with pytest.raises(InputError, match="variant='int8'"):
        open_int8(model, engine="onnxruntime")


def test_many_threads_open_the_same_model(model: Path, cache: Path) -> None:
    vectors = []
    threads = [Thread(target=lambda: vectors.append(open_int8(model).embed(TEXTS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vectors) == 3
    assert all(np.array_equal(vectors[0], others) for others in vectors)
    assert cached_bytes()[0] == 1
    assert not list(cache.glob("*.part"))


def test_clearing(model: Path, cache: Path) -> None:
    embedder = open_int8(model)
    expected = embedder.embed(TEXTS)
    (cache / f".{kept(cache).name}.0123abcd.part").write_bytes(b"what a killed process left")
    counted = cached_bytes()
    assert counted[0] == 1
    assert clear_cache() == counted
    assert list(cache.iterdir()) == []
    assert np.array_equal(embedder.embed(TEXTS), expected)  # what is open stays open
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(open_int8(model).embed(TEXTS), expected)
