"""The reader and writer of model directories: what is accepted, and what each kind of damage says."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.model_files.directory import (
    GTE_JSON,
    FileRecord,
    bundled_model_path,
    bundled_models,
    checked_file,
    fingerprint_of_files,
    fingerprint_of_weights,
    read_model_dir,
    write_gte_json,
)
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    POOLING_JSON,
    SENTENCE_BERT_JSON,
    SENTENCE_TRANSFORMERS_JSON,
    TOKENIZER_CONFIG_JSON,
    read_module_types,
    read_pooling,
    read_prompts,
)
from gte_sdk.model_files.text_settings import read_max_tokens

BUNDLED = bundled_model_path("gte-mini")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields.update(changes)
    path.write_text(json.dumps(fields), encoding="utf-8")


def test_bundled_model_is_whole() -> None:
    description = read_model_dir(BUNDLED)
    assert "gte-mini" in bundled_models()
    assert (description.name, description.dim, description.pooling) == ("gte-mini", 384, "mean")
    for name in description.files:
        checked_file(description, name)
    on_disk = {entry.relative_to(BUNDLED).as_posix() for entry in BUNDLED.rglob("*") if entry.is_file()}
    assert on_disk == {*description.files, GTE_JSON}
    assert sum(entry.stat().st_size for entry in BUNDLED.rglob("*") if entry.is_file()) <= 25_000_000


def test_write_then_read(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    fingerprint = fingerprint_of_weights("w", "t", "cls")
    written = write_gte_json(
        tmp_path,
        name="tiny",
        dim=3,
        max_tokens=16,
        pooling="cls",
        prompts={"query": "query: "},
        fingerprint=fingerprint,
        licence="Apache-2.0",
        provenance={"source": "a test"},
    )
    assert written == read_model_dir(tmp_path)
    assert written.files["onnx/model.onnx"] == FileRecord(hashlib.sha256(b"graph").hexdigest(), 5)
    assert written.fingerprint == fingerprint
    assert dict(written.prompts) == {"query": "query: "}


def test_fingerprint_tells_weights_tokenizer_and_pooling_apart() -> None:
    identities = [("w", "t", "mean"), ("v", "t", "mean"), ("w", "s", "mean"), ("w", "t", "cls")]
    fingerprints = {fingerprint_of_weights(*identity) for identity in identities}
    assert len(fingerprints) == 4
    assert all(len(fingerprint) == len("sha256:") + 64 for fingerprint in fingerprints)


def test_a_flipped_byte_is_refused(directory: Path) -> None:
    graph = directory / "onnx" / "model_quantized.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"model_quantized\.onnx has SHA-256 .* was changed"):
        Embedder(directory)


def test_a_truncated_file_is_refused(directory: Path) -> None:
    graph = directory / "onnx" / "model_quantized.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match=r"model_quantized\.onnx has \d+ bytes where gte.json records"):
        Embedder(directory)


def test_a_missing_tokenizer_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json is missing"):
        Embedder(directory)


def test_a_width_that_is_not_the_graphs_is_refused(directory: Path) -> None:
    edit_json(directory / "gte.json", dim=385)
    with pytest.raises(
        ModelFormatError, match=r"golden\.json has vectors of 384 dimensions, but gte\.json records dim=385"
    ):
        Embedder(directory)
    recorded = json.loads((directory / "gte.json").read_text(encoding="utf-8"))["files"]
    edit_json(directory / "gte.json", files={name: file for name, file in recorded.items() if name != "golden.json"})
    with pytest.raises(ModelFormatError, match=r"gives vectors of 384 dimensions, but gte\.json records dim=385"):
        Embedder(directory)


def test_an_unrecorded_graph_is_refused(directory: Path) -> None:
    shutil.copy(directory / "onnx" / "model_quantized.onnx", directory / "onnx" / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"model\.onnx is not recorded in gte\.json"):
        Embedder(directory, variant="fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2; this gte-sdk reads 1: upgrade"),
        ({"format_version": None}, "format version None"),
        ({"dim": "384"}, "dim='384' where a int belongs"),
        ({"dim": True}, "dim=True where a int belongs"),
        ({"dim": 0}, "dim=0; it must be from 1 to 2147483647"),
        ({"dim": 10**400}, f"dim=1{'0' * 16}"),
        ({"max_tokens": -1}, "max_tokens=-1; it must be from 1 to 2147483647"),
        ({"pooling": "median"}, "pooling='median'; one of"),
        ({"normalize": "yes"}, "normalize='yes'"),
        ({"prompts": {"query": 1}}, "prompts that are not texts"),
        ({"fingerprint": None}, "fingerprint=None"),
        ({"files": {"../../etc/passwd": {"sha256": "", "bytes": 1}}}, "is not inside the model directory"),
        ({"files": {"/etc/passwd": {"sha256": "", "bytes": 1}}}, "is not inside the model directory"),
        ({"files": {"y" * 70_000: {"sha256": "", "bytes": 1}}}, "which no file system takes as a name"),
        ({"files": {"onnx/" + "é" * 128: {"sha256": "", "bytes": 1}}}, "which no file system takes as a name"),
        ({"files": {"a": {"sha256": ""}}}, "malformed record of 'a'"),
    ],
)
def test_a_malformed_description_says_which_field(directory: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(directory / "gte.json", **changes)
    with pytest.raises(ModelFormatError, match=r"gte\.json.*") as caught:
        read_model_dir(directory)
    assert message in str(caught.value)


def test_a_description_that_is_no_json_object(directory: Path) -> None:
    (directory / "gte.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelFormatError, match="holds a JSON list where an object belongs"):
        read_model_dir(directory)
    (directory / "gte.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFormatError, match="is not JSON"):
        read_model_dir(directory)


def test_a_plain_hub_directory_is_read_without_gte_json(directory: Path) -> None:
    own = read_model_dir(directory)
    (directory / "gte.json").unlink()
    foreign = read_model_dir(directory)
    assert (foreign.dim, foreign.max_tokens, foreign.pooling) == (own.dim, own.max_tokens, own.pooling)
    assert foreign.fingerprint is None
    name = "onnx/model_quantized.onnx"
    assert fingerprint_of_files(foreign, name) != own.fingerprint
    assert fingerprint_of_files(own, name) == own.fingerprint


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len_tokens"),
    ],
)
def test_pooling_in_old_and_new_spelling(tmp_path: Path, pooling: dict[str, Any], expected: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / POOLING_JSON).write_text(json.dumps(pooling), encoding="utf-8")
    assert read_pooling(tmp_path) == expected


@pytest.mark.parametrize("pooling", [{"pooling_mode": "median"}, {"pooling_mode": ["cls", "mean"]}, {}])
def test_pooling_that_is_not_supported(tmp_path: Path, pooling: dict[str, Any]) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / POOLING_JSON).write_text(json.dumps(pooling), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="asks for pooling"):
        read_pooling(tmp_path)


@pytest.mark.parametrize(
    ("config", "sentence_bert", "tokenizer_config", "expected"),
    [
        ({"max_position_embeddings": 512}, None, None, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta"}, None, None, 512),
        ({"max_position_embeddings": 512}, {"max_seq_length": 256}, {"model_max_length": 384}, 256),
        ({}, None, {"model_max_length": 128}, 128),
    ],
)
def test_max_tokens_is_the_smallest_limit(
    tmp_path: Path,
    config: dict[str, Any],
    sentence_bert: dict[str, Any] | None,
    tokenizer_config: dict[str, Any] | None,
    expected: int,
) -> None:
    files = {
        CONFIG_JSON: config,
        SENTENCE_BERT_JSON: sentence_bert,
        TOKENIZER_CONFIG_JSON: tokenizer_config,
    }
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    assert read_max_tokens(tmp_path) == expected


def test_max_tokens_that_nothing_names(tmp_path: Path) -> None:
    (tmp_path / CONFIG_JSON).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelFormatError, match="max_seq_length"):
        read_max_tokens(tmp_path)


@pytest.mark.parametrize("limit", [True, False, 0, -1, 256.5, "256", [256], {"tokens": 256}])
def test_max_tokens_that_are_no_number(tmp_path: Path, limit: Any) -> None:
    (tmp_path / CONFIG_JSON).write_text('{"max_position_embeddings": 512}', encoding="utf-8")
    (tmp_path / SENTENCE_BERT_JSON).write_text(json.dumps({"max_seq_length": limit}), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=rf"{SENTENCE_BERT_JSON} says that the model reads .* tokens of a text"):
        read_max_tokens(tmp_path)


def test_prompts_take_passage_as_document(tmp_path: Path) -> None:
    path = tmp_path / SENTENCE_TRANSFORMERS_JSON
    path.write_text(json.dumps({"prompts": {"query": "query: ", "passage": "passage: "}}), encoding="utf-8")
    assert read_prompts(tmp_path)["document"] == "passage: "
    path.write_text(json.dumps({"prompts": {"query": 1}}), encoding="utf-8")
    with pytest.raises(ModelFormatError, match="prompts that are not texts"):
        read_prompts(tmp_path)


def test_module_types(directory: Path) -> None:
    assert read_module_types(directory) == ["Transformer", "Pooling", "Normalize"]
    (directory / "modules.json").write_text('[{"path": ""}]', encoding="utf-8")
    with pytest.raises(ModelFormatError, match="is not a list of modules"):
        read_module_types(directory)


def test_not_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="is not a model directory"):
        read_model_dir(tmp_path / "absent")
