"""fp16's scaling of the loss, with a real scaler: gradients are unscaled once in every stage, and a run continues."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.amp import GradScaler

import training.train
from training.recipes.recipe import Stage
from training.runs.checkpoint import RunState, load_state
from training.runs.hardware import open_accelerator
from training.runs.optimizer import make_optimizer, take_step

from .tiny_run import change, losses, train

# The scale changes every third step, and gradients are longer than clip_norm.
CHANGES = (("steps = 8", "steps = 8\nclip_norm = 0.1"), ("steps = 5", "steps = 5\nclip_norm = 0.1"))


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs scale their losses as in fp16, but compute in float32, where powers of two change no digit."""

    def open_scaled(*arguments: Any) -> Accelerator:
        accelerator = open_accelerator(*arguments)
        accelerator.scaler = GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
        return accelerator

    monkeypatch.setattr(training.train, "open_accelerator", open_scaled)


def test_a_scaled_step_clips_what_was_unscaled_once_and_skips_what_overflowed() -> None:
    weight = torch.nn.Linear(2, 1, bias=False)
    before = weight.weight.detach().clone()
    scaler = GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    for gradient, taken in (([9.0, 12.0], [0.6, 0.8]), ([torch.inf, 0.0], [0.0, 0.0])):
        before = weight.weight.detach().clone()
        scaler.scale((weight.weight * torch.tensor(gradient)).sum()).backward()  # type: ignore[no-untyped-call]
        take_step(optimizer, list(weight.parameters()), 1.0, scaler)
        torch.testing.assert_close(before - weight.weight, torch.tensor([taken]))
        assert weight.weight.grad is None
    assert scaler.get_scale() == 2.0**15


def test_a_scaled_run_is_the_unscaled_one_in_both_stages_also_stopped_in_the_second(
    data: Path, request: pytest.FixtureRequest
) -> None:
    recipe = change(data, *CHANGES)
    plain = train(data, "plain", recipe=recipe)
    request.getfixturevalue("scaled")
    whole = train(data, "whole", recipe=recipe)
    assert losses(whole) == losses(plain)
    parts = data.parent / "parts"
    for steps in ("5", "3", "2", "9"):  # inside the first stage, at its end, inside the second
        train(data, "parts", "--stop-after", steps, recipe=recipe)
    assert losses(parts) == losses(plain)
    scales = [
        load_state(run / "checkpoints" / f"step-{13:08d}")["scaler"]["scale"]  # type: ignore[index]
        for run in (whole, parts)
    ]
    assert scales == [2.0**24, 2.0**24]


def test_a_stage_begins_without_the_optimizer_and_the_state_of_the_one_before(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, "run", "--stop-after", "7")
    alive: list[weakref.ref[Any]] = []
    counts: list[int] = []

    def load_and_watch(checkpoint: Path) -> RunState:
        state = load_state(checkpoint)
        assert state["in_stage"] is not None
        alive.extend(weakref.ref(of_one["exp_avg"]) for of_one in state["in_stage"]["optimizer"]["state"].values())
        alive.extend(map(weakref.ref, state["encoder"].values()))
        return state

    def make_and_watch(encoder: torch.nn.Module, stage: Stage, sharded: bool) -> torch.optim.Optimizer:
        gc.collect()
        counts.append(sum(reference() is not None for reference in alive))
        optimizer = make_optimizer(encoder, stage, sharded)
        alive.append(weakref.ref(optimizer))
        return optimizer

    monkeypatch.setattr(training.train, "load_state", load_and_watch)
    monkeypatch.setattr(training.train, "make_optimizer", make_and_watch)
    train(data, "run")
    assert len(alive) > 20
    assert counts[0] > 0
    assert counts[1] == 0
