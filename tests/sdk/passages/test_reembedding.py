"""An index gets another model: its texts stay, a kill at any step loses nothing, the old index answers until then."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gte_sdk import Embedder, ModelMismatchError
from gte_sdk.cli.commands import gte
from gte_sdk.passages import updating
from gte_sdk.passages.database import is_passage_store
from gte_sdk.passages.reembedding import reembed_index
from gte_sdk.passages.searching import Found, PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, PassageStore, Settings
from gte_sdk.passages.updating import update_index

from ..tiny_models import TABLE, write_tiny_model

WORDS = ["red", "green", "blue", "fast", "slow"]
# Runs the command, and kills itself at one call of a step: no race, whatever the machine does meanwhile.
KILLED_AT = """
import os, signal, sys
import gte_sdk.cli.rebuild_with as command
from gte_sdk.cli.commands import gte
from gte_sdk.passages import reembedding, updating
from gte_sdk.passages.store import PassageStore
step, left = sys.argv[1], int(sys.argv[2])
owner = command if step == "move_whole" else PassageStore
run = getattr(owner, step)
updating._GROUP_PASSAGES = updating.BATCH_PASSAGES = 4

def counted(*arguments, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(*arguments, **named)

setattr(owner, step, counted)
gte(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    other = write_tiny_model(folder / "other", table=TABLE * np.float32(-1), prompts={"document": "red: "})
    return write_tiny_model(folder / "one"), other


@pytest.fixture
def made(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """An index of six files with thirteen passages, whose folder is gone."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(6):
        texts = [" ".join(WORDS[: 1 + (number + part) % 5]) for part in range(1 + number % 4)]
        text = "".join(f"# {WORDS[number % 5]} {part}\n\n{text}\n\n" for part, text in enumerate(texts))
        (folder / f"{number}.md").write_text(text)
    embedder = Embedder(models[0])
    settings = Settings(str(models[0]), embedder.fingerprint, embedder.dim, (str(folder),))
    with PassageStore(tmp_path / "i", settings) as store:
        update_index(store, embedder, pytest.fail, lambda done, total: None)
        assert store.counts() == (6, 13)
    shutil.rmtree(folder)
    return tmp_path / "i"


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def rebuilt(index: Path, model: Path) -> Any:
    result = run("index", "-o", index, "--rebuild-with", model)
    assert result.exit_code == 0, result.output
    return result


def everything(index: Path, model: Path) -> list[Found]:
    with PassageStore(index) as store:
        return PassageSearch(store).find(Embedder(model).embed_query(["blue fast"]), 100, "blue fast")


def test_texts_and_files_stay_and_vectors_are_the_new_models(made: Path, models: tuple[Path, Path]) -> None:
    before = everything(made, models[0])
    with PassageStore(made) as store:
        files, kept = store.files(), {name: store.meta(name) for name in ("split_by", "left_out", "complete", "paths")}
    result = rebuilt(made, models[1])
    assert "13 passages of 6 files with vectors of" in result.stderr
    with PassageStore(made) as store:
        embedder = Embedder(models[1])
        assert store.settings.fingerprint == embedder.fingerprint
        assert store.files() == files
        assert {name: store.meta(name) for name in kept} == kept
        snapshot = store.snapshot()
    after = everything(made, models[1])
    assert sorted(found.passage for found in after) == sorted(found.passage for found in before)
    texts = {f"{found.passage.context}\n{found.passage.text}".lstrip() for found in after}
    expected = embedder.embed_documents(sorted(texts))
    assert {row.tobytes() for row in snapshot.vectors} == {row.tobytes() for row in expected}
    # It answers as if it had been made with the model.
    assert everything(made, models[1])[0].score == pytest.approx(after[0].score)
    assert sorted(path.name for path in made.parent.iterdir()) == ["i"]


def test_it_is_told_when_there_is_nothing_to_do(made: Path, models: tuple[Path, Path]) -> None:
    content = made.read_bytes()
    assert "is of this model already" in rebuilt(made, models[0]).stderr
    assert made.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("set_meta", 0), ("set_meta", 1), ("add_vectors", 0), ("add_vectors", 2), ("put_files", 0), ("put_files", 2),
        ("remove_files", 1), ("remove_unused_vectors", 0), ("set_meta", 2), ("move_whole", 0),
    ],
)  # fmt: skip
def test_killed_at_a_step_the_old_index_answers_and_the_next_call_goes_on(
    made: Path, models: tuple[Path, Path], step: str, calls: int, tmp_path: Path
) -> None:
    whole = Path(shutil.copy(made, tmp_path / "uninterrupted"))
    rebuilt(whole, models[1])
    before, content = everything(made, models[0]), made.read_bytes()
    arguments = ["index", "-o", str(made), "--rebuild-with", str(models[1]), "--quiet"]
    program = [sys.executable, "-c", KILLED_AT, step, str(calls), *arguments]
    assert subprocess.run(program, cwd=tmp_path, timeout=300).returncode == -signal.SIGKILL
    assert made.read_bytes() == content
    assert everything(made, models[0]) == before
    growing = made.with_name("i.rebuild")
    with PassageStore(growing) as store:
        stored = len(store.embedded_texts([updating.hash_of(found.passage) for found in before]))
        assert store.meta("complete") == (
            None if (step, calls) == ("set_meta", 0) else "true" if step == "move_whole" else "false"
        )
    result = rebuilt(made, models[1])
    texts = {updating.hash_of(found.passage) for found in before}
    assert f"; {len(texts) - stored} texts embedded" in result.stderr
    assert everything(made, models[1]) == everything(whole, models[1])
    assert not growing.exists()


@pytest.mark.parametrize("name", ["its own", "another"])
def test_what_an_older_split_or_another_index_left_is_not_kept(
    made: Path, models: tuple[Path, Path], name: str
) -> None:
    whole = Path(shutil.copy(made, made.with_name("uninterrupted")))
    rebuilt(whole, models[1])
    embedder = Embedder(models[1])
    with PassageStore(made) as old:
        settings = old.settings._replace(model=str(models[1]) if name == "its own" else name)
        settings = settings._replace(fingerprint=embedder.fingerprint, dim=embedder.dim)
        path, state = next(iter(old.files().items()))
    with PassageStore(made.with_name("i.rebuild"), settings) as left:
        wrong = Passage(path, 1, "", "another split")
        left.add_vectors([updating.hash_of(wrong)], embedder.embed_documents(["another split"]))
        left.put_files([FilePassages(path, state, [(wrong, updating.hash_of(wrong))])])
        gone = FilePassages("/gone.md", state, [(wrong, updating.hash_of(wrong))])
        left.put_files([gone])
    rebuilt(made, models[1])
    assert everything(made, models[1]) == everything(whole, models[1])
    with PassageStore(made) as store:
        assert store.settings.model == str(models[1])


def test_an_embedder_of_another_model_is_refused(made: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    with PassageStore(made) as old, PassageStore(tmp_path / "new", old.settings) as new:
        with pytest.raises(ModelMismatchError):
            reembed_index(old, new, Embedder(models[1]), lambda done, total: None)
        assert new.counts() == (0, 0)


@pytest.mark.parametrize("other", [["--rebuild"], ["--watch"], ["--glob", "*"], ["--model", "gte-mini"], ["--json"]])
def test_it_goes_with_no_option_that_reads_files(made: Path, models: tuple[Path, Path], other: list[str]) -> None:
    result = run("index", "-o", made, "--rebuild-with", models[1], *other)
    assert result.exit_code == 2
    assert "reads no files" in result.stderr


def test_without_an_index_it_says_how_to_make_one(models: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("index", "-o", tmp_path / "none", "--rebuild-with", models[1])
    assert result.exit_code == 1
    assert "does not exist; make a passage index with" in result.stderr
    assert not os.listdir(tmp_path)  # noqa: PTH208
    assert not is_passage_store(tmp_path / "none")
