"""What published directories say in files that few of them have: each field against a vector computed by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gte_sdk import Embedder, InputError, ModelFormatError
from gte_sdk.model_files.published import read_prompts, read_width

from ..tiny_models import DIM, TABLE, WORDS, table_graph, tiny_tokenizer, tiny_vector, write_json, write_tiny_model

NUMBERS = np.random.default_rng(3)


def write_modules(path: Path, *modules: tuple[str, str]) -> None:
    write_json(
        path / "modules.json", [{"type": f"sentence_transformers.models.{kind}", "path": at} for kind, at in modules]
    )


def write_safetensors(path: Path, **tensors: NDArray[np.float32]) -> None:
    """By hand, as the package is not among what gte_sdk needs."""
    header: dict[str, Any] = {}
    values = b""
    for name, tensor in tensors.items():
        end = len(values) + tensor.nbytes
        header[name.replace("__", ".")] = {
            "dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(values), end],
        }  # fmt: skip
        values += np.ascontiguousarray(tensor, np.float32).tobytes()
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + values)


def write_dense(
    path: Path, inside: int, outside: int, activation: str, bias: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    path.mkdir(parents=True)
    config = {"in_features": inside, "out_features": outside, "bias": bias, "activation_function": activation}
    write_json(path / "config.json", config)
    weights = NUMBERS.standard_normal((outside, inside)).astype(np.float32)
    shift = NUMBERS.standard_normal(outside).astype(np.float32) if bias else np.zeros(outside, np.float32)
    write_safetensors(path / "model.safetensors", linear__weight=weights, **({"linear__bias": shift} if bias else {}))
    return weights, shift


def test_pooling_under_another_number(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, pooling="mean")
    (tmp_path / "2_Pooling").mkdir()
    write_json(tmp_path / "2_Pooling" / "config.json", {"pooling_mode": "cls"})
    write_modules(tmp_path, ("Transformer", ""), ("Dropout", "1_Dropout"), ("Pooling", "2_Pooling"))
    np.testing.assert_allclose(Embedder(tmp_path).embed("red green"), tiny_vector("red green", "cls"), atol=1e-6)


@pytest.mark.parametrize("folder", ["../1_Pooling", "/1_Pooling", "..\\1_Pooling", "x" * 300])
def test_a_module_outside_of_the_directory(tmp_path: Path, folder: str) -> None:
    write_tiny_model(tmp_path)
    write_modules(tmp_path, ("Transformer", ""), ("Pooling", folder))
    with pytest.raises(ModelFormatError, match="which is not inside the model directory"):
        Embedder(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt_len_tokens"])
def test_dense_layers_behind_the_pooling(tmp_path: Path, pooling: str) -> None:
    write_tiny_model(tmp_path, pooling=pooling)
    tanh, identity = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
    wide, shift = write_dense(tmp_path / "2_Dense", DIM, 7, tanh, bias=True)
    narrow, _ = write_dense(tmp_path / "3_Dense", 7, 3, identity, bias=False)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")]
    write_modules(tmp_path, *modules, ("Normalize", "4_Normalize"))
    model = Embedder(tmp_path)
    texts = ["red green", "blue", ""]
    for text, vector in zip(texts, model.embed(texts), strict=True):
        rows = TABLE[[2, *map(WORDS.index, text.split()), 3]].astype(np.float64)
        pooled = {
            "mean": rows.mean(axis=0), "cls": rows[0], "max": rows.max(axis=0),
            "mean_sqrt_len_tokens": rows.sum(axis=0) / len(rows) ** 0.5,
        }[pooling]  # fmt: skip
        expected = narrow @ np.tanh(wide @ pooled + shift)
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5, err_msg=text)
    assert model.dim == 3
    fingerprint = model.fingerprint
    write_safetensors(tmp_path / "3_Dense" / "model.safetensors", linear__weight=narrow * 2)
    assert Embedder(tmp_path).fingerprint != fingerprint


def test_dense_layers_that_cannot_be_computed(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    write_modules(tmp_path, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    write_dense(tmp_path / "2_Dense", DIM, 3, "torch.nn.modules.activation.GELU", bias=True)
    with pytest.raises(ModelFormatError, match="has a module Dense in '2_Dense' that gte-sdk cannot compute"):
        Embedder(tmp_path)
    write_json(
        tmp_path / "2_Dense" / "config.json",
        {"in_features": DIM, "out_features": 4, "activation_function": "torch.nn.modules.linear.Identity"},
    )
    with pytest.raises(ModelFormatError, match=r"has a layer of shape \(\(3, 5\), \(3,\)\), but its config\.json"):
        Embedder(tmp_path)
    # With all of it inside, the graph's own output counts.
    onnx.save(table_graph("sentence_embedding", ("input_ids", "attention_mask")), str(tmp_path / "onnx" / "model.onnx"))
    (tmp_path / "2_Dense" / "config.json").unlink()
    np.testing.assert_allclose(Embedder(tmp_path).embed("red"), tiny_vector("red", "sum"), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompts": {"search_query": "a: ", "search_document": "b: "}}, {"query": "a: ", "document": "b: "}),
        ({"prompts": {"query": "a: ", "search_query": "c: ", "corpus": "b: "}}, {"query": "a: ", "document": "b: "}),
        ({"prompts": {"task": "t: "}, "default_prompt_name": "task"}, {"plain": "t: ", "task": "t: "}),
        ({"prompts": {}, "default_prompt_name": None}, {}),
        ({"__version__": {}}, {}),
    ],
)
def test_the_kinds_of_prompts(tmp_path: Path, fields: dict[str, Any], expected: dict[str, str]) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", fields)
    prompts = read_prompts(tmp_path)
    assert {kind: prompts[kind] for kind in expected} == expected
    assert set(prompts) - set(expected) <= set(fields.get("prompts", {}))


def test_a_default_prompt_goes_before_texts_of_no_kind(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    prompts = {"prompts": {"task": "query : ", "document": "document : "}, "default_prompt_name": "task"}
    write_json(tmp_path / "config_sentence_transformers.json", prompts)
    model = Embedder(tmp_path)
    prompted, plain = tiny_vector("query : red"), tiny_vector("red")
    for vector in (model.embed("red"), model.embed(["red"])[0], next(model.embed_iter(["red"])), model.encode("red")):
        np.testing.assert_allclose(vector, prompted, atol=1e-6)
    np.testing.assert_allclose(model.embed_chunks("red")[0].vector, prompted, atol=1e-6)
    np.testing.assert_allclose(model.embed_query("red"), plain, atol=1e-6)
    np.testing.assert_allclose(model.encode_query("red"), plain, atol=1e-6)
    np.testing.assert_allclose(model.embed_documents("red"), tiny_vector("document : red"), atol=1e-6)
    np.testing.assert_allclose(model.encode("red", prompt=""), plain, atol=1e-6)
    np.testing.assert_allclose(Embedder(tmp_path, prompts={"plain": ""}).embed("red"), plain, atol=1e-6)
    names: list[object] = ["task", {}, ["task"], 1]
    for name in names:
        write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": name})
        with pytest.raises(ModelFormatError, match=r"has default_prompt_name=.* and no prompt of that name"):
            Embedder(tmp_path)


def test_lower_case_before_a_tokenizer_that_keeps_case(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    assert not np.allclose(Embedder(tmp_path).embed("RED Green"), tiny_vector("red green"), atol=1e-3)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": True})
    np.testing.assert_allclose(Embedder(tmp_path).embed("RED Green"), tiny_vector("red green"), atol=1e-6)
    many = Embedder(tmp_path).embed(["RED Green"] * 40)
    np.testing.assert_allclose(many[-1], tiny_vector("red green"), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"hidden_size": 5}, 5),
        ({"dim": 5, "hidden_dim": 20}, 5),
        ({"n_embd": 5}, 5),
        ({"d_model": 5, "d_ff": 20}, 5),
        ({"hidden_dim": 5}, 5),
        ({"text_config": {"hidden_size": 5}}, 5),
        ({}, None),
    ],
)
def test_the_width_by_its_other_names_or_from_the_graph(tmp_path: Path, config: dict[str, Any], width: int) -> None:
    write_tiny_model(tmp_path)
    write_json(tmp_path / "config.json", {**config, "max_position_embeddings": 32})
    assert read_width(tmp_path) == width
    model = Embedder(tmp_path)
    assert model.dim == 5
    np.testing.assert_allclose(model.embed("red"), tiny_vector("red"), atol=1e-6)


def test_a_graph_that_does_not_say_its_width(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    write_json(tmp_path / "config.json", {"max_position_embeddings": 32, "hidden_size": 9})
    graph = onnx.load(str(tmp_path / "onnx" / "model.onnx"))
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "width"
    onnx.save(graph, str(tmp_path / "onnx" / "model.onnx"))
    assert Embedder(tmp_path).embed("red").shape == (5,)


def decoder_graph(*, cache: bool) -> Any:
    """Token rows plus their positions, which a decoder's graph takes, with the inputs of an empty cache."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")
    ]
    inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["n", "t"]))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["position_ids"], ["positions"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["positions", "axis"], ["column"]),
        helper.make_node("Add", ["rows", "column"], ["states"]),
    ]
    if cache:
        shape: list[str | int] = ["n", 2, "earlier", 3]
        inputs += [
            helper.make_tensor_value_info(f"past_key_values.0.{kind}", TensorProto.FLOAT, shape)
            for kind in ("key", "value")
        ]
        nodes += [
            helper.make_node("ReduceSum", ["past_key_values.0.key"], ["nothing"], keepdims=0),  # 0 of an empty cache
            helper.make_node("Add", ["states", "nothing"], ["last_hidden_state"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["states"], ["last_hidden_state"]))
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", DIM])]
    weights = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([2]), "axis")]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("cache", [False, True])
def test_a_decoder_with_positions_and_an_empty_cache(tmp_path: Path, cache: bool) -> None:
    write_tiny_model(tmp_path, pooling="lasttoken")
    onnx.save(decoder_graph(cache=cache), str(tmp_path / "onnx" / "model.onnx"))
    texts = ["red green blue", "red", ""]
    for text, vector in zip(texts, Embedder(tmp_path).embed(texts), strict=True):
        expected = TABLE[3].astype(np.float64) + len(text.split()) + 1
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6, err_msg=text)


def test_a_pooling_that_the_graph_cannot_have(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, output="sentence_embedding")
    with pytest.raises(InputError, match=r"pooling='cls'; .* gives no token states to pool: leave pooling out"):
        Embedder(tmp_path, pooling="cls")
    with pytest.raises(InputError, match="pooling='median'; one of"):
        Embedder(tmp_path, pooling="median")
    with pytest.raises(InputError, match="it maps kinds such as 'query' and 'document' to texts"):
        Embedder(tmp_path, prompts={"query": 1})  # type: ignore[dict-item]
    np.testing.assert_allclose(Embedder(tmp_path, pooling="graph").embed("red"), tiny_vector("red", "sum"), atol=1e-6)
    write_tiny_model(tmp_path)
    with pytest.raises(ModelFormatError, match="no output sentence_embedding, and pooling='graph' asks for it"):
        Embedder(tmp_path, pooling="graph")
    with pytest.raises(InputError, match=r"pooling='cls'; .*gte\.json records 'mean', and the graph contains it"):
        Embedder("gte-mini", pooling="cls")
    assert Embedder("gte-mini", pooling="mean", prompts={"query": "q: "}).prompt_for("query") == "q: "


@pytest.mark.parametrize("layout", ["sentence-transformers", "model2vec", "model2vec without modules", "shared rows"])
def test_static_models(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "0_StaticEmbedding" if layout == "sentence-transformers" else tmp_path
    folder.mkdir(exist_ok=True)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    weights, mapping = NUMBERS.uniform(0.5, 1, len(WORDS)).astype(np.float32), np.arange(len(WORDS))
    if layout == "sentence-transformers":
        write_safetensors(folder / "model.safetensors", embedding__weight=TABLE)
        write_modules(tmp_path, ("StaticEmbedding", "0_StaticEmbedding"), ("Normalize", "1_Normalize"))
    else:
        write_json(folder / "config.json", {"model_type": "model2vec", "hidden_dim": DIM})
        write_safetensors(folder / "model.safetensors", embeddings=TABLE)
    if layout == "model2vec":
        write_modules(tmp_path, ("StaticEmbedding", "."))
    rows = TABLE.astype(np.float64)
    if layout == "shared rows":
        # Of int64 rows by hand: every second word shares the row of the one before.
        mapping = mapping // 2 * 2
        rows = rows[mapping] * weights[:, None]
        safetensors = pytest.importorskip("safetensors.numpy")
        tensors = {"embeddings": TABLE, "mapping": mapping.astype(np.int64), "weights": weights}
        safetensors.save_file(tensors, folder / "model.safetensors")
    model = Embedder(tmp_path)
    texts = ["red green", "blue nowhere blue", "", *["slow"] * 40]
    for text, vector in zip(texts, model.embed(texts), strict=True):
        ids = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
        expected = rows[ids].mean(axis=0) if ids else np.zeros(DIM)
        length = float(np.linalg.norm(expected)) or 1.0
        np.testing.assert_allclose(vector, expected / length, atol=1e-6, err_msg=text)
    assert (model.dim, model.special_tokens.before, model.variant, model.device) == (DIM, [], "fp32", "cpu")
    with pytest.raises(InputError, match="is a table without a graph: leave engine='auto'"):
        Embedder(tmp_path, engine="onnxruntime")
    with pytest.raises(InputError, match="is a table of token vectors, of which the mean is taken"):
        Embedder(tmp_path, pooling="cls")
