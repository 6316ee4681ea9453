"""`gte search` over real files with a tiny real model: what it finds, how it says it, and what stops it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder
from gte_sdk.cli.commands import gte
from gte_sdk.cli.terminal import MAX_NOTICES

from ..tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "document: "}
    return write_tiny_model(tmp_path_factory.mktemp("model"), prompts=prompts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "colours.md").write_text("# red\n\nred red red\n\n## blue\n\nblue\nblue fast\n", encoding="utf-8")
    (tmp_path / "code.py").write_text("def green():\n    return green\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("slow slow slow\n", encoding="utf-8")
    return tmp_path


def search(model: Path, *arguments: str | Path, questions: str | None = None, color: bool = False) -> Result:
    command = ["search", "--model", str(model), *map(str, arguments)]
    return CliRunner().invoke(gte, command, input=questions, color=color)


def answers(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_passages_are_ranked_by_the_cosine_of_their_vectors(model: Path, folder: Path) -> None:
    found = answers(search(model, "blue", folder, "--json", "-k", "3", "--mode", "meaning"))
    assert [answer["rank"] for answer in found] == [1, 2, 3]
    assert (found[0]["path"], found[0]["line"], found[0]["context"]) == (str(folder / "colours.md"), 5, "red")
    assert found[0]["text"] == "## blue\n\nblue\nblue fast"
    assert {answer["question"] for answer in found} == {"blue"}
    embedder = Embedder(model)
    documents = [f"{answer['context']}\n{answer['text']}".strip() for answer in found]
    cosines = embedder.embed_documents(documents) @ embedder.embed_query("blue")
    np.testing.assert_allclose([answer["score"] for answer in found], cosines, atol=2e-6)
    assert list(cosines) == sorted(cosines, reverse=True)


def test_text_output_names_the_place_the_score_and_the_heading(model: Path, folder: Path) -> None:
    result = search(model, "blue", folder, "-k", "1")
    assert result.exit_code == 0
    head, *excerpt = result.stdout.splitlines()
    place, score, context = head.split("  ")
    assert (place, context) == (f"{folder / 'colours.md'}:5", "red")
    assert 0.5 < float(score) <= 1
    assert excerpt == ["    ## blue", "    blue", "    blue fast", ""]
    assert "gte: 4 passages of 3 files" in result.stderr
    assert "embedded in" in result.stderr
    assert "\x1b" not in result.output


def test_words_and_both_are_modes_and_both_is_the_default(model: Path, folder: Path) -> None:
    (folder / "net.py").write_text("def bind():\n    raise_error(EADDRINUSE)\n", encoding="utf-8")
    by_words = answers(search(model, "EADDRINUSE", folder, "--json", "--mode", "words"))
    assert [Path(answer["path"]).name for answer in by_words] == ["net.py"]
    assert 0 < by_words[0]["score"] < 1
    by_meaning = answers(search(model, "EADDRINUSE", folder, "--json", "--mode", "meaning", "-k", "9"))
    by_both = answers(search(model, "EADDRINUSE", folder, "--json", "-k", "9"))
    assert by_both == answers(search(model, "EADDRINUSE", folder, "--json", "-k", "9", "--mode", "hybrid"))
    assert Path(by_both[0]["path"]).name == "net.py"
    cosine = {answer["path"]: answer["score"] for answer in by_meaning}[by_both[0]["path"]]
    assert by_both[0]["score"] == pytest.approx(0.6 * cosine + 0.4 * by_words[0]["score"], abs=3e-6)


def test_passages_below_the_least_score_are_left_out(model: Path, folder: Path) -> None:
    scores = [answer["score"] for answer in answers(search(model, "blue", folder, "--json"))]
    least = (scores[0] + scores[1]) / 2
    assert len(answers(search(model, "blue", folder, "--json", "--min-score", str(least)))) == 1
    result = search(model, "blue", folder, "--min-score", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "gte: nothing found with a score of 1.0 or more" in result.stderr
    assert search(model, "blue", folder, "--min-score", "2").exit_code == 2


def test_colours_are_for_terminals_and_not_where_no_color_is_set(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[35m" in search(model, "blue", folder, color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in search(model, "blue", folder, color=True).output


def test_lines_of_the_excerpt(model: Path, folder: Path) -> None:
    lines = search(model, "blue", folder, "-k", "1", "--lines", "2").stdout.splitlines()
    assert lines[1:] == ["    ## blue", "    blue …", ""]
    assert len(search(model, "blue", folder, "-k", "2", "--lines", "0").stdout.splitlines()) == 2


def test_prose_is_shown_in_the_width_of_the_terminal_and_code_line_by_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "45")
    first, second = "red " + "word " * 12 + "end", "blue of the same paragraph"
    (tmp_path / "a.md").write_text(f"# Title\n\n{first}\n{second}\n- item\n- item\n", encoding="utf-8")
    (tmp_path / "a.py").write_text(f"{first}\n{second}\n", encoding="utf-8")
    assert search(model, "red", tmp_path / "a.md", "--lines", "9").stdout.splitlines()[1:] == [
        "    # Title", "    red word word word word word word word", "    word word word word word end blue of the",
        "    same paragraph", "    - item", "    - item", "",
    ]  # fmt: skip
    assert search(model, "red", tmp_path / "a.py").stdout.splitlines()[1:] == [
        "    red word word word word word word word", "    word word word word word end", f"    {second}", "",
    ]  # fmt: skip


def test_quiet_leaves_results_only(model: Path, folder: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xff")
    assert "not UTF-16" in search(model, "blue", folder).stderr
    assert search(model, "blue", folder, "--quiet").stderr == ""


def test_k_beyond_the_passages_gives_all_of_them(model: Path, folder: Path) -> None:
    assert len(answers(search(model, "blue", folder, "--json", "-k", "1000"))) == 4


def test_questions_from_standard_input_read_the_files_once(model: Path, folder: Path) -> None:
    found = answers(search(model, "-", folder, "--json", "-k", "1", questions="blue\n\n  slow \ngreen"))
    assert [(answer["question"], Path(answer["path"]).name) for answer in found] == [
        ("blue", "colours.md"), ("slow", "notes.txt"), ("green", "code.py"),
    ]  # fmt: skip
    result = search(model, "-", folder, "-k", "1", questions="blue\nslow\n")
    assert [line for line in result.stdout.splitlines() if line in ("blue", "slow")] == ["blue", "slow"]
    assert result.stderr.count("embedded in") == 1
    assert "question>" not in result.stderr


def test_a_question_that_is_not_utf8_is_answered_all_the_same(model: Path, folder: Path) -> None:
    command = ["search", "-", str(folder), "--model", str(model), "--json", "-k", "1"]
    result = CliRunner().invoke(gte, command, input=b"blue \xff\n")
    assert answers(result)[0]["question"] == "blue \ufffd"


def test_globs_and_excludes(model: Path, folder: Path) -> None:
    (folder / "data.json").write_text('{"red": "blue"}', encoding="utf-8")
    found = answers(search(model, "blue", folder, "--json", "--glob", "*.json", "--glob", "*.py"))
    assert {Path(answer["path"]).name for answer in found} == {"data.json", "code.py"}
    found = answers(search(model, "blue", folder, "--json", "--exclude", "*.md", "--exclude", "notes.*"))
    assert {Path(answer["path"]).name for answer in found} == {"code.py", "data.json"}


def test_what_a_file_holds_cannot_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.txt").write_text("blue \x1b]0;owned\x07 \x1b[2J\rblue\n", encoding="utf-8")
    result = search(model, "blue", tmp_path, color=True)
    assert "\x1b[2J" not in result.stdout
    assert "\x1b]0" not in result.stdout
    assert "\x07" not in result.stdout


def test_only_the_first_notices_are_shown(model: Path, folder: Path) -> None:
    for number in range(MAX_NOTICES + 5):
        (folder / f"bad-{number:02}.txt").write_bytes(b"\0")
    errors = search(model, "blue", folder).stderr.splitlines()
    assert sum("a binary file; skipped" in line for line in errors) == MAX_NOTICES
    assert "gte: and 5 more" in errors


def test_passages_that_the_model_does_not_read_to_their_end_are_reported(model: Path, folder: Path) -> None:
    (folder / "long.txt").write_text("slow " * 100, encoding="utf-8")
    result = search(model, "blue", folder)
    assert result.exit_code == 0
    assert "some passages are longer than the 32 tokens that the model reads; their ends are" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["blue", "{folder}/missing"], 2, "missing' does not exist"),
        (["blue", "{folder}", "-k", "0"], 2, "0 is not in the range x>=1"),
        (["blue", "{folder}", "-k", "many"], 2, "'many' is not a valid integer"),
        ([" ", "{folder}"], 2, "the QUESTION is empty"),
        (["blue", "{folder}", "--threads", "0"], 2, "0 is not in the range x>=1"),
        (["blue", "{folder}", "--glob", "*.nothing"], 1, "no text files in {folder}"),
        (["blue", "{folder}", "--model", "no such model"], 1, "'no such model' is neither a bundled model"),
    ],
)
def test_what_stops_it_is_said_in_one_line(
    model: Path, folder: Path, arguments: list[str], code: int, message: str
) -> None:
    result = search(model, *(argument.format(folder=folder) for argument in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message.format(folder=folder) in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_to_search(model: Path, tmp_path: Path) -> None:
    assert (result := search(model, "blue", tmp_path)).exit_code == 1
    assert f"Error: no text files in {tmp_path}" in result.stderr
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    assert (result := search(model, "blue", tmp_path)).exit_code == 1
    assert f"Error: 1 file without any text in {tmp_path}; left out 1: unknown encoding (1 .txt)" in result.stderr


def test_the_current_folder_is_searched_where_none_is_named(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert {answer["path"] for answer in answers(search(model, "blue", "--json"))} == {
        "colours.md", "code.py", "notes.txt",
    }  # fmt: skip


def test_no_question_on_standard_input(model: Path, folder: Path) -> None:
    assert (result := search(model, "-", folder, questions="\n \n")).exit_code == 1
    assert "there was no question on standard input" in result.stderr


def test_a_question_without_an_end_is_refused(model: Path, folder: Path) -> None:
    assert (result := search(model, "-", folder, questions="blue " * 700_000)).exit_code == 1
    assert "standard input, a question has more than 3 MiB" in result.stderr
