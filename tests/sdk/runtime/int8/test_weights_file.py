"""model_int8.safetensors: what is written is read, by others too, and a damaged file is noticed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.runtime.int8.quantize import quantize_encoder
from gte_sdk.runtime.int8.weights_file import read_int8, write_int8
from gte_sdk.runtime.native.description import EncoderWeights
from gte_sdk.runtime.native.safetensors_file import read_safetensors
from gte_sdk.runtime.native.weights import read_weights

from ..native.look_alikes import CONFIGURATIONS, HIDDEN, write_look_alike

FACTS = {"quantizer": 1, "golden_texts": {"mean_cosine": 0.999}}


def quantized(folder: Path, name: str) -> EncoderWeights:
    """With made-up sizes of the channels."""
    weights = read_weights(read_model_dir(write_look_alike(folder, name)), "model.safetensors", "fp32")
    layers = list(weights.layers)
    maxima = [
        [np.ones(linear.weights_NK.shape[1], dtype=np.float32) for linear in layer[:4]]  # type: ignore[union-attr]
        for layer in layers
    ]
    int8 = quantize_encoder(weights._replace(layers=layers), maxima)
    return int8._replace(layers=list(int8.layers))


def write(path: Path, weights: EncoderWeights) -> Path:
    with path.open("wb+") as file:
        write_int8(file, weights, FACTS)
    return path


def flat(value: Any) -> list[Any]:
    """The numbers, names and arrays in a description, in order."""
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in flat(item)]
    return [value]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    weights = quantized(tmp_path / "model", name)
    path = write(tmp_path / "int8.safetensors", weights)
    read, facts = read_int8(path, "mean", threads=2)
    assert facts == FACTS
    written, found = flat(weights), flat(read._replace(layers=list(read.layers)))
    assert len(written) == len(found)
    for one, other in zip(written, found, strict=True):
        assert type(one) is type(other)
        assert np.array_equal(one, other)
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
    assert write(tmp_path / "again.safetensors", weights).read_bytes() == path.read_bytes()


def test_a_layer_that_stays_in_float(tmp_path: Path) -> None:
    weights = quantized(tmp_path / "model", "bert")
    float_layer = next(iter(read_weights(read_model_dir(tmp_path / "model"), "model.safetensors", "fp32").layers))
    assert isinstance(weights.layers, list)
    path = write(tmp_path / "int8.safetensors", weights._replace(layers=[float_layer, weights.layers[1]]))
    first, second = read_int8(path, "mean", threads=1).weights.layers
    assert np.array_equal(first.feed_forward_in.weights_NK, float_layer.feed_forward_in.weights_NK)  # type: ignore[union-attr]
    assert second.feed_forward_out.shifted is True  # type: ignore[union-attr]


def test_the_package_safetensors_reads_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors comes with the extra export")
    path = write(tmp_path / "int8.safetensors", quantized(tmp_path / "model", "mpnet"))
    own: dict[str, NDArray[Any]] = read_safetensors(path)
    theirs = safetensors.load_file(path)
    assert own.keys() == theirs.keys()
    assert all(np.array_equal(own[name], theirs[name]) for name in own)
    assert own["layers.1.query_key_value.codes_KN"].shape == (HIDDEN, 3 * HIDDEN)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Some of each part: length, header, checksum, tensors in and behind the first block of the checksum."""
    path = write(tmp_path / "int8.safetensors", quantized(tmp_path / "model", "bert"))
    content = path.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for place in [0, 7, 8, 20, 40, 200, len(content) // 2, len(content) - 1, *range(37, 45)]:
        changed = bytearray(content)
        changed[place] ^= 1
        damaged.write_bytes(changed)
        with pytest.raises(ModelFormatError, match=r"damaged\.safetensors"):
            read_int8(damaged, "mean", threads=1)
    for length in (0, 7, 30, 1000, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(ModelFormatError, match=r"damaged\.safetensors"):
            read_int8(damaged, "mean", threads=1)


def test_a_block_behind_the_first_is_part_of_the_checksum(tmp_path: Path) -> None:
    weights = quantized(tmp_path / "model", "bert")
    large = np.zeros((20_000, HIDDEN), dtype=np.int8)
    path = write(
        tmp_path / "int8.safetensors",
        weights._replace(token_embeddings_VE=large, token_scales_V=np.ones(20_000, dtype=np.float32)),
    )
    content = bytearray(path.read_bytes())
    assert len(content) > 1.2e6
    content[1_100_000] ^= 4
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="another checksum"):
        read_int8(path, "mean", threads=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": "64"},
        {"hidden": -1},
        {"hidden": None},
        {"epsilon": 1},
        {"layers": {}},
        {"layers": [{}]},
        {"layers": [{"window": 1.5, "shifted": []}]},
        {"facts": []},
        {"format_version": 1},
        {"padding_token": -1},
        {"padding_token": "1"},
    ],
)
def test_a_description_that_is_none(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = quantized(tmp_path / "model", "bert")
    dumps = json.dumps

    def lie(value: Any, **options: Any) -> str:
        return dumps({**value, **changes} if "format_version" in value else value, **options)

    with monkeypatch.context() as patch:
        patch.setattr("json.dumps", lie)
        path = write(tmp_path / "int8.safetensors", weights)
    with pytest.raises(ModelFormatError, match="convert the model again"):
        list(read_int8(path, "mean", threads=1).weights.layers)


def test_a_missing_tensor_and_one_of_another_type(tmp_path: Path) -> None:
    weights = quantized(tmp_path / "model", "bert")
    for change in ({"token_scales_V": None}, {"token_embeddings_VE": np.zeros((97, HIDDEN), dtype=np.float32)}):
        path = write(tmp_path / "int8.safetensors", weights._replace(**change))
        with pytest.raises(ModelFormatError, match="token_"):
            read_int8(path, "mean", threads=1)


def test_another_safetensors_file_is_none_of_ours(tmp_path: Path) -> None:
    path = write_look_alike(tmp_path / "model") / "model.safetensors"
    with pytest.raises(ModelFormatError, match="no file of int8 weights"):
        read_int8(path, "mean", threads=1)
