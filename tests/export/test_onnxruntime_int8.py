"""onnxruntime's quantizers as an option: what they write, for which processor, calibrated on what."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

import gte_sdk
from export.graphs.calibrate import measure_token_spread
from export.graphs.onnxruntime_int8 import LARGEST_SPREAD, quantize_with_onnxruntime
from export.parity.measure import PARITY_TEXTS, read_corpus
from export.to_onnx import main
from gte_sdk.runtime.tokens import pad_batch


def export(checkpoint: Path, output: Path, *options: str) -> Result:
    # A random model is no measure of a quantizer: only that the vectors are near.
    limits = ["--minimum-recall", "0", "--minimum-mean-cosine", "0.95", "--minimum-cosine", "0.8"]
    return CliRunner().invoke(main, [str(checkpoint), "--output", str(output), *limits, *options])


def report_of(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "parity.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    ("instruction_set", "file", "weights"),
    [
        ("avx2", "onnx/model_quint8_avx2.onnx", TensorProto.UINT8),
        ("vnni", "onnx/model_qint8_avx512_vnni.onnx", TensorProto.INT8),
        ("arm64", "onnx/model_qint8_arm64.onnx", TensorProto.INT8),
    ],
)
@pytest.mark.parametrize("quantization", ["dynamic", "static"])
def test_each_instruction_set(
    quantization: str, instruction_set: str, file: str, weights: int, bert_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    result = export(bert_checkpoint, output, "--quantization", quantization, "--instruction-set", instruction_set)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (output / "onnx").iterdir()) == sorted(["model.onnx", Path(file).name])
    model = onnx.load(output / file)
    assert all(len(tensor.dims) < 2 or tensor.data_type == weights for tensor in matrices(model))
    operators = {node.op_type for node in model.graph.node}
    expected = "MatMulInteger" if quantization == "dynamic" else "QuantizeLinear"
    assert expected in operators

    fp32, int8 = (
        gte_sdk.Embedder(output, variant=variant, engine="onnxruntime", truncation="ignore")
        for variant in ("fp32", "int8")
    )
    assert (int8.variant, int8.engine) == ("int8", "onnxruntime")
    golden = int8.report().golden  # of this file, not of what the native engine would make of fp32
    assert golden is not None
    assert golden.made_by.startswith("onnxruntime")
    texts = read_corpus(PARITY_TEXTS)[::25]
    cosines = np.einsum("nd,nd->n", fp32.embed(texts), int8.embed(texts))
    assert 0.9 < cosines.min() < 1 - 1e-9

    quantization_report = report_of(output)["quantization"]
    assert quantization_report["method"] == quantization
    assert len(quantization_report["quantized"]) == 12  # six products in each of two layers
    reasons = set(quantization_report["kept_in_float"].values())
    assert "a product of two activations, which have no scale that fits every text" in reasons
    assert "because" in result.output


def matrices(model: onnx.ModelProto) -> list[TensorProto]:
    """The weights of the products."""
    names = {name for node in model.graph.node for name in node.input}
    found = [tensor for tensor in model.graph.initializer if "MatMul" in tensor.name and "quantized" in tensor.name]
    assert len(found) >= 12
    return [tensor for tensor in found if tensor.name in names]


def test_calibration_on_given_texts(bert_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a first text\n\na second, of more words\n")
    (tmp_path / "mine.jsonl").write_text('{"text": "a first text"}\n{"text": "a second, of more words"}\n')
    graphs = []
    for name in ("mine.txt", "mine.jsonl"):
        output = tmp_path / name.replace(".", "-")
        result = export(
            bert_checkpoint, output, "--quantization", "static", "--calibration", str(tmp_path / name),
            "--minimum-mean-cosine", "0", "--minimum-cosine", "-1",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert report_of(output)["quantization"]["calibration"] == name
        graphs.append((output / "onnx/model_quint8_avx2.onnx").read_bytes())
    assert graphs[0] == graphs[1]
    assert export(bert_checkpoint, tmp_path / "bundled", "--quantization", "static").exit_code == 0
    assert (tmp_path / "bundled/onnx/model_quint8_avx2.onnx").read_bytes() != graphs[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.jsonl", '{"txt": "a"}', "line 1 is not"),
        ("mine.jsonl", '{"text": 3}', "text=3 is not a text"),
        ("mine.txt", "\n\n", "holds no texts"),
    ],
)
def test_calibration_texts_that_are_none(
    name: str, content: str, message: str, bert_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    result = export(bert_checkpoint, tmp_path / "model", "--calibration", str(tmp_path / name))
    assert result.exit_code == 1
    assert message in result.output
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_per_token_graph_has_no_instruction_set(bert_checkpoint: Path, tmp_path: Path) -> None:
    result = export(bert_checkpoint, tmp_path / "model", "--instruction-set", "vnni")
    assert result.exit_code == 2
    assert "the per-token graph is the same for every CPU" in result.output


def uneven_graph(path: Path, largest: float) -> None:
    """Two products: of rows with one value each, and of the same rows where token 7 is `largest` times as large."""
    random = np.random.default_rng(0)
    table = np.sign(random.normal(size=(32, 16))).astype(np.float32)
    uneven = table.copy()
    uneven[7] *= largest
    constants = {"even_rows": table, "uneven_rows": uneven, "matrix": random.normal(size=(16, 4)).astype(np.float32)}
    nodes = []
    for kind in ("even", "uneven"):
        nodes.append(helper.make_node("Gather", [f"{kind}_rows", "input_ids"], [kind], name=f"{kind}_table"))
        nodes.append(helper.make_node("MatMul", [kind, "matrix"], [f"{kind}_out"], name=f"{kind}_product"))
    graph = helper.make_graph(
        nodes,
        "uneven",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, ["n", "t", 4]) for kind in ("even", "uneven")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def test_a_product_of_uneven_tokens_stays_in_float(tmp_path: Path) -> None:
    largest = 3 * LARGEST_SPREAD
    uneven_graph(tmp_path / "fp32.onnx", largest)
    batches = [pad_batch([[1, 2, 3, 7], [4, 5]])]
    assert measure_token_spread(tmp_path / "fp32.onnx", ["even", "uneven"], batches) == {"even": 1, "uneven": largest}
    summary = quantize_with_onnxruntime(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", "avx2", batches)
    assert summary.quantized == ["even_product"]
    assert summary.kept_in_float == {
        "even_table": "a table of 32 rows is added to every token",
        "uneven_table": "a table of 32 rows is added to every token",
        "uneven_product": f"the largest token of its input is {largest:.0f} times the median one",
    }
    without_7 = [pad_batch([[1, 2, 3], [4, 5]])]
    summary = quantize_with_onnxruntime(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", "avx2", without_7)
    assert summary.quantized == ["even_product", "uneven_product"]
