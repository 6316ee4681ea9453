"""int8 arithmetic, held to references: float, other batches, and a CPU that saturates."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graphs.calibrate import measure_channel_maxima
from export.graphs.quantize import MINIMUM_TABLE_ROWS, quantize
from gte_sdk.runtime.tokens import TokenBatch, pad_batch

WIDTH, HIDDEN, OUT, TABLE_ROWS = 16, 24, 8, MINIMUM_TABLE_ROWS
Floats = NDArray[np.float32]


def tiny_graph(path: Path, seed: int = 0) -> None:
    """Look-up, MatMul, GELU, MatMul: one node of every kind that is quantized."""
    random = np.random.default_rng(seed)
    table = random.normal(size=(TABLE_ROWS, WIDTH)).astype(np.float32)
    table[:, 3] *= 20  # an outlier channel, as transformers have them
    first = random.normal(size=(WIDTH, HIDDEN)).astype(np.float32)
    second = random.normal(size=(HIDDEN, OUT)).astype(np.float32)
    constants = {"table": table, "first": first, "second": second}
    scalars = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="gather"),
        helper.make_node("MatMul", ["embedded", "first"], ["x"], name="first_matmul"),
        helper.make_node("Div", ["x", "root"], ["divided"]),
        helper.make_node("Erf", ["divided"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["plus_one"]),
        helper.make_node("Mul", ["x", "plus_one"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["gelu"]),
        helper.make_node("MatMul", ["gelu", "second"], ["y"], name="second_matmul"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", OUT])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, **scalars}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def run(path: Path, input_ids: NDArray[np.int64]) -> Floats:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(["y"], {"input_ids": input_ids})
    assert isinstance(output, np.ndarray)
    return output


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("quantize")
    tiny_graph(folder / "fp32.onnx")
    quantize(folder / "fp32.onnx", folder / "int8.onnx", calibration())
    return folder / "fp32.onnx", folder / "int8.onnx"


def calibration() -> list[TokenBatch]:
    random = np.random.default_rng(1)
    return [pad_batch(random.integers(0, TABLE_ROWS, size=(8, 12)).tolist()) for _ in range(4)]


def test_close_to_float_in_spite_of_an_outlier_channel(graphs: tuple[Path, Path]) -> None:
    input_ids = np.arange(TABLE_ROWS, dtype=np.int64).reshape(32, -1)
    exact, rounded = (run(path, input_ids) for path in graphs)
    error = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < error < 0.02


def test_what_was_quantized(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    summary = quantize(graphs[0], tmp_path / "again.onnx", calibration())
    assert summary.quantized == ["gather", "first_matmul", "second_matmul"]
    assert summary.kept_in_float == {}
    model = onnx.load(graphs[1])
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {kinds[f"{name}/int8"] for name in ("table", "first", "second")} == {TensorProto.INT8}
    assert not {"table", "first", "second"} & set(kinds)
    # The second one's input is a GELU: its lowest value is known, and all 256 steps are used.
    assert "second/undo_shift" in kinds
    assert "first/undo_shift" not in kinds
    assert {node.domain for node in model.graph.node} == {""}
    assert (tmp_path / "again.onnx").read_bytes() == graphs[1].read_bytes()


def test_a_small_table_stays_float(tmp_path: Path) -> None:
    tiny_graph(tmp_path / "fp32.onnx")
    model = onnx.load(tmp_path / "fp32.onnx")
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:100].copy(), "table"))
    onnx.save(model, tmp_path / "fp32.onnx")
    batches = [pad_batch([[1, 2, 3], [4, 5, 99]])]
    summary = quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", batches)
    assert summary.kept_in_float == {"gather": "a table of 100 rows is added to every token"}


def test_a_row_does_not_depend_on_its_batch(graphs: tuple[Path, Path]) -> None:
    random = np.random.default_rng(5)
    input_ids = random.integers(0, TABLE_ROWS, size=(40, 9))
    together = run(graphs[1], input_ids)
    alone = np.concatenate([run(graphs[1], input_ids[row : row + 1]) for row in range(len(input_ids))])
    assert np.array_equal(together, alone)


def test_a_row_of_zeros_is_zeros(tmp_path: Path) -> None:
    tiny_graph(tmp_path / "fp32.onnx")
    model = onnx.load(tmp_path / "fp32.onnx")
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "table"]
    values = numpy_helper.to_array(table).copy()
    values[7] = 0
    table.CopyFrom(numpy_helper.from_array(values, "table"))
    onnx.save(model, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", calibration())
    output = run(tmp_path / "int8.onnx", np.array([[7]], dtype=np.int64))
    assert np.abs(output).max() < 1e-2
    assert np.isfinite(output).all()


def test_padding_takes_no_part_in_calibration(graphs: tuple[Path, Path]) -> None:
    rows = [[3, 4, 5], [6]]
    (maxima,) = measure_channel_maxima(graphs[0], ["embedded"], [pad_batch(rows, pad_id=900)]).values()
    model = onnx.load(graphs[0])
    (table,) = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "table"]
    assert np.array_equal(maxima, np.abs(table[[3, 4, 5, 6]]).max(axis=0))
