"""Safetensors files, against the package that writes them, and files that are damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import ModelFormatError
from gte_sdk.runtime.native.safetensors_file import read_safetensors


def write_by_hand(path: Path, header: Any, values: bytes) -> Path:
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + values)
    return path


def test_the_tensors_that_the_package_writes(tmp_path: Path) -> None:
    numpy_package = pytest.importorskip("safetensors.numpy")
    numbers = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {
        "f32": numbers.standard_normal((3, 4)).astype(np.float32),
        "f16": numbers.standard_normal((5,)).astype(np.float16),
        "i64": numbers.integers(-9, 9, (2, 2, 2)),
        "scalar": np.array(3, np.float32),
        "empty": np.empty((0, 7), np.float32),
    }
    numpy_package.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "np"})
    read = read_safetensors(tmp_path / "model.safetensors")
    assert read.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected)


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625], np.float32)  # exact in bfloat16
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    read = read_safetensors(write_by_hand(tmp_path / "a", header, halves))
    np.testing.assert_array_equal(read["w"], values)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, r"a tensor of shape \[2\] at bytes 0 to 4 of 8"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "at bytes 0 to 16 of 8"),
        ({"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}, r"of shape \[-2, -1\]"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "F8_E4M3"),
        ({"dtype": "F32", "shape": [2]}, "data_offsets"),
        ("F32", "string indices"),
    ],
)
def test_a_tensor_that_the_file_does_not_hold(tmp_path: Path, entry: Any, message: str) -> None:
    path = write_by_hand(tmp_path / "a.safetensors", {"w": entry}, bytes(8))
    with pytest.raises(ModelFormatError, match=rf"a\.safetensors is not a readable safetensors file: .*{message}"):
        read_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 16, (2).to_bytes(8, "little") + b"[]", bytes(8)])
def test_bytes_that_are_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelFormatError, match="is not a readable safetensors file"):
        read_safetensors(tmp_path / "a")
