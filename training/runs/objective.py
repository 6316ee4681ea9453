"""The loss of a stage, as its recipe describes it: contrastive loss, Matryoshka dimensions, distillation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.data.pairs import Pair
from training.loss.losses import (
    PairLabels,
    contrastive_loss,
    cut_rows,
    matryoshka,
    similarity_distillation_loss,
    vector_distillation_loss,
)
from training.recipes.recipe import Distillation, Stage


class Taught(NamedTuple):
    """What one teacher says of a batch."""

    distillation: Distillation
    weight: float
    """Of this batch's category."""
    vectors: Tensor
    """(n, d): of the texts that `distillation.texts` names, queries, then documents."""


def stage_loss(
    stage: Stage,
    counts: tuple[int, int, int],
    taught: Sequence[Taught],
    block_rows: int,
    labels: PairLabels | None = None,
) -> Callable[[Tensor], Tensor]:
    """The loss as a function of a batch's vectors: those of the queries, documents and negatives, in this order.

    `counts` says how many there are of each. `labels` are those of the whole batch, of all processes.
    """
    margin = stage.false_negative_margin if stage.false_negative_margin >= 0 else None

    def loss_of(vectors_ND: Tensor) -> Tensor:
        queries_ND, documents_ND, negatives_MD = torch.split(vectors_ND, list(counts))

        def contrastive(dim: int) -> Tensor:
            return contrastive_loss(
                cut_rows(queries_ND, dim),
                cut_rows(documents_ND, dim),
                cut_rows(negatives_MD, dim),
                temperature=stage.temperature,
                kind=stage.loss,
                false_negative_margin=margin,
                labels=labels,
                block_rows=block_rows,
            )

        loss = matryoshka(contrastive, stage.matryoshka or (vectors_ND.shape[1],))
        distilled = {
            "queries": queries_ND,
            "documents": documents_ND,
            "both": vectors_ND[: counts[0] + counts[1]],
        }
        for distillation, weight, teacher_ND in taught:
            distance = similarity_distillation_loss if distillation.kind == "similarities" else vector_distillation_loss
            loss = loss + weight * distance(distilled[distillation.texts], teacher_ND)
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
