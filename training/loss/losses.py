"""The losses, on unit vectors: GTE's improved contrastive loss, vanilla InfoNCE, Matryoshka and distillation.

Similarities are computed in blocks of rows, and the gradient of a block while its matrices are in memory. With 16,384
pairs a whole float32 matrix takes 1.07 GB, and the improved loss has four; in a block of 1,024 rows each takes 67 MB.
Logits reach 1/temperature = 100, so everything is float32 and log-sum-exp.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

LossKind = Literal["improved", "vanilla"]
Loss = Callable[..., Tensor]
"""(queries_AD, documents_AD, negatives_MD, *, own, temperature): the mean over the pairs `own` of all, as a scalar."""


class PairLabels(NamedTuple):
    """What pairs have in common, as numbers, -1 where a pair has no label; of all processes, in their ranks' order."""

    of_pairs: Tensor
    """(a,) int64"""
    of_negatives: Tensor
    """(m,) int64: of the pair that each negative belongs to."""


def contrastive_loss(
    queries_AD: Tensor,
    documents_AD: Tensor,
    negatives_MD: Tensor | None = None,
    *,
    own: slice = slice(None),
    temperature: float,
    kind: LossKind = "improved",
    false_negative_margin: float | None = None,
    labels: PairLabels | None = None,
    block_rows: int = 1024,
) -> Tensor:
    """The mean over pairs i of -log(exp(s(q_i, d_i) / temperature) / Z_i), s being the dot product of unit rows.

    "improved" is equations 5 to 7 of the GTE paper (arXiv 2308.03281), one joint partition of 4n - 2 terms:
    Z_i = sum_j q_i.d_j + sum_{j!=i} q_i.q_j + sum_j q_j.d_i + sum_{j!=i} d_j.d_i (each exponentiated). The positive
    stands in it twice, so its floor is ln 2. "vanilla" is equation 3, InfoNCE, with the first sum only and floor 0.
    `negatives_MD` are m hard negatives, maybe none, of any of the queries. Each joins the first sum of every query: the
    paper does not say how its 15 enter Z, and this is the natural reading.

    `false_negative_margin` leaves a term out of Z_i if its similarity exceeds the positive's by more than the margin
    (Qwen3-Embedding, arXiv 2506.05176, with 0.1). `labels` leave out the terms between two pairs with the same label,
    because either could be the other's positive, and the negatives that belong to a pair with another label, because
    they may have this label. With several processes, the vectors are those of all (gather_batch), and the mean is over
    the pairs `own` of this one. float16 and bfloat16 are computed in float32.
    """
    queries_AD, documents_AD = _at_least_float32(queries_AD), _at_least_float32(documents_AD)
    if negatives_MD is None:
        negatives_MD = queries_AD.new_zeros(0, queries_AD.shape[1])
    first, _, _ = own.indices(len(queries_AD))

    def block_loss(start: int, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> Tensor:
        queries_BD, documents_BD = rows
        all_queries_AD, all_documents_AD, all_negatives_MD = wholes
        return _sum_of_row_losses(
            queries_BD,
            documents_BD,
            all_queries_AD,
            all_documents_AD,
            all_negatives_MD,
            start + first,
            temperature,
            kind,
            false_negative_margin,
            labels,
        )

    rows, wholes = (queries_AD[own], documents_AD[own]), (queries_AD, documents_AD, _at_least_float32(negatives_MD))
    return _sum_over_blocks(block_loss, rows, wholes, block_rows) / len(rows[0])


def matryoshka(loss_of_dim: Callable[[int], Tensor], dims: Sequence[int]) -> Tensor:
    """The mean of a loss over several dimensions that the vectors are cut to (Matryoshka, arXiv 2205.13147).

    It is a mean and not a sum, so that the value has the scale of a single loss.
    """
    return torch.stack([loss_of_dim(dim) for dim in dims]).mean()


def cut_rows(vectors_ND: Tensor, dim: int) -> Tensor:
    """(n, dim): the first `dim` numbers of each row, scaled to unit length again; gte_sdk's cut_rows for tensors."""
    return vectors_ND if dim == vectors_ND.shape[1] else normalize(vectors_ND[:, :dim], dim=1)


def vector_distillation_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """The mean of 1 - cosine between student and teacher: 0 if the student gives the teacher's vectors.

    A teacher with more dimensions is cut to the student's, which assumes that it is a Matryoshka model.
    """
    teacher_ND = cut_rows(_at_least_float32(teacher_ND), student_ND.shape[1])
    if student_ND.shape != teacher_ND.shape:
        raise ValueError(
            f"student {tuple(student_ND.shape)} has more dimensions than teacher {tuple(teacher_ND.shape)}"
        )
    return 1 - (_at_least_float32(student_ND) * teacher_ND).sum(dim=1).mean()


def similarity_distillation_loss(student_ND: Tensor, teacher_NE: Tensor, block_rows: int = 1024) -> Tensor:
    """The mean squared difference of the models' cosines over all pairs of rows, whatever their dimensions d and e."""
    student_ND, teacher_NE = _at_least_float32(student_ND), _at_least_float32(teacher_NE)

    def block_loss(start: int, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> Tensor:
        (student_BD,), teacher_BE = rows, teacher_NE[start : start + block_rows]
        return (student_BD @ wholes[0].T - teacher_BE @ teacher_NE.T).square().sum()

    return _sum_over_blocks(block_loss, (student_ND,), (student_ND,), block_rows) / len(student_ND) ** 2


def ranking_distillation_loss(
    student_ND: Tensor, teacher_NE: Tensor, temperature: float, block_rows: int = 1024
) -> Tensor:
    """The mean over rows i of KL(p_i || q_i), in which order the teacher sees the other rows, and how sure it is of it.

    p_i and q_i are the softmax of the teacher's and the student's cosines between row i and all others, divided by
    `temperature` (SEED, arXiv 2101.04731, with the batch in place of a queue). It is 0 if the student gives the
    teacher's cosines, whatever the dimensions d and e; near neighbours count most, where
    similarity_distillation_loss weighs all pairs alike. n is at least 2.
    """
    student_ND, teacher_NE = _at_least_float32(student_ND), _at_least_float32(teacher_NE)

    def block_loss(start: int, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> Tensor:
        (student_BD,), teacher_BE = rows, teacher_NE[start : start + block_rows]
        itself_BN = torch.arange(start, start + len(student_BD), device=student_BD.device)[:, None] == torch.arange(
            len(teacher_NE), device=student_BD.device
        )
        student_BN, teacher_BN = (
            (cosines_BN / temperature).masked_fill(itself_BN, -torch.inf).log_softmax(dim=1).masked_fill(itself_BN, 0)
            for cosines_BN in (student_BD @ wholes[0].T, teacher_BE @ teacher_NE.T)
        )
        return (teacher_BN.exp() * (teacher_BN - student_BN)).sum()

    return _sum_over_blocks(block_loss, (student_ND,), (student_ND,), block_rows) / len(student_ND)


BlockLoss = Callable[[int, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""A block's first row, its rows of some tensors, and other tensors as a whole, to a scalar."""


def _sum_over_blocks(
    block_loss: BlockLoss, by_rows: Sequence[Tensor], wholes: Sequence[Tensor], block_rows: int
) -> Tensor:
    """The sum of `block_loss` over blocks of rows of `by_rows`, with gradients to both kinds of tensors."""
    total: Tensor = _SumOverBlocks.apply(block_loss, block_rows, len(by_rows), *by_rows, *wholes)  # type: ignore[no-untyped-call]
    return total


class _SumOverBlocks(torch.autograd.Function):
    """Differentiates in the forward pass, block by block, so that no matrix outlives its block or is computed twice."""

    @staticmethod
    def forward(context: Any, block_loss: BlockLoss, block_rows: int, row_count: int, *tensors: Tensor) -> Tensor:
        by_rows, wholes = tensors[:row_count], tensors[row_count:]
        gradients = [torch.zeros_like(tensor) for tensor in tensors]
        total = by_rows[0].new_zeros(())
        for start in range(0, len(by_rows[0]), block_rows):
            block = slice(start, start + block_rows)
            with torch.enable_grad():
                rows = [tensor[block].detach().requires_grad_() for tensor in by_rows]
                leaves = [tensor.detach().requires_grad_() for tensor in wholes]
                loss = block_loss(start, rows, leaves)
                parts = torch.autograd.grad(loss, [*rows, *leaves], allow_unused=True)
            total += loss.detach()
            for number, part in enumerate(parts):
                if part is not None:  # vanilla InfoNCE does not use the other queries
                    target = gradients[number][block] if number < row_count else gradients[number]
                    target += part
        context.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(context: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(outputs[0] * gradient for gradient in context.saved_tensors))


def _sum_of_row_losses(
    queries_BD: Tensor,
    documents_BD: Tensor,
    all_queries_AD: Tensor,
    all_documents_AD: Tensor,
    all_negatives_MD: Tensor,
    first: int,
    temperature: float,
    kind: LossKind,
    false_negative_margin: float | None,
    labels: PairLabels | None,
) -> Tensor:
    """Row b of the block is pair `first + b` of all; its positive is document `first + b`."""
    rows_B = torch.arange(len(queries_BD), device=queries_BD.device)
    positive_B = (queries_BD * documents_BD).sum(dim=1)
    own_BA = torch.zeros(len(queries_BD), len(all_queries_AD), dtype=torch.bool, device=queries_BD.device)
    own_BA[rows_B, rows_B + first] = True

    # Other pairs with the row's label, and negatives of pairs with other labels.
    same_BA, foreign_BM = (None, None) if labels is None else _by_label(labels, rows_B + first)
    no_term_BA = own_BA if same_BA is None else own_BA | same_BA

    # (similarities, where the positive is, what is not a term of Z)
    terms: list[tuple[Tensor, Tensor | None, Tensor | None]]
    terms = [(queries_BD @ all_documents_AD.T, own_BA, same_BA), (queries_BD @ all_negatives_MD.T, None, foreign_BM)]
    if kind == "improved":
        terms.append((queries_BD @ all_queries_AD.T, None, no_term_BA))
        terms.append((documents_BD @ all_queries_AD.T, own_BA, same_BA))
        terms.append((documents_BD @ all_documents_AD.T, None, no_term_BA))

    partition_B = torch.full_like(positive_B, -torch.inf)
    for similarity_BX, positive_BX, excluded_BX in terms:
        if false_negative_margin is not None:
            false_negative_BX = similarity_BX.detach() > (positive_B.detach() + false_negative_margin)[:, None]
            if positive_BX is not None:
                false_negative_BX &= ~positive_BX
            excluded_BX = false_negative_BX if excluded_BX is None else excluded_BX | false_negative_BX
        logits_BX = similarity_BX / temperature
        if excluded_BX is not None:
            logits_BX = logits_BX.masked_fill(excluded_BX, -torch.inf)
        partition_B = torch.logaddexp(partition_B, torch.logsumexp(logits_BX, dim=1))
    return (partition_B - positive_B / temperature).sum()


def _by_label(labels: PairLabels, rows_B: Tensor) -> tuple[Tensor, Tensor]:
    """(b, a) other pairs of the same label, and (b, m) negatives of pairs of another label."""
    of_row_B1 = labels.of_pairs[rows_B][:, None]
    same_BA = (of_row_B1 == labels.of_pairs) & (of_row_B1 >= 0)
    same_BA[torch.arange(len(rows_B), device=rows_B.device), rows_B] = False
    foreign_BM = (of_row_B1 != labels.of_negatives) & (of_row_B1 >= 0) & (labels.of_negatives >= 0)
    return same_BA, foreign_BM


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
