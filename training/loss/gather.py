"""Gathers the rows of all processes, so that they share their negatives, and sends gradients back.

Each process differentiates the mean over its own rows. The backward pass here sums the gradients of a row over all
processes' losses. DDP then averages over processes, which gives the gradient of the mean over the whole batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


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
