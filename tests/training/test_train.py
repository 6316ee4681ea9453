"""Training as a whole: what a run leaves behind, that a killed one continues with the same losses, how it fails."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.pairs import Pair, PairsError, open_source, write_pairs
from training.encoders.encoder import StaticEncoder
from training.encoders.encoder_files import load_encoder
from training.recipes.recipe import RecipeError
from training.runs.checkpoint import CheckpointError, explain_full_disk, find_latest_checkpoint, load_state
from training.runs.command_line import TrainingError
from training.runs.run_log import append_log, read_log

from .tiny_run import change, full_disk, losses, train

ROOT = Path(__file__).parents[2]


def test_a_run_learns_and_leaves_all_that_made_it(data: Path) -> None:
    run = train(data, "run")
    lines = read_log(run / "log.csv")
    assert [(line.stage, line.step) for line in lines] == [
        *(("pretrain", step) for step in range(1, 9)),
        *(("finetune", step) for step in range(9, 14)),
    ]
    assert lines[7].loss < lines[0].loss
    assert [line.learning_rate for line in lines[:2]] == pytest.approx([1e-2, 1e-2])  # 5 % of 8 steps is one step
    assert lines[7].learning_rate == pytest.approx(1e-2 / 7)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["pretrain"]["steps"] == 8
    assert metrics["finetune"]["loss_of_last_tenth"] == pytest.approx(lines[-1].loss)
    record = json.loads((run / "run.json").read_text())
    assert [source["name"] for source in record["data"]["pretrain"]] == ["a__one", "b__two"]
    assert all(re.fullmatch("[0-9a-f]{64}", source["sha256"]) for source in record["data"]["pretrain"])
    assert record["sessions"][0]["packages"]["torch"] == torch.__version__
    assert (run / "loss.png").stat().st_size > 1000
    encoder = load_encoder(run / "model")
    assert (encoder.dim, encoder.max_tokens) == (16, 16)
    mined = (run / "mined" / "finetune" / "a__one.parquet").is_file()
    assert mined
    train(data, "run")  # a finished run has nothing left to do
    assert read_log(run / "log.csv") == lines


def test_stopped_anywhere_and_continued_gives_the_same_losses_and_weights(data: Path) -> None:
    whole = train(data, "whole")
    parts = data.parent / "parts"
    for _ in range(13):  # one step a session: every place to stop, inside and between stages
        train(data, "parts", "--stop-after", "1")
        if (parts / "metrics.json").is_file():
            break
    assert losses(parts) == losses(whole)
    expected, continued = load_encoder(whole / "model").state_dict(), load_encoder(parts / "model").state_dict()
    assert all(torch.equal(expected[name], continued[name]) for name in expected)
    assert len(json.loads((parts / "run.json").read_text())["sessions"]) == 13


def test_killed_in_the_middle_of_a_step_it_continues_from_its_checkpoint(data: Path) -> None:
    recipe = change(data, ("steps = 8", "steps = 5000"))
    arguments = [str(data.parent / recipe), "--output", str(data.parent / "killed"), "--data", str(data)]
    log = data.parent / "killed" / "log.csv"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train", *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    while not (log.is_file() and len(log.read_text().splitlines()) > 20):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    interrupted = losses(data.parent / "killed")
    checkpoint = find_latest_checkpoint(data.parent / "killed")
    assert checkpoint is not None
    assert load_state(checkpoint)["step"] <= len(interrupted) < 5000
    train(data, "killed", "--stop-after", "30", recipe=recipe)
    whole = losses(train(data, "whole", "--stop-after", str(len(losses(data.parent / "killed"))), recipe=recipe))
    assert losses(data.parent / "killed") == whole
    assert interrupted == whole[: len(interrupted)]


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(data: Path) -> None:
    run = train(data, "run", "--stop-after", "3")
    checkpoint = find_latest_checkpoint(run)
    assert checkpoint is not None
    state = load_state(checkpoint)
    state["encoder"]["backbone.embeddings.word_embeddings.weight"][:] = torch.nan
    good = checkpoint.rename(run / "checkpoints" / "step-00000002")
    checkpoint.mkdir()
    torch.save(state, checkpoint / "state.pt")
    with pytest.raises(TrainingError, match=r"the loss is nan at step 4 of pretrain \(source ([ab])__(one|two)"):
        train(data, "run")
    assert good.is_dir()
    assert [path.name for path in (run / "checkpoints").iterdir() if path.suffix == ".partial"] == []
    assert len(read_log(run / "log.csv")) == 3


def test_a_full_disk_is_an_error_that_names_the_last_good_checkpoint(data: Path) -> None:
    run = train(data, "run", "--stop-after", "3")
    # The model file of the next checkpoint exceeds this.
    message = r"cannot write checkpoint .*step-00000006.*step-00000003: free space"
    with full_disk(20_000), pytest.raises(CheckpointError, match=message):
        train(data, "run")
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000003"]
    assert losses(train(data, "run")) == losses(train(data, "whole"))


def test_a_disk_too_full_for_the_log_says_so_and_the_cut_line_is_dropped(data: Path) -> None:
    run = train(data, "run", "--stop-after", "3")
    lines = read_log(run / "log.csv")
    message = r"cannot write to .*run \(.*\); the last good checkpoint is .*step-00000003: free space"
    room = (run / "log.csv").stat().st_size + 20
    with full_disk(room), pytest.raises(CheckpointError, match=message), explain_full_disk(run):
        append_log(run / "log.csv", lines[0]._replace(step=4))
    assert (run / "log.csv").read_bytes()[-1:] != b"\n"
    assert read_log(run / "log.csv") == lines
    assert losses(train(data, "run", "--stop-after", "2"))[:3] == [line.loss for line in lines]


def test_another_recipe_other_data_and_damage_are_refused(data: Path) -> None:
    run = train(data, "run", "--stop-after", "2")
    with pytest.raises(RecipeError, match="holds a run of another recipe or seed"):
        train(data, "run", "--seed", "1")
    checkpoint = find_latest_checkpoint(run)
    assert checkpoint is not None
    content = (checkpoint / "state.pt").read_bytes()
    (checkpoint / "state.pt").write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        train(data, "run")
    (checkpoint / "state.pt").write_bytes(content)
    write_pairs(data / "stage1" / "b__two.parquet", [Pair(f"q {row}", f"d {row}") for row in range(30)])
    with pytest.raises(PairsError, match="the data differs from what"):
        train(data, "run")
    (data / "stage1" / "a__one.parquet").unlink()
    with pytest.raises(PairsError, match="'stage1/a__one' matches no"):
        train(data, "run")


def test_distillation_matryoshka_mixing_and_a_static_student(data: Path) -> None:
    teacher = train(data, "teacher", "--stop-after", "3")
    checkpoint = find_latest_checkpoint(teacher)
    assert checkpoint is not None
    static = f"""
name = "static"
[encoder]
kind = "static"
start = "{checkpoint / "model"}"
dim = 8
max_tokens = 32
[stages.one]
sources = ["stage1/*"]
batch_size = 8
steps = 20
max_tokens = 16
learning_rate = 1e-2
temperature = 0.05
mixed_sources = true
matryoshka = [8, 4]
false_negative_margin = 0.1
[stages.one.distillation.first]
teacher = "{checkpoint / "model"}"
weight = 10.0
kind = "similarities"
[stages.two]
sources = ["stage1/*"]
batch_size = 8
steps = 2
max_tokens = 16
learning_rate = 1e-3
loss_weights = {{ a = 0.0 }}
[stages.two.distillation.first]
teacher = "start"
texts = "queries"
category_weights = {{ a = 0.0 }}
"""
    (data.parent / "static.toml").write_text(static)
    run = train(data, "static", recipe="static.toml")
    lines = read_log(run / "log.csv")
    assert {line.source for line in lines[:20]} == {"mixed"}
    assert all((line.loss == 0) == line.source.startswith("a__") for line in lines[20:])
    assert np.mean([line.loss for line in lines[15:20]]) < np.mean([line.loss for line in lines[:5]])
    encoder = load_encoder(run / "model")
    assert isinstance(encoder, StaticEncoder)
    assert (encoder.dim, encoder.max_tokens) == (8, 32)


def test_frozen_token_embeddings_stay_and_dropout_is_set(data: Path) -> None:
    recipe = change(
        data, ("max_tokens = 16\narch", "max_tokens = 16\nfreeze_token_embeddings = true\ndropout = 0.0\narch")
    )
    run = train(data, "run", "--stop-after", "3", recipe=recipe)
    checkpoint = find_latest_checkpoint(run)
    assert checkpoint is not None
    torch.manual_seed(0)
    start = train(data, "start", "--stop-after", "1", recipe=recipe)
    first = find_latest_checkpoint(start)
    assert first is not None
    early, late = load_state(first)["encoder"], load_state(checkpoint)["encoder"]
    changed = {name for name in early if not torch.equal(early[name], late[name])}
    assert "backbone.embeddings.word_embeddings.weight" not in changed
    assert "backbone.embeddings.position_embeddings.weight" in changed


def test_frozen_layers_stay_for_their_stage_alone(data: Path) -> None:
    changes = (("layers = 1", "layers = 3"), ("steps = 8", "steps = 8\nfrozen_layers = 2"))
    recipe = change(data, *changes)
    encoders = [
        load_state(checkpoint)["encoder"]
        for output, steps in (("first", "1"), ("last", "8"), ("later", "10"))
        if (checkpoint := find_latest_checkpoint(train(data, output, "--stop-after", steps, recipe=recipe)))
    ]
    changed = [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(encoders)
    ]
    frozen = {name for name in encoders[0] if "embeddings" in name or "layer.0." in name or "layer.1." in name}
    assert not changed[0] & frozen
    assert {name for name in changed[0] if "layer.2." in name}
    assert {name for name in changed[1] if "layer.0." in name}
    assert "backbone.embeddings.word_embeddings.weight" in changed[1]
    with pytest.raises(RecipeError, match=r"stages\.pretrain\.frozen_layers = 2; the encoder has 1 layers"):
        train(data, "too-many", recipe=change(data, changes[1]))


def test_labels_change_the_loss_and_are_kept_with_mined_negatives(data: Path) -> None:
    unlabelled = train(data, "unlabelled")
    for name in ("a__one", "b__two"):
        source = open_source(data / "stage1" / f"{name}.parquet")
        pairs = [source[index]._replace(label=source[index].query[0]) for index in range(len(source))]
        write_pairs(data / "stage1" / f"{name}.parquet", pairs)
    labelled = train(data, "labelled")
    assert losses(labelled)[0] < losses(unlabelled)[0]  # the same batch, of fewer terms
    mined = open_source(labelled / "mined" / "finetune" / "a__one.parquet")
    assert all(mined[row].label == mined[row].query[0] for row in range(len(mined)))


def test_linked_labels_change_the_loss_as_a_column_does(data: Path) -> None:
    source = open_source(data / "stage1" / "a__one.parquet")
    pairs = [source[index] for index in range(len(source))]
    # Four texts in a ring, each pair of neighbours a pair: opposite ones have no text in common, so a batch has both.
    linked = [pair._replace(document=pairs[row // 4 * 4 + (row + 1) % 4].query) for row, pair in enumerate(pairs)]
    write_pairs(data / "stage1" / "a__one.parquet", linked)
    by_links = change(data, ("average_last = 0.5", 'average_last = 0.5\nlinked_labels = ["a__*"]'), name="links.toml")
    unlabelled, labelled = train(data, "unlabelled"), train(data, "labelled", recipe=by_links)
    with_column = [pair._replace(label=str(row // 4)) for row, pair in enumerate(linked)]
    write_pairs(data / "stage1" / "a__one.parquet", with_column)
    assert losses(labelled)[:8] == losses(train(data, "column"))[:8]  # finetune has the column alone
    assert losses(labelled)[:8] != losses(unlabelled)[:8]
