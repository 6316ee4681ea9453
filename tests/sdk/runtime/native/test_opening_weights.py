"""Models of the family from their weights: what opens natively, from which file, and why something does not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError, ModelFormatError
from gte_sdk.model_files.bundle import write_bundle
from gte_sdk.model_files.contents import files_to_bundle
from gte_sdk.model_files.directory import read_model_dir

from ...run_python import run_python
from ...tiny_models import write_tiny_model
from .look_alikes import CONFIGURATIONS, random_tensors, random_texts, write_look_alike, write_safetensors

TEXTS = random_texts([2, 3, 20, 90])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_directory_with_weights_alone_opens_natively(name: str, tmp_path: Path) -> None:
    embedder = Embedder(write_look_alike(tmp_path, name), threads=1)
    assert (embedder.engine, embedder.variant, embedder.max_tokens) == ("native", "fp32", 512)
    assert embedder.report().graph == tmp_path / "model.safetensors"
    assert embedder.report().why_not_native is None
    vectors = embedder.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors @ vectors.T - np.eye(4)).max() < 0.999  # texts are told apart


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_weights_of_half_the_width_are_read_as_they_are(dtype: str, tmp_path: Path) -> None:
    half = Embedder(write_look_alike(tmp_path / "half", dtype=dtype))
    config = CONFIGURATIONS["bert"]
    rounded = {
        name: (
            array.astype(np.float16).astype(np.float32)
            if dtype == "F16"
            else (array.view(np.uint32) >> 16 << 16).view(np.float32)
        )
        for name, array in random_tensors(config).items()
    }
    write_look_alike(tmp_path / "whole")
    write_safetensors(tmp_path / "whole" / "model.safetensors", rounded)
    np.testing.assert_array_equal(half.embed(TEXTS), Embedder(tmp_path / "whole").embed(TEXTS))


def test_weights_in_several_files_and_under_old_names(tmp_path: Path) -> None:
    expected = Embedder(write_look_alike(tmp_path / "one")).embed(TEXTS)
    divided = write_look_alike(tmp_path / "divided")
    tensors = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in random_tensors(CONFIGURATIONS["bert"]).items()
    }
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        write_safetensors(divided / file, {name: tensors[name] for name in tensors if files[name] == file})
    (divided / "model.safetensors").unlink()
    index = divided / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    embedder = Embedder(divided)
    assert embedder.report().graph == index
    np.testing.assert_array_equal(embedder.embed(TEXTS), expected)
    with pytest.raises(InputError, match="weights in several files cannot be bundled"):
        files_to_bundle(read_model_dir(divided), ())
    for outside in ("../one/model.safetensors", "/etc/passwd", "", "missing.safetensors", 3):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(files, outside)}))
        with pytest.raises(ModelFormatError, match=r"not inside the model directory|is missing|no weight_map"):
            Embedder(divided)


def test_a_bundle_has_the_weights_and_gives_the_same_bits(tmp_path: Path) -> None:
    model = write_look_alike(tmp_path / "model", "mpnet")
    with (tmp_path / "model.gte").open("wb") as file:
        write_bundle(file, files_to_bundle(read_model_dir(model), ("fp32",)))
    np.testing.assert_array_equal(Embedder(tmp_path / "model.gte").embed(TEXTS), Embedder(model).embed(TEXTS))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {"model_type": "qwen2"}, r"model_type='qwen2'; one of bert, roberta, .* is known"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
    ("bert", {"auto_map": {"AutoModel": "modeling.JinaBertModel"}}, "auto_map="),
    ("bert", {"is_decoder": True}, "is_decoder=True"),
    ("bert", {"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'; one of gelu, "),
    ("bert", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config="),
    ("bert", {"layer_norm_eps": 1}, "layer_norm_eps=1.0, which must be below 1"),
    ("bert", {"num_attention_heads": 5}, "5 heads in a width of 64"),
    ("modernbert", {"num_attention_heads": 64}, "rotary positions need heads of an even width, and they have 1"),
    ("bert", {"num_attention_heads": "4"}, "num_attention_heads='4' where a whole number from 1 belongs"),
    ("bert", {"num_hidden_layers": 3}, r"has no parameter encoder\.layer\.2\.attention\.self\.query\.weight"),
    ("bert", {"intermediate_size": 96}, r"has the shape \(128, 64\) where config.json says \(96, 64\)"),
    ("roberta", {"pad_token_id": None}, "pad_token_id=None"),
    ("modernbert", {"layer_types": ["chunked_attention"] * 4}, "layer_types="),
    ("modernbert", {"local_attention": 1}, "local_attention=1"),
    ("gte", {"rope_parameters": 5}, "rope_parameters=5, which must be an object"),
    ("gte", {"rope_scaling": ["x"], "rope_parameters": None}, "rope_scaling=.'x'., which must be an object"),
    ("modernbert", {"rope_parameters": {"full_attention": 5}}, "full_attention=5, which must be an object"),
    ("modernbert", {"rope_scaling": "x"}, "rope_scaling='x', which must be an object"),
    ("modernbert", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rotary positions of type 'yarn'"),
    ("gte", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rotary positions of type 'dynamic'"),
    ("modernbert", {"sliding_window": 3}, "sliding_window=3"),
    ("modernbert", {"head_dim": 8}, "head_dim=8 for 4 heads in a width of 64"),
    ("gte", {"rope_parameters": {"partial_rotary_factor": 0.5}}, r"partial_rotary_factor=0\.5"),
    ("modernbert", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5"),
    ("new", {"layer_norm_type": "rms_norm"}, "layer_norm_type='rms_norm'"),
    ("new", {"logn_attention_scale": True}, "logn_attention_scale=True"),
]


@pytest.mark.parametrize(("name", "change", "reason"), REFUSED)
def test_what_is_not_known_is_refused_with_the_reason(
    name: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write_look_alike(tmp_path, name, model_type=CONFIGURATIONS[name]["model_type"])
    config = {**CONFIGURATIONS[name], **change}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"engine='native' cannot run .*model\.safetensors .*{reason}"):
        Embedder(path, engine="native")
    with pytest.raises(ModelFormatError, match=rf"the native engine does not run it: .*{reason}.*export the"):
        Embedder(path)


ROTARY = [name for name, config in CONFIGURATIONS.items() if config["model_type"] in ("modernbert", "gte", "new")]


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("name", ROTARY)
def test_rotary_positions_go_as_far_as_the_model_reads(
    name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its int8 weights were made, and kept, by an Embedder that reads less."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = random_texts([700])[0]
    longer = write_look_alike(tmp_path / "longer", name, max_position_embeddings=1000)
    expected = Embedder(longer, variant=variant).embed(text)
    path = write_look_alike(tmp_path / "model", name)
    Embedder(path, variant=variant).close()
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 900}))
    for _ in range(2):  # int8: from the cache, if it was not before
        embedder = Embedder(path, variant=variant, truncation="error")
        assert (embedder.engine, embedder.max_tokens) == ("native", 900)
        np.testing.assert_array_equal(embedder.embed(text), expected)


def test_a_table_of_positions_ends_where_it_ends(tmp_path: Path) -> None:
    path = write_look_alike(tmp_path, "mpnet")
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 900}))
    embedder = Embedder(path, truncation="ignore")
    assert embedder.max_tokens == 512
    assert np.isfinite(embedder.embed(random_texts([700]))).all()


def test_poolings_that_the_encoder_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its pooling is 'max'; mean, "):
        Embedder(write_look_alike(tmp_path / "max", pooling="max"), engine="native")
    same = Embedder(write_look_alike(tmp_path / "sqrt", pooling="mean_sqrt_len_tokens")).embed(TEXTS)
    np.testing.assert_array_equal(same, Embedder(write_look_alike(tmp_path / "mean")).embed(TEXTS))


def test_a_graph_that_is_not_of_the_family_runs_on_onnxruntime_and_the_report_says_why(tmp_path: Path) -> None:
    report = Embedder(write_tiny_model(tmp_path)).report()
    assert report.engine == "onnxruntime"
    assert "onnx/model.onnx: config.json has model_type='albert'; one of bert, " in str(report.why_not_native)
    assert Embedder(tmp_path, engine="onnxruntime").report().why_not_native is None


def test_weights_alone_do_not_run_on_onnxruntime(tmp_path: Path) -> None:
    path = write_look_alike(tmp_path)
    with pytest.raises(ModelFormatError, match=r"model\.safetensors is not a graph that onnxruntime runs"):
        Embedder(path, engine="onnxruntime")
    with pytest.raises(InputError, match=r"variant='fp16'; .* holds \['fp32'\]"):
        Embedder(path, variant="fp16")


def test_damaged_weights_are_an_error_with_the_path(tmp_path: Path) -> None:
    path = write_look_alike(tmp_path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match=r"model\.safetensors is not a readable safetensors file"):
        Embedder(path)


def test_neither_onnxruntime_nor_torch_is_imported(tmp_path: Path) -> None:
    write_look_alike(tmp_path, "modernbert")
    program = f"""
import sys
sys.modules["onnxruntime"] = sys.modules["torch"] = sys.modules["transformers"] = None
import gte_sdk
print(gte_sdk.Embedder({str(tmp_path)!r}).embed(["w8 w9"]).shape)
"""
    assert run_python(program) == "(1, 64)\n"


def test_the_file_may_go_once_it_is_open(tmp_path: Path) -> None:
    path = write_look_alike(tmp_path)
    embedder = Embedder(path)
    expected = embedder.embed(TEXTS)
    shutil.move(path / "model.safetensors", tmp_path / "elsewhere")
    np.testing.assert_array_equal(embedder.embed(TEXTS), expected)
