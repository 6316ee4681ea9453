"""One file that is a model: its bytes, what opens it, and what every kind of damage is called."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.cli.commands import gte
from gte_sdk.model_files.bundle import open_bundle
from gte_sdk.model_files.directory import GTE_JSON, bundled_model_path, write_gte_json

from ..tiny_models import DIM, TABLE, tiny_vector, write_tiny_model


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tiny model with gte.json, in two variants."""
    path = write_tiny_model(tmp_path / "own", prompts={"query": "query: "})
    shutil.copy(path / "onnx" / "model.onnx", path / "onnx" / "model_fp16.onnx")
    write_gte_json(
        path, name="tiny", dim=DIM, max_tokens=32, pooling="mean", prompts={"query": "query: "},
        fingerprint="sha256:" + "0" * 64, licence="MIT", provenance={},
    )  # fmt: skip
    return path


@pytest.fixture
def bundle(own: Path, tmp_path: Path) -> Path:
    assert run("bundle", own, tmp_path / "app.gte").exit_code == 0
    return tmp_path / "app.gte"


def test_the_bundled_model_gives_the_same_vectors_from_one_file(tmp_path: Path) -> None:
    result = run("bundle", "gte-mini", tmp_path / "mini.gte")
    assert result.exit_code == 0, result.output
    from_file, from_folder = Embedder(tmp_path / "mini.gte"), Embedder("gte-mini")
    texts = ["a kitten", "", "Zinsen und Kredite", "word " * 700]
    with pytest.warns(UserWarning, match="were left out"):
        vectors_ND = from_file.embed(texts)
    with pytest.warns(UserWarning, match="were left out"):
        np.testing.assert_array_equal(vectors_ND, from_folder.embed(texts))
    for name in ("fingerprint", "dim", "max_tokens", "engine", "variant"):
        assert getattr(from_file, name) == getattr(from_folder, name)
    vector = Embedder(str(tmp_path / "mini.gte"), engine="onnxruntime").embed("a kitten")
    np.testing.assert_allclose(vector @ vectors_ND[0], 1, atol=1e-3)
    verified = json.loads(run("verify", tmp_path / "mini.gte", "--json").stdout)
    expected = [
        path.relative_to(bundled_model_path("gte-mini")).as_posix() for path in files(bundled_model_path("gte-mini"))
    ]
    assert verified["files"] == sorted(expected)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_any_zip_tool_unpacks_it(own: Path, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "bundle.json"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path / "out")
    (tmp_path / "out" / "bundle.json").unlink()
    for path in files(own):
        assert (tmp_path / "out" / path.relative_to(own)).read_bytes() == path.read_bytes()
    assert len(files(tmp_path / "out")) == len(files(own))
    assert run("verify", tmp_path / "out").exit_code == 0


def test_the_bytes_are_those_of_the_documentation(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m")
    assert run("bundle", model, tmp_path / "a.gte").exit_code == 0
    content = (tmp_path / "a.gte").read_bytes()
    assert content[:14] == b"PK\x03\x04\x14\x00\x00\x08\x00\x00\x00\x00\x21\x00"
    length = int.from_bytes(content[18:22], "little")
    assert content[22:26] == content[18:22]
    assert content[26:41] == b"\x0b\x00\x00\x00bundle.json"
    listed = json.loads(content[41 : 41 + length])
    assert (listed["format"], listed["format_version"]) == ("gte-bundle", 1)
    position = 41 + length
    for name, record in listed["files"].items():
        position += 30 + len(name)
        assert content[position : position + record["bytes"]] == (model / name).read_bytes()
        position += record["bytes"]
    assert content[position : position + 4] == b"PK\x01\x02"
    assert list(listed["files"]) == sorted(listed["files"])


def test_the_same_model_gives_the_same_bytes(own: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "copy", copy_function=shutil.copyfile)
    assert run("bundle", tmp_path / "copy", tmp_path / "again.gte").exit_code == 0
    assert (tmp_path / "again.gte").read_bytes() == bundle.read_bytes()


def test_a_directory_of_the_hub_is_bundled_without_foreign_weights(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "hub", prompts={"query": "query: "})
    (model / "pytorch_model.bin").write_bytes(b"weights")
    (model / "LICENSE").write_text("free", encoding="utf-8")
    assert run("bundle", model, tmp_path / "hub.gte").exit_code == 0
    names = set(open_bundle(tmp_path / "hub.gte").members)
    assert "LICENSE" in names
    assert "pytorch_model.bin" not in names
    one, other = Embedder(tmp_path / "hub.gte"), Embedder(model)
    np.testing.assert_array_equal(one.embed_query("red green"), other.embed_query("red green"))
    assert one.fingerprint == other.fingerprint
    assert run("verify", tmp_path / "hub.gte").exit_code == 0
    assert "no gte.json with hashes to compare with" in run("verify", model).stderr


@pytest.mark.parametrize(
    ("name", "pooling", "query"),
    [("intfloat/e5-small-v2", "mean", "query : red"), ("BAAI/bge-small-en-v1.5", "cls", "red")],
)
def test_what_the_hub_name_says_of_a_model_is_true_of_its_bundle(
    name: str, pooling: str, query: str, tmp_path: Path
) -> None:
    snapshot = write_tiny_model(tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "abc")
    shutil.rmtree(snapshot / "1_Pooling")
    assert run("bundle", snapshot, tmp_path / "a.gte").exit_code == 0
    one, other = Embedder(tmp_path / "a.gte"), Embedder(snapshot)
    np.testing.assert_allclose(one.embed_query("red"), tiny_vector(query, pooling), atol=1e-6)
    np.testing.assert_array_equal(one.embed("red blue"), other.embed("red blue"))
    assert one.fingerprint == other.fingerprint
    assert json.loads(run("verify", tmp_path / "a.gte", "--json").stdout)["name"] == name


def test_one_variant(own: Path, tmp_path: Path) -> None:
    assert run("bundle", own, tmp_path / "one.gte", "--variant", "fp32").exit_code == 0
    names = set(open_bundle(tmp_path / "one.gte").members)
    assert "onnx/model.onnx" in names
    assert "onnx/model_fp16.onnx" not in names
    assert Embedder(tmp_path / "one.gte").variant == "fp32"
    assert run("verify", tmp_path / "one.gte").exit_code == 0
    result = run("bundle", own, tmp_path / "no.gte", "--variant", "int8")
    assert (result.exit_code, (tmp_path / "no.gte").exists()) == (1, False)
    assert "variant='int8'; " in result.stderr


def test_it_is_cut_off_anywhere(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    members = open_bundle(bundle).members
    cut = tmp_path / "cut.gte"
    for name, member in list(members.items())[1:]:
        for end in (member.offset, member.offset + member.bytes - 1):
            cut.write_bytes(content[:end])
            with pytest.raises(ModelFormatError, match=f"cut.gte/{name} is cut off: the file ends after {end} bytes"):
                Embedder(cut)
    for end in (0, 10, 45, len(content) - 1):
        cut.write_bytes(content[:end])
        with pytest.raises(ModelFormatError):
            Embedder(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(ModelFormatError, match="its ZIP directory is cut off or longer"):
        Embedder(cut)


def test_a_flipped_bit_in_any_member_is_named(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    damaged = tmp_path / "damaged.gte"
    for name, member in open_bundle(bundle).members.items():
        if member.bytes == 0:
            continue
        changed = bytearray(content)
        changed[member.offset + member.bytes // 2] ^= 4
        damaged.write_bytes(changed)
        result = run("verify", damaged)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"damaged.gte/{name} is damaged" in result.stderr
    changed = bytearray(content)
    changed[open_bundle(bundle).members["onnx/model.onnx"].offset + 5] ^= 1
    damaged.write_bytes(changed)
    with pytest.raises(ModelFormatError, match=r"damaged.gte/onnx/model\.onnx is damaged"):
        Embedder(damaged)


def other_list(change: Callable[[dict[str, object]], object]) -> Callable[[Path, Path], None]:
    def write(source: Path, target: Path) -> None:
        with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as changed:
            for name in archive.namelist():
                content = archive.read(name)
                if name == "bundle.json":
                    listed = json.loads(content)
                    change(listed)
                    content = json.dumps(listed).encode()
                changed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)

    return write


def list_of(size: int) -> Callable[[Path, Path], None]:
    """A list that is as long as it says, in a file with a hole of that size."""

    def write(source: Path, target: Path) -> None:
        start = source.read_bytes()[:41]
        target.write_bytes(start[:18] + size.to_bytes(4, "little") * 2 + start[26:])
        os.truncate(target, 41 + size)

    return write


def with_member(name: str) -> Callable[[dict[str, object]], object]:
    return lambda listed: listed.update(files={name: {"bytes": 1, "sha256": ""}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _, path: path.write_bytes(b"#!/bin/sh\necho hello\n" * 9), "does not begin with bundle.json"),
        (lambda _, path: zipfile.ZipFile(path, "w").writestr("a", "b" * 99), "does not begin with bundle.json"),
        (other_list(lambda listed: listed.update(format_version=2)), "version 2; this gte-sdk reads 'gte-bundle'"),
        (
            other_list(lambda listed: listed.update(files={"../a": {"bytes": 1, "sha256": ""}})),
            r"'\.\./a' with 1 bytes",
        ),
        *(
            (other_list(with_member(name)), "be a member")
            for name in ("/a", "a/../b", "a//b", "./a", "a/", ".", "", "a\\b", "a\0b", "C:a", "C:/a", "bundle.json")
        ),
        (other_list(lambda listed: listed.update(files=[])), "bundle.json is not the list of a bundle"),
        (other_list(lambda listed: listed.update(files={"x": {"bytes": 1, "sha256": ""}})), "x is damaged: its header"),
        (
            other_list(lambda listed: listed.update(files={str(n): {"bytes": 0, "sha256": ""} for n in range(65535)})),
            "a number of files that no ZIP file has",
        ),
        (list_of(2**24 + 1), "bundle.json has 16777217 bytes, more than any"),
        (list_of(2**32 - 1), "bundle.json has 4294967295 bytes, more than any"),
    ],
)
def test_what_is_no_bundle(bundle: Path, tmp_path: Path, make: Callable[[Path, Path], object], message: str) -> None:
    make(bundle, tmp_path / "foreign.gte")
    with pytest.raises(ModelFormatError, match=message):
        Embedder(tmp_path / "foreign.gte")


def test_a_changed_directory_is_neither_verified_nor_bundled(own: Path, tmp_path: Path) -> None:
    assert run("verify", own).exit_code == 0
    with (own / "onnx" / "model.onnx").open("r+b") as file:
        file.seek(9)
        file.write(b"\xee")
    for result in (run("verify", own), run("bundle", own, tmp_path / "no.gte")):
        assert result.exit_code == 1
        assert f"{own / 'onnx' / 'model.onnx'} has SHA-256 " in result.stderr
    assert not (tmp_path / "no.gte").exists()


def test_an_existing_file_is_replaced_only_when_asked(own: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gte").write_bytes(b"mine")
    assert "give --overwrite" in run("bundle", own, tmp_path / "a.gte").stderr
    assert (tmp_path / "a.gte").read_bytes() == b"mine"
    assert run("bundle", own, tmp_path / "a.gte", "--overwrite").exit_code == 0
    assert run("verify", tmp_path / "a.gte").exit_code == 0


def test_vectors_that_are_not_of_unit_length_fail_the_self_test(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "bad", table=TABLE * np.float32(np.nan))
    assert run("bundle", model, tmp_path / "bad.gte").exit_code == 0
    assert GTE_JSON not in open_bundle(tmp_path / "bad.gte").members
    result = run("verify", tmp_path / "bad.gte")
    assert result.exit_code == 1
