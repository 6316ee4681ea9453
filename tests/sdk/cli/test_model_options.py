"""What a model's files do not say is said by flags: --pooling, --prompt and --max-tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte
from gte_sdk.passages.store import PassageStore

from ..tiny_models import tiny_vector, write_tiny_model


def run(*arguments: str | Path, texts: str = "") -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)), input=texts)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model that does not say how it pools."""
    path = write_tiny_model(tmp_path / "bare")
    (path / "1_Pooling" / "config.json").unlink()
    return path


def test_flags_say_what_the_files_do_not(bare: Path) -> None:
    refused = run("embed", "-", "--model", bare, texts="red\n")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "pass pooling= (--pooling), one of ('mean', 'cls'" in refused.stderr
    flags = ("--pooling", "cls", "--prompt", "query=query : ", "--prompt", "document=", "--max-tokens", "5")
    for kind, words, pooling in (("plain", "red", "cls"), ("query", "query : red", "cls")):
        given = run("embed", "-", "--model", bare, "--kind", kind, *flags, texts="red\n")
        assert given.exit_code == 0, given.stderr
        vector = json.loads(given.stdout)["embedding"]
        np.testing.assert_allclose(vector, tiny_vector(words, pooling), atol=1e-6)
    cut = run("embed", "-", "--model", bare, *flags, texts="red green blue fast slow\n")
    assert "the 5 tokens that the model reads were cut" in cut.stderr
    assert run("doctor", "--model", bare, "--pooling", "mean").exit_code == 0


def test_flags_that_are_refused(bare: Path) -> None:
    unnamed = run("embed", "-", "--model", bare, "--prompt", "query: ", texts="red\n")
    assert "'query: ' has no kind; give KIND=TEXT" in unnamed.stderr
    assert "'median' is not one of" in run("embed", "-", "--model", bare, "--pooling", "median").stderr


def test_a_shell_offers_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "models" / "gte-own")
    (tmp_path / "models" / "app.gte").touch()
    (tmp_path / "models" / "notes").mkdir()

    def offered(typed: str) -> list[tuple[str, str]]:
        found = ShellComplete(gte, {}, "gte", "_GTE_COMPLETE").get_completions(["embed", "--model"], typed)
        return [(item.value, item.type) for item in found]

    assert offered("gte-m") == [("gte-mini", "plain")]
    assert offered("") == [("gte-mini", "plain"), ("gte-nano", "plain")]
    own = str(Path("models", "gte-own"))
    assert offered(own[:-2]) == [(own, "plain")]
    assert offered(str(Path("models", "x"))[:-1]) == [(str(Path("models", "app.gte")), "plain"), (own, "plain")]
    assert offered("mod") == [("mod", "file")]
    assert offered(str(Path("nothing", "here"))) == [(str(Path("nothing", "here")), "file")]


def test_an_index_keeps_the_flags(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("red green", encoding="utf-8")
    index, folder = tmp_path / "i", tmp_path / "notes"
    flags = ("--pooling", "cls", "--prompt", "document=blue ", "--prompt", "query=slow ", "--max-tokens", "6")
    made = run("index", folder, "-o", index, "--model", bare, *flags)
    assert made.exit_code == 0, made.stderr
    (folder / "b.txt").write_text("fast", encoding="utf-8")
    assert "1 added" in run("index", "-o", index).stderr
    found = run("search", "slow", index, "--json", "--mode", "meaning")
    assert found.exit_code == 0, found.stderr
    model = Embedder(bare, pooling="cls", prompts={"document": "blue ", "query": "slow "}, max_tokens=6)
    with PassageStore(index) as store:
        assert store.settings.facts == {
            "pooling": "cls", "prompts": {"document": "blue ", "query": "slow "}, "max_tokens": 6,
        }  # fmt: skip
        vectors = store.snapshot().vectors
    assert vectors.shape == (2, model.dim)
    score = json.loads(found.stdout.splitlines()[0])["score"]
    assert abs(float((vectors @ model.embed_query("slow")).max()) - score) < 1e-4
    other = run("index", "-o", index, "--prompt", "document=green ")
    assert other.exit_code == 1
    assert "its vectors with it; leave --prompt, --pooling and --max-tokens out" in other.stderr
    assert run("index", "-o", index, "--rebuild", "--prompt", "document=green ").exit_code == 0
    with PassageStore(index) as store:
        kept = store.settings.facts or {}
        assert (kept["pooling"], kept["prompts"]) == ("cls", {"document": "green "})
        store.set_meta({"facts": json.dumps({"prompts": {"query": 1}})})
    assert "which is no description" in run("search", "slow", index).stderr
