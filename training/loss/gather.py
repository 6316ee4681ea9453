"""What processes share in a step: the rows of all, so that they share their negatives, and the gradients.

Each process differentiates the mean over its own rows. The backward pass of gather_batch sums the gradients of a row
over all processes' losses. average_gradients then gives the gradient of the mean over the whole batch. It is not left
to DDP, which reduces inside of a backward pass: processes whose texts differ in length make different numbers of
passes, and would wait for each other forever.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

MOST_NUMBERS = 2**25
"""Gradients that travel together: 134 MB in float32, so that their copy takes no more."""


Counts = tuple[int, int, int]
"""How many queries, documents and negatives a process has; documents are as many as queries."""


class Gathered(NamedTuple):
    """The vectors of a whole batch, by rank."""

    queries_AD: Tensor
    documents_AD: Tensor
    negatives_MD: Tensor
    own: slice
    """The pairs of this process."""


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


def gather_batch(vectors_ND: Tensor, counts: Sequence[Counts]) -> Gathered:
    """The rows of all processes, gathered once, whatever is computed of them afterwards.

    `vectors_ND` are this process's queries, documents and negatives. `counts` says for each process, by rank, how many
    there are; all know that, because all draw the same batches. Differentiable with respect to `vectors_ND`.
    """
    rank = process_index()
    first = sum(queries for queries, _, _ in counts[:rank])
    all_ND = vectors_ND
    if process_count() > 1:
        all_ND = _GatherRows.apply(vectors_ND, [sum(of_one) for of_one in counts])  # type: ignore[no-untyped-call]
    parts = torch.split(all_ND, [count for of_one in counts for count in of_one])
    queries_AD, documents_AD, negatives_MD = (torch.cat(parts[kind::3]) for kind in range(3))
    return Gathered(queries_AD, documents_AD, negatives_MD, slice(first, first + counts[rank][0]))


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


def process_index() -> int:
    return dist.get_rank() if process_count() > 1 else 0


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
