"""Opening a model: which graph is chosen, what the Embedder reports, and why a model does not open."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gte_sdk import DeviceError, Embedder, InputError, ModelFormatError, _kernels
from gte_sdk.model_files.directory import bundled_model_path, read_model_dir
from gte_sdk.runtime.native.engine import ARITHMETIC

from ..tiny_models import DIM, TABLE, write_tiny_model


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


def test_properties(gte_mini: Embedder) -> None:
    assert (gte_mini.dim, gte_mini.device, gte_mini.variant) == (384, "cpu", "int8")
    assert gte_mini.max_tokens == read_model_dir(bundled_model_path("gte-mini")).max_tokens
    report = gte_mini.report()
    assert (report.engine, report.device, report.variant) == (gte_mini.engine, gte_mini.device, gte_mini.variant)
    assert report.instruction_set == _kernels.encoder_instruction_sets()[-1]
    assert str(report.graph).endswith("models/gte-mini/onnx/model_quantized.onnx")
    assert report.golden is not None
    assert (report.golden.text_count > 0, report.golden.made_by) == (True, ARITHMETIC)
    assert gte_mini.fingerprint.startswith("sha256:")
    assert gte_mini.fingerprint == Embedder("gte-mini").fingerprint


def test_the_fingerprint_is_computed_once_and_is_of_what_was_opened(tmp_path: Path) -> None:
    opened = Embedder(write_tiny_model(tmp_path))
    fingerprint = opened.fingerprint
    write_tiny_model(tmp_path, table=-TABLE)
    assert opened.fingerprint == fingerprint
    assert Embedder(tmp_path).fingerprint != fingerprint


def test_a_foreign_directory_prefers_the_unquantized_graph(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, graph_name="onnx/model_quantized.onnx")
    assert Embedder(tmp_path).variant == "int8"
    write_tiny_model(tmp_path)
    assert Embedder(tmp_path).variant == "fp32"
    assert Embedder(tmp_path, variant="int8").variant == "int8"
    with pytest.raises(InputError, match=r"variant='fp16'; .* holds \['fp32', 'int8'\]"):
        Embedder(tmp_path, variant="fp16")


def test_half_precision_on_a_processor_is_said_to_be_slow(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, graph_name="onnx/model_fp16.onnx")
    with pytest.warns(UserWarning, match=r"variant='fp16' on 'cpu': .*variant='fp32' is faster") as seen:
        model = Embedder(tmp_path)
    assert seen[0].filename == __file__
    assert (model.variant, model.device) == ("fp16", "cpu")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model='gte-maxi' is neither a bundled model \(.*gte-mini"):
        Embedder("gte-maxi")
    with pytest.raises(ModelFormatError, match="nor a directory"):
        Embedder(tmp_path / "absent")
    with pytest.raises(ModelFormatError, match=r"config\.json is missing"):
        Embedder(tmp_path)


def test_a_directory_without_a_graph(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, graph_name="onnx/other.onnx")
    with pytest.raises(ModelFormatError, match="has no ONNX graph under a known name"):
        Embedder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09"])
def test_a_damaged_graph(tmp_path: Path, content: bytes) -> None:
    write_tiny_model(tmp_path)
    (tmp_path / "onnx" / "model.onnx").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"model\.onnx"):
        Embedder(tmp_path)


def test_a_graph_with_other_inputs_or_outputs(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, inputs=("pixels",))
    with pytest.raises(ModelFormatError, match=r"has the inputs \['pixels'\] where"):
        Embedder(tmp_path)
    write_tiny_model(tmp_path, output="logits")
    with pytest.raises(ModelFormatError, match=r"has the outputs \['logits'\]; it needs sentence_embedding"):
        Embedder(tmp_path)


def test_a_pooling_that_is_not_supported(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, pooling="median")
    with pytest.raises(ModelFormatError, match="asks for pooling"):
        Embedder(tmp_path)


def test_a_vocabulary_larger_than_the_table(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, table=np.ones((4, DIM), dtype=np.float32))
    with pytest.raises(ModelFormatError, match="failed on token ids up to 4"):
        Embedder(tmp_path).embed("red")


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path)
    assert Embedder(directory, device="cpu").device == "cpu"
    with pytest.raises(InputError, match="device='tpu'; one of"):
        Embedder(directory, device="tpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert Embedder(directory).device == "cpu"
        with pytest.raises(DeviceError, match=r"device='cuda' needs CUDAExecutionProvider.*onnxruntime-gpu"):
            Embedder(directory, device="cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "threads=0; it must be at least 1"),
        ({"model": None}, "model=None is a NoneType; give a str or a Path"),
        ({"model": b"gte-nano"}, "model=b'gte-nano' is a bytes; give a str or a Path"),
        ({"model": 5}, "model=5 is a int; give a str or a Path"),
        ({"model": "a\0b"}, "has a NUL, which no file name can hold"),
        ({"prompts": ["q"]}, "prompts=['q']; it maps kinds"),
        ({"prompts": "query: "}, "prompts='query: '; it maps kinds"),
        ({"max_batch_tokens": 10**30}, "it must be at least 1 and at most 2147483647"),
        ({"threads": 1.5}, "threads=1.5 is a float"),
        ({"threads": True}, "threads=True is a bool"),
        ({"threads": np.int64(0)}, "threads=0; it must be at least 1"),
        ({"threads": np.float32(2)}, "threads=np.float32(2.0) is a float32"),
        ({"max_batch_tokens": 0}, "max_batch_tokens=0"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Embedder(**{"model": "gte-mini", **arguments})
    assert message in str(caught.value)


def test_numpys_integers_are_counts() -> None:
    assert Embedder("gte-mini", threads=np.int64(2)).report().threads == 2


def test_the_report_of_onnxruntime(tmp_path: Path) -> None:
    report = Embedder(write_tiny_model(tmp_path), threads=2).report()
    assert (report.engine, report.device, report.variant) == ("onnxruntime", "cpu", "fp32")
    assert (report.instruction_set, report.threads, report.golden) == (None, 2, None)
    assert report.graph == tmp_path / "onnx/model.onnx"


def test_special_tokens_stand_around_every_text(tmp_path: Path, gte_mini: Embedder) -> None:
    tiny = Embedder(write_tiny_model(tmp_path))
    assert tiny.special_tokens == ([2], [3])
    before, after = gte_mini.special_tokens
    empty, text = gte_mini.tokenize(["", "some words"]).ids
    assert empty == before + after
    assert text[: len(before)] == before
    assert text[-len(after) :] == after
