"""What processes share in a step: the rows of all, so that they share their negatives, and the gradients.

Each process differentiates the mean over its own rows. The backward pass of gather_rows sums the gradients of a row
over all processes' losses. average_gradients then gives the gradient of the mean over the whole batch. It is not left
to DDP, which reduces inside of a backward pass: processes whose texts differ in length make different numbers of
passes, and would wait for each other forever.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

MOST_NUMBERS = 2**25
"""Gradients that travel together: 134 MB in float32, so that their copy takes no more."""


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows_ND: Tensor, counts: list[int]) -> Tensor:
        context.counts = counts
        return torch.cat(_all_gather(rows_ND, counts))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_ND,) = gradients
        gradient_ND = gradient_ND.contiguous()
        dist.all_reduce(gradient_ND)
        start = sum(context.counts[: dist.get_rank()])
        return gradient_ND[start : start + context.counts[dist.get_rank()]], None


def gather_rows(rows_ND: Tensor) -> Tensor:
    """(sum of n over processes, d): the rows of all processes by rank. With one process, it is `rows_ND` itself.

    Processes may have different numbers of rows, also none. Differentiable with respect to this process's rows.
    """
    if process_count() == 1:
        return rows_ND
    gathered: Tensor = _GatherRows.apply(rows_ND, _row_counts(rows_ND))  # type: ignore[no-untyped-call]
    return gathered


def first_row(rows_ND: Tensor) -> int:
    """The index of this process's first row in the result of gather_rows."""
    return 0 if process_count() == 1 else sum(_row_counts(rows_ND)[: dist.get_rank()])


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces the gradient of each parameter by its mean over all processes, which must all have the same ones."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if process_count() == 1:
        return
    for part in _parts(gradients, MOST_NUMBERS):
        flat = torch.cat([gradient.reshape(-1) for gradient in part])
        dist.all_reduce(flat)
        flat /= process_count()
        for gradient, mean in zip(part, torch.split(flat, [gradient.numel() for gradient in part]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _row_counts(rows_ND: Tensor) -> list[int]:
    counts_W = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows_ND.device)
    counts_W[dist.get_rank()] = len(rows_ND)
    dist.all_reduce(counts_W)
    return [int(count) for count in counts_W.tolist()]


def _all_gather(rows_ND: Tensor, counts: list[int]) -> list[Tensor]:
    """all_gather needs equal shapes, so rows are padded to the largest count and cut again."""
    padded_ND = rows_ND.new_zeros(max(counts), rows_ND.shape[1])
    padded_ND[: len(rows_ND)] = rows_ND.detach()
    parts = [torch.empty_like(padded_ND) for _ in counts]
    dist.all_gather(parts, padded_ND)
    return [part_ND[:count] for part_ND, count in zip(parts, counts, strict=True)]


def _parts(tensors: Sequence[Tensor], most_numbers: int) -> list[list[Tensor]]:
    """The tensors in runs of at most `most_numbers` numbers; a larger one is a run of its own."""
    parts: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        size += tensor.numel()
        if size > most_numbers and parts[-1]:
            parts.append([])
            size = tensor.numel()
        parts[-1].append(tensor)
    return parts
