"""What is read of an ONNX file before it is opened, against the onnx package that writes it."""

from pathlib import Path

import onnx
import pytest

from gte_sdk.model_files.graph_file import GraphNames, external_locations, graph_names

from ..tiny_models import table_graph


def test_names_of_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    onnx.save(table_graph("last_hidden_state", inputs), str(tmp_path / "a.onnx"))
    assert graph_names(tmp_path / "a.onnx") == GraphNames(list(inputs), ["last_hidden_state"])


def test_weights_outside_of_the_graph_by_the_names_in_it(tmp_path: Path) -> None:
    graph = table_graph("last_hidden_state", ("input_ids",))
    onnx.save(graph, str(tmp_path / "whole.onnx"))
    assert external_locations(tmp_path / "whole.onnx") == []
    onnx.save(
        graph, str(tmp_path / "a.onnx"), save_as_external_data=True, location="Constant_7_attr__value",
        size_threshold=0,
    )  # fmt: skip
    assert set(external_locations(tmp_path / "a.onnx")) == {"Constant_7_attr__value"}
    assert graph_names(tmp_path / "a.onnx").outputs == ["last_hidden_state"]


@pytest.mark.parametrize("content", [b"\xff", b"\x3a\x05\x0a", b"\x3a\x02\x5a\x7f"])
def test_bytes_that_are_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.onnx is not an ONNX file"):
        graph_names(tmp_path / "a.onnx")


def test_an_empty_file_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    assert graph_names(tmp_path / "a.onnx") == GraphNames([], [])
    assert external_locations(tmp_path / "a.onnx") == []
