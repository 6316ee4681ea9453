"""The index that tools work on: what they find and read, what stays out of reach, and how it is kept up to date."""

import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk import Embedder
from gte_sdk.agents import workspace as workspace_module
from gte_sdk.agents.requests import MOST_PASSAGE_CHARACTERS, MOST_READ_CHARACTERS, ReadRequest, SearchRequest
from gte_sdk.agents.workspace import IDLE_SECONDS, Workspace
from gte_sdk.cli.commands import gte
from gte_sdk.errors import GteError, InputError, ModelMismatchError
from gte_sdk.model_files import user_cache
from gte_sdk.passages.store import PassageStore, Settings
from gte_sdk.passages.update_lock import exclusive
from gte_sdk.passages.updating import update_index

from ..tiny_models import TABLE, write_tiny_model
from .folders import COLOURS, answer, workspace_of, write_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "document: "}
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts=prompts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "folder")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call looks for changed files."""
    monkeypatch.setattr(workspace_module, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(workspace_module, "_LOOK_SHARE", float("inf"))


def test_search_finds_what_gte_search_finds(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        found = answer(workspace, "search", query="blue", k=3, mode="meaning")
        assert found["index"] == {"state": "ready"}
        best = found["passages"][0]
        assert (best["path"], best["line"], best["breadcrumb"]) == (str(folder / "colours.md"), 5, "red")
        assert (best["text"], best["is_cut"]) == ("## blue\n\nblue\nblue fast", False)
        embedder = Embedder(model)
        texts = [f"{each['breadcrumb']}\n{each['text']}".strip() for each in found["passages"]]
        cosines = embedder.embed_documents(texts) @ embedder.embed_query("blue")
        np.testing.assert_allclose([each["score"] for each in found["passages"]], cosines, atol=2e-6)
        by_words = answer(workspace, "search", query="green", mode="words")["passages"]
        assert [Path(each["path"]).name for each in by_words] == ["code.py"]
        assert answer(workspace, "search", query="green", min_score=1)["passages"] == []
        in_code = answer(workspace, "search", query="blue", glob="*.py")["passages"]
        assert {Path(each["path"]).name for each in in_code} == {"code.py"}


def test_similar_leaves_the_passage_itself_out(model: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "copy.md").write_text("blue\nblue fast\n", encoding="utf-8")
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        found = answer(workspace, "similar", path=str(folder / "colours.md"), line=8, k=2)["passages"]
        assert Path(found[0]["path"]).name == "copy.md"
        assert len(found) == 2
        assert (str(folder / "colours.md"), 5) not in [(each["path"], each["line"]) for each in found]
        whole = answer(workspace, "similar", path="colours.md", line=8, k=50)["passages"]
        assert len(whole) == 4  # of five passages


def test_lines_are_read_as_they_stand_in_the_file(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        whole = answer(workspace, "read_passage", path=str(folder / "colours.md"))
        assert whole["text"] == COLOURS.rstrip("\n")
        assert (whole["line"], whole["last_line"], whole["lines_of_file"]) == (1, 8, 8)
        part = answer(workspace, "read_passage", path="colours.md", line=6, line_count=2)
        assert (part["text"], part["last_line"], part["breadcrumb"]) == ("\nblue", 7, "red")
        beyond = answer(workspace, "read_passage", path="folder/colours.md", line=10**15)
        assert (beyond["text"], beyond["last_line"], beyond["is_cut"]) == ("", 10**15 - 1, False)


def test_texts_of_any_length_are_cut_and_say_so(model: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "long.txt").write_text("red " * 100_000 + "\nred\n", encoding="utf-8")
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        found = answer(workspace, "search", query="red", k=50)["passages"]
        (long,) = [each for each in found if each["is_cut"]]
        assert len(long["text"]) == MOST_PASSAGE_CHARACTERS
        read = answer(workspace, "read_passage", path="long.txt")
        assert (len(read["text"]), read["last_line"], read["is_cut"]) == (MOST_READ_CHARACTERS, 1, True)
        assert answer(workspace, "read_passage", path="long.txt", line=2)["text"] == "red"


def test_only_what_is_indexed_can_be_read(model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("red outside\n", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "alias.txt").symlink_to(folder / ".secret")
    out_of_reach = [
        "../outside.txt", str(tmp_path / "outside.txt"), "link.txt", str(folder / "link.txt"), ".secret",
        "elsewhere/outside.txt", "picture.png", "/etc/passwd", "../../../../../../etc/passwd", ".", "", "folder",
    ]  # fmt: skip
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        found = answer(workspace, "search", query="red outside", k=50)["passages"]
        assert "link.txt" not in [Path(each["path"]).name for each in found]
        for path in out_of_reach:
            for tool in ("read_passage", "similar"):
                with pytest.raises(InputError, match=r"is no file of this index|path is empty"):
                    answer(workspace, tool, path=path, line=1)
        assert answer(workspace, "read_passage", path="./elsewhere/../notes.txt")["text"] == "slow slow slow"


@pytest.mark.usefixtures("at_once")
def test_changed_files_are_found_by_the_next_call(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        assert answer(workspace, "search", query="query", mode="words")["passages"] == []
        (folder / "new.txt").write_text("query query\n", encoding="utf-8")
        found = answer(workspace, "search", query="query", mode="words")["passages"]
        assert [Path(each["path"]).name for each in found] == ["new.txt"]
        (folder / "new.txt").unlink()
        assert answer(workspace, "search", query="query", mode="words")["passages"] == []


def test_a_second_workspace_opens_the_index_of_the_first(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as first:
        expected = answer(first, "search", query="blue")
    (index,) = (tmp_path / "cache").glob("*.index")
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    before = index.read_bytes()
    with workspace_of(folder, model, tmp_path / "cache") as second:
        assert answer(second, "search", query="blue") == expected
    with PassageStore(index) as store:
        assert store.counts() == (3, 4)
    assert len(index.read_bytes()) == len(before)


def test_a_damaged_index_in_the_cache_is_made_again(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as first:
        expected = answer(first, "search", query="blue")
    (index,) = (tmp_path / "cache").glob("*.index")
    index.write_bytes(b"SQLite format 3\0" + bytes(5000))
    with workspace_of(folder, model, tmp_path / "cache") as second:
        assert answer(second, "search", query="blue") == expected


def test_while_another_process_updates_the_index_calls_are_answered(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as first:
        expected = answer(first, "search", query="blue")["passages"]
    (index,) = (tmp_path / "cache").glob("*.index")
    with workspace_of(folder, model, tmp_path / "cache") as second, exclusive(index, lambda: None):
        found = answer(second, "search", query="blue")
        assert found["passages"] == expected
        assert found["index"]["state"] == "indexing"  # as far as this one knows


def test_before_the_first_index_is_made_a_call_says_so(model: Path, folder: Path, tmp_path: Path) -> None:
    may_open = threading.Event()

    def open_model() -> Embedder:
        assert may_open.wait(60)
        return Embedder(model)

    settings = Settings(str(model), "", 0, (str(folder),))
    workspace = Workspace(settings, open_model, None, tmp_path / "cache")
    try:
        update = workspace.refresh()
        assert update is not None
        found = workspace.run(SearchRequest("red", 5, None, None)).result(60)
        assert found == {"passages": [], "index": {"state": "indexing", "files_done": 0, "files_to_read": 0}}
        with pytest.raises(InputError, match="the index is being made"):
            workspace.run(ReadRequest("a", 1, 1)).result(60)
        may_open.set()
        update.result(60)
        status = answer(workspace, "index_status")
    finally:
        may_open.set()
        workspace.close()
    assert (status["state"], status["files"], status["passages"]) == ("ready", 3, 4)
    assert status["folders"] == [str(folder)]
    assert status["left_out"] == {"hidden": 1, "binary": 1}


def test_an_index_that_is_named_is_searched_as_it_is(model: Path, folder: Path, tmp_path: Path) -> None:
    embedder = Embedder(model)
    settings = Settings(str(model), embedder.fingerprint, embedder.dim, (str(folder),))
    path = tmp_path / "notes.index"
    with PassageStore(path, settings) as store:
        update_index(store, embedder, print, lambda done, total: None)
    (folder / "new.txt").write_text("query query\n", encoding="utf-8")
    workspace = Workspace(settings, lambda: Embedder(model), path, None)
    try:
        assert workspace.refresh() is None
        assert answer(workspace, "search", query="query", mode="words")["passages"] == []
        assert answer(workspace, "index_status")["files"] == 3
    finally:
        workspace.close()
    other = write_tiny_model(tmp_path / "other", table=TABLE[::-1].copy())
    workspace = Workspace(settings, lambda: Embedder(other), path, None)
    try:
        with pytest.raises(ModelMismatchError):
            answer(workspace, "search", query="red")
    finally:
        workspace.close()


def test_a_folder_that_is_gone_is_said_at_every_call(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        folder.rename(tmp_path / "moved")
        for _ in range(2):
            with pytest.raises(GteError, match="is not there"):
                answer(workspace, "search", query="red")


def test_vectors_leave_the_memory_and_come_back(model: Path, folder: Path, tmp_path: Path) -> None:
    with workspace_of(folder, model, tmp_path / "cache") as workspace:
        expected = answer(workspace, "search", query="blue")
        first_timer = workspace._forget_timer
        assert answer(workspace, "search", query="blue") == expected
        assert workspace._forget_timer is first_timer  # one for all calls
        for idle in (False, True):
            workspace._used_at -= IDLE_SECONDS * idle
            workspace._look_whether_idle()
            workspace._searcher.submit(lambda: None).result(60)
            assert (workspace._search is None, workspace._forget_timer is None) == (idle, idle)
        assert answer(workspace, "search", query="blue") == expected


def test_gte_cache_counts_and_clears_the_indexes(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_cache, "_system_folder", lambda: tmp_path)
    cache = user_cache.indexes_folder()
    assert cache == tmp_path / "gte-sdk" / "passages"
    with workspace_of(folder, model, cache) as workspace:
        answer(workspace, "search", query="blue")
    size = sum(file.stat().st_size for file in cache.iterdir())
    shown = json.loads(CliRunner().invoke(gte, ["cache", "--json"]).stdout)
    assert (shown["models"], shown["indexes"], shown["index_bytes"], shown["cleared"]) == (0, 1, size, False)
    assert "passages: removed 1 passage index," in CliRunner().invoke(gte, ["cache", "--clear"]).stdout
    assert list(cache.iterdir()) == []
