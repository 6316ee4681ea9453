"""Where the cache lies, and when a remembered hash counts."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gte_sdk import Embedder
from gte_sdk.model_files import user_cache
from gte_sdk.model_files.user_cache import cache_folder, cached_file, remembered_sha256

from ..native.look_alikes import write_look_alike


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="systems with XDG folders")
def test_the_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "home" / "gte-sdk" / "int8"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "home" / ".cache" / "gte-sdk" / "int8"


@pytest.mark.parametrize(
    ("system", "folder"), [("darwin", "Library/Caches/gte-sdk/int8"), ("win32", "AppData/Local/gte-sdk/int8")]
)
def test_the_folders_of_other_systems(
    system: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.delenv("LOCALAPPDATA")
    assert cache_folder() == tmp_path / "home" / folder
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    if system == "win32":
        assert cache_folder() == tmp_path / "local" / "gte-sdk" / "int8"


def test_a_name_depends_on_every_ingredient_and_not_on_their_order() -> None:
    assert cached_file({"a": 1, "b": [2]}) == cached_file({"b": [2], "a": 1})
    assert len({cached_file({"a": value}) for value in (1, 2, "1", [1])}) == 4


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    read: list[Path] = []

    def count(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(user_cache, "sha256_of_file", count)
    for content in (b"one", b"two"):
        file.write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert remembered_sha256(file) == remembered_sha256(file) == expected
    assert len(read) == 2
    # The same size and the same modification time: the time of the last change of the file's data tells.
    status = file.stat()
    file.write_bytes(b"six")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert remembered_sha256(file) == hashlib.sha256(b"six").hexdigest()


def test_weights_are_hashed_once_for_all_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_look_alike(tmp_path / "model")
    weights = model / "model.safetensors"
    first, again = Embedder(model).fingerprint, Embedder(model)
    open_file = Path.open

    def refuse_weights(path: Path, *arguments: Any, **options: Any) -> Any:
        assert path != weights
        return open_file(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse_weights)
        assert again.fingerprint == first
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert Embedder(model).fingerprint != first


def test_a_file_that_was_written_just_now_is_not_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_cache, "_SETTLED_NS", 10**15)
    (tmp_path / "weights").write_bytes(b"one")
    assert remembered_sha256(tmp_path / "weights") == hashlib.sha256(b"one").hexdigest()
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"null", b'{"text": 1}', b'{"text": "00", "check": "00"}', b"\xff"])
def test_a_damaged_note_is_not_believed(content: bytes, tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    expected = remembered_sha256(file)
    (note,) = cache.iterdir()
    note.write_bytes(content)
    assert remembered_sha256(file) == expected
    assert expected in note.read_text()
