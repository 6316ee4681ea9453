"""AdamW with linear warm-up and decay, its step and state in several processes, and the mean of the last weights."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from training.loss.gather import process_count
from training.recipes.recipe import Stage


def make_optimizer(encoder: nn.Module, stage: Stage, sharded: bool) -> torch.optim.Optimizer:
    """AdamW over the trained parameters, without weight decay on biases and norms. `sharded` is ZeRO stage 1."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    beta_1, beta_2 = stage.betas
    groups = [group for group in groups if group["params"]]
    if sharded and process_count() > 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer  # its import compiles deprecated TorchScript

        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, lr=stage.learning_rate, betas=(beta_1, beta_2))
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(beta_1, beta_2))


def take_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], clip_norm: float, scaler: GradScaler | None
) -> None:
    """Clips the norm of the gradients of all parameters, takes the step, and removes the gradients.

    `scaler` is what scaled the loss, for fp16: gradients are unscaled before they are clipped, and a step with one that
    overflowed is not taken. The optimizer is not one of Accelerate's, which would unscale the gradients once for every
    optimizer of the run.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad()


def collect_optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The whole state in process 0, also of a sharded optimizer, and {} elsewhere. All processes must call it."""
    if hasattr(optimizer, "consolidate_state_dict"):
        optimizer.consolidate_state_dict(to=0)
        if torch.distributed.get_rank() != 0:
            return {}
    state: dict[str, Any] = optimizer.state_dict()
    return state


def learning_rate_at(stage: Stage, step: int, step_count: int) -> float:
    """The rate of step 0 <= step < step_count: up to learning_rate over the fraction `warmup`, then down towards 0."""
    warmup_steps = math.ceil(stage.warmup * step_count)
    if step < warmup_steps:
        return stage.learning_rate * (step + 1) / warmup_steps
    return stage.learning_rate * (step_count - step) / (step_count - warmup_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class WeightAverage:
    """The running mean of the trained weights from `first_step` on. `apply` copies it into the encoder."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.count = 0
        self.weights: dict[str, Tensor] = {}

    def update(self, encoder: nn.Module, step: int) -> None:
        if step < self.first_step:
            return
        self.count += 1
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                weight = parameter.detach()
                mean = self.weights.setdefault(name, torch.zeros_like(weight))
                mean += (weight - mean) / self.count

    def apply(self, encoder: nn.Module) -> None:
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if name in self.weights:
                    parameter.copy_(self.weights[name])

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "weights": self.weights}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        self.count = state["count"]
        self.weights = {name: weight.to(device) for name, weight in state["weights"].items()}
