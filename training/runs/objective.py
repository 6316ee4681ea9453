"""The loss of a stage, as its recipe describes it: contrastive or one's own, Matryoshka, teachers."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor

from training.data.pairs import Pair
from training.loss.gather import Counts, gather_batch, process_index
from training.loss.losses import (
    Loss,
    LossKind,
    PairLabels,
    contrastive_loss,
    cut_rows,
    matryoshka,
    ranking_distillation_loss,
    similarity_distillation_loss,
    vector_distillation_loss,
)
from training.recipes.recipe import Distillation, RecipeError, Stage


class Taught(NamedTuple):
    """What one teacher says of a batch."""

    distillation: Distillation
    weight: float
    """Of this batch's category."""
    vectors: Tensor
    """(n, d): of the texts that `distillation.texts` names, queries, then documents."""


def find_loss(stage: Stage, block_rows: int = 1024, labels: PairLabels | None = None) -> Loss:
    """The loss that `stage.loss` names. Raises RecipeError for a dotted name that cannot be imported."""
    if stage.loss in get_args(LossKind):
        margin = stage.false_negative_margin if stage.false_negative_margin >= 0 else None
        return partial(
            contrastive_loss,
            kind=cast(LossKind, stage.loss),
            false_negative_margin=margin,
            labels=labels,
            block_rows=block_rows,
        )
    module, _, name = stage.loss.rpartition(".")
    try:
        loss: Loss = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"loss = {stage.loss!r}: {error}; it must be a function that Python can import") from error
    return loss


def stage_loss(
    stage: Stage,
    counts: Sequence[Counts],
    taught: Sequence[Taught],
    block_rows: int,
    labels: PairLabels | None = None,
    weight_of_pairs: float = 1.0,
) -> Callable[[Tensor], Tensor]:
    """The loss as a function of a batch's vectors: those of the queries, documents and negatives, in this order.

    `counts` says how many there are of each, in each process. `labels` are those of the whole batch, of all processes.
    `weight_of_pairs` is of `stage.loss`, beside the teachers' weights.
    """
    loss_of_batch = find_loss(stage, block_rows, labels)

    def loss_of(vectors_ND: Tensor) -> Tensor:
        batch = gather_batch(vectors_ND, counts)
        queries_ND, documents_ND, _ = torch.split(vectors_ND, list(counts[process_index()]))
        distilled = {
            "queries": queries_ND,
            "documents": documents_ND,
            "both": torch.cat([queries_ND, documents_ND]),
        }

        def loss_of_dim(dim: int) -> Tensor:
            loss = vectors_ND.sum() * 0
            if weight_of_pairs:
                loss = weight_of_pairs * loss_of_batch(
                    cut_rows(batch.queries_AD, dim),
                    cut_rows(batch.documents_AD, dim),
                    cut_rows(batch.negatives_MD, dim),
                    own=batch.own,
                    temperature=stage.temperature,
                )
            for distillation, weight, teacher_NE in taught:
                if distillation.kind == "vectors":  # below: in the full dimension only
                    continue
                student_ND = cut_rows(distilled[distillation.texts], dim)
                if distillation.kind == "similarities":
                    loss = loss + weight * similarity_distillation_loss(student_ND, teacher_NE)
                else:
                    loss = loss + weight * ranking_distillation_loss(student_ND, teacher_NE, distillation.temperature)
            return loss

        loss = matryoshka(loss_of_dim, stage.matryoshka or (vectors_ND.shape[1],))
        for distillation, weight, teacher_ND in taught:
            if distillation.kind == "vectors":
                loss = loss + weight * vector_distillation_loss(distilled[distillation.texts], teacher_ND)
        return loss

    return loss_of


def number_labels(pairs: Sequence[Pair], device: torch.device) -> PairLabels | None:
    """The labels of a whole batch as numbers; None where no pair has one."""
    if not any(pair.label for pair in pairs):
        return None
    names = {name: number for number, name in enumerate(sorted({pair.label for pair in pairs} - {""}))}
    of_pairs = [names.get(pair.label, -1) for pair in pairs]
    of_negatives = np.repeat(of_pairs, [len(pair.negatives) for pair in pairs])
    return PairLabels(torch.tensor(of_pairs, device=device), torch.from_numpy(of_negatives).to(device))
