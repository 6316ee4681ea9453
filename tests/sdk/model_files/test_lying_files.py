"""Files of a model that are not what they say: each is refused with its path before anything of it is used."""

import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.cli.commands import gte
from gte_sdk.model_files.bundle import write_bundle
from gte_sdk.model_files.directory import bundled_model_path, read_model_dir, write_gte_json
from gte_sdk.model_files.published import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES
from gte_sdk.runtime.native.onnx_file import read_onnx
from gte_sdk.runtime.native.safetensors_file import map_safetensors

from ..tiny_models import DIM, TABLE, WORDS, write_json, write_tiny_model

MODULES = [{"type": "sentence_transformers.models.Transformer", "path": ""}]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def describe(path: Path) -> Path:
    write_gte_json(
        path, name="tiny", dim=DIM, max_tokens=32, pooling="mean", prompts={}, fingerprint="sha256:" + "0" * 64,
        licence="MIT", provenance={},
    )  # fmt: skip
    return path


def with_external_data(path: Path, location: str) -> Path:
    """A tiny model whose table is in another file, which is not written."""
    graph = onnx.load(str(write_tiny_model(path) / "onnx/model.onnx"))
    (table,) = [tensor for tensor in graph.graph.initializer if tensor.name == "table"]
    table.ClearField("raw_data")
    table.data_location = onnx.TensorProto.EXTERNAL
    table.external_data.add(key="location", value=location)
    table.external_data.add(key="length", value=str(TABLE.nbytes))
    (path / "onnx/model.onnx").write_bytes(graph.SerializeToString())
    return path


# --- hashes


@pytest.mark.parametrize("name", ["modules.json", "onnx/model.onnx_data", "tokenizer.json", "onnx/model.onnx"])
def test_every_file_that_is_read_has_its_recorded_hash(tmp_path: Path, name: str) -> None:
    path = with_external_data(tmp_path, "model.onnx_data")
    (path / "onnx/model.onnx_data").write_bytes(TABLE.tobytes())
    write_json(path / "modules.json", MODULES)
    assert Embedder(describe(path)).embed("red").shape == (DIM,)
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(ModelFormatError, match=rf"{name} has SHA-256 .* where gte\.json records"):
        Embedder(path)


@pytest.mark.parametrize(("name", "content"), [("modules.json", MODULES)])
def test_a_file_beside_the_recorded_ones_is_not_read(tmp_path: Path, name: str, content: Any) -> None:
    path = describe(write_tiny_model(tmp_path))
    write_json(path / name, content)
    with pytest.raises(ModelFormatError, match=rf"{name} is not recorded in gte\.json"):
        Embedder(path)


def test_the_native_engine_reads_a_config_with_its_recorded_hash_only(tmp_path: Path) -> None:
    path = shutil.copytree(bundled_model_path("gte-nano"), tmp_path / "nano")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    write_json(path / "config.json", {**config, "layer_norm_eps": 0.5})
    with pytest.raises(ModelFormatError, match=r"config\.json has .* where gte\.json records"):
        Embedder(path)


# --- weights outside of the graph


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../../in.bin", "../tokenizer.json", "a/../../in.bin", "a\\in.bin", "x" * 300]
)
def test_weights_lie_inside_of_the_directory(tmp_path: Path, location: str) -> None:
    (tmp_path / "in.bin").write_bytes(TABLE.tobytes())
    with pytest.raises(ModelFormatError, match="is not inside the model directory"):
        Embedder(with_external_data(tmp_path / "model", location))


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"onnx/absent\.bin is missing"):
        Embedder(with_external_data(tmp_path, "absent.bin"))


@pytest.mark.parametrize("location", ["in.bin", "./in.bin"])
def test_a_bundle_reads_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    path = with_external_data(tmp_path / "model", location)
    (tmp_path / "in.bin").write_bytes(TABLE.tobytes())
    monkeypatch.chdir(tmp_path)
    names = [each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()]
    with (tmp_path / "app.gte").open("wb") as file:
        write_bundle(file, {name: path / name for name in names})
    with pytest.raises(ModelFormatError, match=r"app\.gte/onnx/in\.bin is missing"):
        Embedder(tmp_path / "app.gte")
    with pytest.raises(ModelFormatError, match=r"has weights outside of it, in '.*in\.bin'"):
        Embedder(tmp_path / "app.gte", engine="onnxruntime")


# --- bundles


def damaged_directory(content: bytes) -> bytes:
    start = content.index(b"PK\1\2")
    return content[:start] + content[start:].replace(b"config.json", b"../evil.cfg", 1)


def wrong_checksum(content: bytes) -> bytes:
    place = content.index(b"PK\3\4", 30) + 14
    return content[:place] + b"\xde\xad\xbe\xef" + content[place + 4 :]


def no_directory(content: bytes) -> bytes:
    start = content.index(b"PK\1\2")
    return content[:start] + bytes(len(content) - start)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged_directory, "has a wrong ZIP directory, so ZIP tools unpack something else"),
        (no_directory, "has a wrong ZIP directory"),
        (wrong_checksum, "has a wrong ZIP header"),
    ],
)
def test_verify_reads_what_zip_tools_read(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    whole = tmp_path / "whole.gte"
    assert run("bundle", describe(write_tiny_model(tmp_path / "model")), whole).exit_code == 0
    assert run("verify", whole).exit_code == 0
    assert zipfile.ZipFile(whole).testzip() is None
    (tmp_path / "damaged.gte").write_bytes(damage(whole.read_bytes()))
    result = run("verify", tmp_path / "damaged.gte")
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_link_out_of_the_directory_is_not_bundled(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model")
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    (path / "NOTICE.txt").symlink_to(tmp_path / "secret.txt")
    result = run("bundle", path, tmp_path / "app.gte")
    assert result.exit_code == 1
    assert "NOTICE.txt links to" in result.stderr
    assert not (tmp_path / "app.gte").exists()


def test_links_inside_the_directory_and_to_the_hubs_blobs_are_bundled(tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--tiny"
    snapshot = write_tiny_model(repository / "snapshots" / ("0" * 40))
    (repository / "blobs").mkdir()
    for name in ("config.json", "onnx/model.onnx"):
        blob = repository / "blobs" / name.replace("/", "-")
        (snapshot / name).rename(blob)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    (snapshot / "NOTICE").symlink_to("config.json")
    assert run("bundle", snapshot, tmp_path / "app.gte").exit_code == 0
    np.testing.assert_array_equal(Embedder(tmp_path / "app.gte").embed("red"), Embedder(snapshot).embed("red"))


# --- numbers


WAYS: dict[str, Callable[[Embedder], Any]] = {
    "embed": lambda model: model.embed(["red", "green"]),
    "one": lambda model: model.embed_query("red"),
    "iter": lambda model: list(model.embed_iter(["red"])),
    "tokens": lambda model: model.embed_tokens([[4, 5]]),
    "chunks": lambda model: model.embed_chunks("red green blue " * 20, max_tokens=6),
    "late": lambda model: model.embed_chunks("red green blue " * 20, max_tokens=6, late=True),
}


# The native engine's model here is a token table, which has no states to average.
ENGINE_WAYS = [
    (engine, way) for engine in ("native", "onnxruntime") for way in WAYS if (engine, way) != ("native", "late")
]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize(("engine", "way"), ENGINE_WAYS)
def test_a_vector_is_finite_or_refused(tmp_path: Path, number: float, engine: str, way: str) -> None:
    path = write_tiny_model(tmp_path, table=TABLE)
    if engine == "native":
        path = shutil.copytree(bundled_model_path("gte-nano"), tmp_path / "nano")
        (path / "gte.json").unlink()
        graph = onnx.load(str(path / "onnx/model_quantized.onnx"))
        (scales,) = [tensor for tensor in graph.graph.initializer if tensor.name.endswith("/scale")]
        values = np.full_like(onnx.numpy_helper.to_array(scales), number)
        scales.CopyFrom(onnx.numpy_helper.from_array(values, scales.name))
        (path / "onnx/model_quantized.onnx").write_bytes(graph.SerializeToString())
    else:
        write_tiny_model(tmp_path, table=np.full_like(TABLE, number))
    model = Embedder(path, engine=engine)
    with pytest.raises(ModelFormatError, match="gives vectors with NaN or infinity: the weights are damaged"):
        WAYS[way](model)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("ending", ["/rows/level", "MatMul_672/scale", "/undo_shift", "LayerNorm.weight"])
def test_int8_weights_that_rounding_would_hide_are_refused(tmp_path: Path, ending: str, number: float) -> None:
    path = shutil.copytree(bundled_model_path("gte-mini"), tmp_path / "mini")
    (path / "gte.json").unlink()
    graph = onnx.load(str(path / "onnx/model_quantized.onnx"))
    damaged = next(tensor for tensor in graph.graph.initializer if tensor.name.endswith(ending))
    values = onnx.numpy_helper.to_array(damaged).copy()
    values.flat[7] = number
    damaged.CopyFrom(onnx.numpy_helper.from_array(values, damaged.name))
    (path / "onnx/model_quantized.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelFormatError, match="NaN or infinity"):
        Embedder(path).embed("A text.")


# --- malformed content


@pytest.mark.parametrize("bytes_of_a_number", [11, 100_000])
def test_a_number_without_an_end_is_refused_at_once(tmp_path: Path, bytes_of_a_number: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08" + b"\xff" * bytes_of_a_number + b"\x01")
    with pytest.raises(ValueError, match="a number of more than 10 bytes"):
        read_onnx(path)


DEEP = "[" * 100_000
CONTENTS = [DEEP, '{"a": ' * 100_000, '{"a": ' + "9" * 5000 + "}", "[1]", '"\ud800"', "\xff", ""]
JSON_FILES = ["config.json", "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json",
              "sentence_bert_config.json", "gte.json", "tokenizer.json"]  # fmt: skip


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("content", CONTENTS)
def test_json_of_any_content_is_one_error_with_its_path(tmp_path: Path, name: str, content: str) -> None:
    path = write_tiny_model(tmp_path)
    (path / name).write_bytes(content.encode("utf-8", "surrogatepass") if content != "\xff" else b"\xff\xfe\xff")
    with pytest.raises(ModelFormatError, match=name.rsplit("/", 1)[-1]):
        Embedder(path)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("kind", ["directory", "bundle"])
def test_json_without_an_end_is_refused_before_it_is_read(tmp_path: Path, name: str, kind: str) -> None:
    """Files that are mostly holes: they are long and take no disk."""
    path = write_tiny_model(tmp_path / "model")
    most = MAX_TOKENIZER_BYTES if name == "tokenizer.json" else MAX_JSON_BYTES
    (path / name).parent.mkdir(exist_ok=True)
    with (path / name).open("ab") as file:
        file.truncate(most + 1)
    if kind == "bundle":
        names = [each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()]
        with (tmp_path / "app.gte").open("wb") as file:
            write_bundle(file, {name: path / name for name in names})
        path = tmp_path / "app.gte"
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match=rf"{name} has {most + 1} bytes, and at most {most} are read"):
            Embedder(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_header_of_weights_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((MAX_JSON_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_JSON_BYTES + 100)
    with pytest.raises(ModelFormatError, match=rf"its header of {MAX_JSON_BYTES + 1} bytes does not fit"):
        map_safetensors(path)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("config.json", {"hidden_size": True}, "hidden_size=True"),
        ("config.json", {"hidden_size": 10**30}, "hidden_size=1"),
        ("config.json", {"hidden_size": DIM, "max_position_embeddings": 10**30}, "no max_position_embeddings"),
        (
            "config.json",
            {"hidden_size": DIM, "max_position_embeddings": 2},
            "the model reads 2 tokens, 2 of them",
        ),
        ("1_Pooling/config.json", {"pooling_mode": 7}, "asks for pooling [7]"),
        ("1_Pooling/config.json", {"pooling_mode": {"a": 1}}, "asks for pooling [{'a': 1}]"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts that are not texts"),
        ("config_sentence_transformers.json", {"matryoshka_dims": "5"}, "matryoshka_dims='5'"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, name: str, fields: dict[str, Any], message: str) -> None:
    path = write_tiny_model(tmp_path)
    write_json(path / name, fields)
    with pytest.raises(ModelFormatError) as caught:
        Embedder(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["gte.json", "config_sentence_transformers.json", "1_Pooling/config.json"])
def test_an_error_quotes_some_of_what_is_wrong_and_keeps_path_and_remedy(tmp_path: Path, name: str) -> None:
    path = describe(write_tiny_model(tmp_path)) if name == "gte.json" else write_tiny_model(tmp_path)
    endless = "x" * 1_000_000
    fields = {"format_version": endless, "prompts": endless, "pooling_mode": endless}
    write_json(path / name, fields)
    with pytest.raises(ModelFormatError, match=name) as caught:
        Embedder(path)
    assert len(str(caught.value)) == 2000
    assert str(caught.value).startswith(str(path / name))
    if name == "1_Pooling/config.json":
        assert str(caught.value).endswith(" is supported")


def test_the_type_of_a_model_may_be_anything(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    write_json(path / "config.json", {"model_type": {"a": 1}, "hidden_size": DIM, "max_position_embeddings": 32})
    assert read_model_dir(path).max_tokens == 32


def test_a_tokenizer_without_its_unknown_token_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    content = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"] = {**content["model"], "type": "WordPiece", "continuing_subword_prefix": "##",
                        "max_input_chars_per_word": 100, "unk_token": "[NONE]"}  # fmt: skip
    write_json(path / "tokenizer.json", content)
    model = Embedder(path)
    assert WORDS[4] == "red"
    for texts in (["nowhere"], ["nowhere"] * 20, ["nowhere " * 10_000]):
        with pytest.raises(ModelFormatError, match=r"tokenizer\.json cannot tokenize a text: .*Missing \[UNK\]"):
            model.embed(texts)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json cannot tokenize a text"):
        model.embed_chunks("nowhere " * 10)
