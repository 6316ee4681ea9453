"""The reader of ONNX files against the onnx package itself, and on files that are cut off anywhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gte_sdk.model_files.directory import bundled_model_path
from gte_sdk.runtime.native.onnx_file import read_onnx

from ..tiny_models import TABLE, table_graph


def test_nodes_and_weights_are_those_that_onnx_reads() -> None:
    path = bundled_model_path("gte-mini") / "onnx" / "model_quantized.onnx"
    expected = onnx.load(path).graph
    ours = read_onnx(path)
    assert [(node.operator, node.name, node.inputs, node.outputs) for node in ours.nodes] == [
        (node.op_type, node.name, list(node.input), list(node.output)) for node in expected.node
    ]
    assert set(ours.weights) == {tensor.name for tensor in expected.initializer}
    for tensor in expected.initializer:
        array = ours.weights[tensor.name]
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))
        assert array.dtype == numpy_helper.to_array(tensor).dtype


def test_a_file_that_is_cut_off_is_no_onnx_file(tmp_path: Path) -> None:
    whole = table_graph("last_hidden_state", ("input_ids",)).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_onnx(path).weights["table"], TABLE)
    complete = 0
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            complete += "table" in read_onnx(path).weights
        except ValueError:
            continue
    # A cut between two fields of the file itself leaves a file that is whole; behind the graph are such cuts.
    assert complete < 20
    path.write_bytes(b"not a graph")
    with pytest.raises(ValueError, match="is not an ONNX file"):
        read_onnx(path)
