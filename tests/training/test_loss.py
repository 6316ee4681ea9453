"""The contrastive losses against an independent reference, an outside implementation and what the formulas promise."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from training.loss.losses import (
    LossKind,
    PairLabels,
    contrastive_loss,
    cut_rows,
    matryoshka,
    ranking_distillation_loss,
    similarity_distillation_loss,
    vector_distillation_loss,
)
from training.recipes.recipe import Distillation, DistillationKind, DistilledTexts, Stage
from training.runs.objective import Taught, stage_loss


def unit_rows(count: int, dim: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    return normalize(torch.randn(count, dim, dtype=dtype), dim=1).requires_grad_()


def ten_line_reference(q: Tensor, d: Tensor, temperature: float) -> Tensor:
    """Equations 5 to 7 of arXiv 2308.03281, term by term."""
    total = torch.zeros((), dtype=q.dtype)
    for i in range(len(q)):
        z = sum((torch.exp(q[i] @ d[j] / temperature) for j in range(len(q))), torch.zeros((), dtype=q.dtype))
        z = z + sum(torch.exp(q[i] @ q[j] / temperature) for j in range(len(q)) if j != i)
        z = z + sum(torch.exp(q[j] @ d[i] / temperature) for j in range(len(q)))
        z = z + sum(torch.exp(d[j] @ d[i] / temperature) for j in range(len(q)) if j != i)
        total = total - torch.log(torch.exp(q[i] @ d[i] / temperature) / z)
    return total / len(q)


def loss_and_gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def test_improved_loss_is_the_papers_formula() -> None:
    q, d = unit_rows(7), unit_rows(7)
    ours = loss_and_gradients(contrastive_loss(q, d, temperature=0.05), q, d)
    reference = loss_and_gradients(ten_line_reference(q, d, 0.05), q, d)
    for value, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_improved_loss_is_sentence_transformers_with_four_directions_and_joint_partition(count: int) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    q, d = unit_rows(count), unit_rows(count)
    oracle = MultipleNegativesRankingLoss(
        model=torch.nn.Identity(),  # type: ignore[arg-type]
        scale=100.0,
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        partition_mode="joint",
    )
    unit_q, unit_d = normalize(q, dim=1), normalize(d, dim=1)  # cos_sim differentiates through the length; so must we
    ours = loss_and_gradients(contrastive_loss(unit_q, unit_d, temperature=0.01), q, d)
    expected = loss_and_gradients(oracle.compute_loss_from_embeddings([q, d], torch.empty(0)), q, d)
    for value, expected_value in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-9)


def test_one_pair_and_perfect_separation_give_ln_2() -> None:
    q, d = unit_rows(1), unit_rows(1)
    loss = contrastive_loss(q, d, temperature=0.01)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)
    for gradient in torch.autograd.grad(loss, (q, d)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    separate = torch.eye(16, dtype=torch.float64)
    assert contrastive_loss(separate, separate, temperature=0.01).item() == pytest.approx(math.log(2), abs=1e-12)
    assert contrastive_loss(separate, separate, temperature=0.01, kind="vanilla").item() == pytest.approx(0, abs=1e-12)


def test_improved_loss_is_symmetric_and_vanilla_is_not() -> None:
    q, d = unit_rows(9), unit_rows(9)
    improved = [contrastive_loss(*pair, temperature=0.05).item() for pair in ((q, d), (d, q))]
    vanilla = [contrastive_loss(*pair, temperature=0.05, kind="vanilla").item() for pair in ((q, d), (d, q))]
    assert improved[0] == pytest.approx(improved[1], abs=1e-12)
    assert vanilla[0] != pytest.approx(vanilla[1], abs=1e-3)


@pytest.mark.parametrize("kind", ["improved", "vanilla"])
@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_row_blocks_equal_the_whole(kind: LossKind, block_rows: int) -> None:
    q, d, negatives = unit_rows(11), unit_rows(11), unit_rows(5)

    def values(rows: int) -> list[Tensor]:
        loss = contrastive_loss(
            q, d, negatives, temperature=0.03, kind=kind, false_negative_margin=0.1, block_rows=rows
        )
        return loss_and_gradients(loss, q, d, negatives)

    for value, whole in zip(values(block_rows), values(11), strict=True):
        torch.testing.assert_close(value, whole, rtol=0, atol=1e-12)


def test_hard_negatives_join_the_first_sum_of_every_query() -> None:
    q, d, negatives = unit_rows(4), unit_rows(4), unit_rows(3)
    vanilla = contrastive_loss(q, d, negatives, temperature=0.05, kind="vanilla")
    logits = q @ torch.cat([d, negatives]).T / 0.05
    torch.testing.assert_close(vanilla, torch.nn.functional.cross_entropy(logits, torch.arange(4)))
    without, partition = ten_line_reference(q, d, 0.05), contrastive_loss(q, d, negatives, temperature=0.05)
    assert partition > without


def test_false_negative_mask_drops_terms_above_the_positive_by_the_margin() -> None:
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    d = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Of pair 0 (positive 0.6) only d_0.d_1 = q_1.d_0 = 0.8 lies above 0.6 + 0.1.
    masked = contrastive_loss(q, d, temperature=1.0, false_negative_margin=0.1)
    first = math.log(2 * math.exp(0.6) + 2 * math.exp(0.0)) - 0.6
    second = math.log(2 * math.exp(1.0) + math.exp(0.8) + 2 * math.exp(0.0) + math.exp(0.8)) - 1.0
    assert masked.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert contrastive_loss(q, d, temperature=1.0).item() > masked.item()


def test_half_precision_is_computed_in_float32() -> None:
    q, d = unit_rows(6, dtype=torch.float32).detach(), unit_rows(6, dtype=torch.float32).detach()
    half = contrastive_loss(q.bfloat16(), d.bfloat16(), temperature=0.01)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, contrastive_loss(q.bfloat16().float(), d.bfloat16().float(), temperature=0.01))


def test_matryoshka_is_the_mean_over_prefixes_of_unit_length() -> None:
    q, d = unit_rows(5), unit_rows(5)
    loss = matryoshka(lambda dim: contrastive_loss(cut_rows(q, dim), cut_rows(d, dim), temperature=0.05), [16, 8])
    short_q, short_d = normalize(q[:, :8], dim=1), normalize(d[:, :8], dim=1)
    expected = (ten_line_reference(q, d, 0.05) + ten_line_reference(short_q, short_d, 0.05)) / 2
    torch.testing.assert_close(loss, expected)


def test_distillation_is_zero_at_the_teacher_and_pulls_towards_it() -> None:
    teacher = unit_rows(6).detach()
    student = unit_rows(6)
    assert vector_distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    expected = 1 - torch.nn.functional.cosine_similarity(student, teacher).mean()
    torch.testing.assert_close(vector_distillation_loss(student, teacher), expected)
    wide_teacher = torch.cat([teacher, torch.ones(6, 4)], dim=1)
    assert vector_distillation_loss(teacher, normalize(wide_teacher, dim=1)).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="more dimensions than teacher"):
        vector_distillation_loss(student, teacher[:, :4])


def test_similarity_distillation_is_blind_to_rotation_and_works_across_dimensions() -> None:
    teacher = unit_rows(6, dim=16).detach()
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    assert similarity_distillation_loss(teacher @ rotation, teacher).item() == pytest.approx(0, abs=1e-12)
    student = unit_rows(6, dim=4)
    expected = (student @ student.T - teacher @ teacher.T).square().mean()
    torch.testing.assert_close(similarity_distillation_loss(student, teacher, block_rows=4), expected)


@pytest.mark.parametrize("block_rows", [1024, 4])
def test_ranking_distillation_is_the_divergence_of_each_row_from_the_teacher(block_rows: int) -> None:
    teacher, student = unit_rows(6, dim=16).detach(), unit_rows(6, dim=4)
    assert ranking_distillation_loss(teacher, teacher, 0.05, block_rows).item() == pytest.approx(0, abs=1e-12)

    rows = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        of_teacher = torch.softmax(torch.stack([teacher[i] @ teacher[j] for j in others]) / 0.05, dim=0)
        of_student = torch.softmax(torch.stack([student[i] @ student[j] for j in others]) / 0.05, dim=0)
        rows.append((of_teacher * (of_teacher / of_student).log()).sum())
    loss = ranking_distillation_loss(student, teacher, 0.05, block_rows)
    for value, expected in zip(
        loss_and_gradients(loss, student), loss_and_gradients(torch.stack(rows).mean(), student), strict=True
    ):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("texts", ["queries", "documents", "both"])
def test_a_stage_teaches_cosines_in_each_dimension_and_vectors_in_the_whole(texts: DistilledTexts) -> None:
    stage = Stage(batch_size=5, learning_rate=1.0, max_tokens=8, temperature=0.05, matryoshka=(16, 4))
    vectors, cosines, rankings = (Distillation(texts=texts, kind=kind) for kind in get_args(DistillationKind))
    student = unit_rows(10)
    taught_rows = {"queries": slice(0, 5), "documents": slice(5, 10), "both": slice(None)}[texts]
    teacher = unit_rows(10).detach()[taught_rows]
    counts = [(5, 5, 0)]
    untaught = stage_loss(stage, counts, [], 1024)(student)
    by_vectors = stage_loss(stage, counts, [Taught(vectors, 2.0, teacher)], 1024)(student)
    by_cosines = stage_loss(stage, counts, [Taught(cosines, 3.0, teacher)], 1024)(student)
    by_rankings = stage_loss(stage, counts, [Taught(rankings, 4.0, teacher)], 1024)(student)
    own = student[taught_rows]
    torch.testing.assert_close(by_vectors - untaught, 2 * vector_distillation_loss(own, teacher))
    parts = [similarity_distillation_loss(cut_rows(own, dim), teacher) for dim in (16, 4)]
    torch.testing.assert_close(by_cosines - untaught, 3 * (parts[0] + parts[1]) / 2)
    parts = [ranking_distillation_loss(cut_rows(own, dim), teacher, 0.05) for dim in (16, 4)]
    torch.testing.assert_close(by_rankings - untaught, 4 * (parts[0] + parts[1]) / 2)


def test_the_loss_of_pairs_has_a_weight_beside_the_teachers() -> None:
    stage = Stage(batch_size=5, learning_rate=1.0, max_tokens=8, temperature=0.05, matryoshka=(16, 4))
    student, teacher = unit_rows(10), unit_rows(10).detach()
    taught = [Taught(Distillation(), 2.0, teacher)]

    def loss(weight: float) -> Tensor:
        return stage_loss(stage, [(5, 5, 0)], taught, 1024, weight_of_pairs=weight)(student)

    of_teacher = 2 * vector_distillation_loss(student, teacher)
    for value, expected in zip(
        loss_and_gradients(loss(0.0), student), loss_and_gradients(of_teacher, student), strict=True
    ):
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(loss(0.5) - of_teacher, (loss(1.0) - of_teacher) / 2)
    untaught = stage_loss(stage, [(5, 5, 0)], [], 1024, weight_of_pairs=0.0)(student)
    assert all(not part.any() for part in loss_and_gradients(untaught, student))


@pytest.mark.parametrize("kind", ["improved", "vanilla"])
@pytest.mark.parametrize("block_rows", [1024, 3])
def test_pairs_of_one_label_are_no_negatives_of_each_other(kind: LossKind, block_rows: int) -> None:
    labels = [0, 1, 0, -1, 1, -1, 0]
    owners = [0, 0, 1, 3, 6]  # of which pair each negative is
    q, d, n = unit_rows(7), unit_rows(7), unit_rows(5)

    def reference() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, label in enumerate(labels):
            others = [j for j, other in enumerate(labels) if j != i and (label < 0 or other != label)]
            may_be_mine = [m for m, owner in enumerate(owners) if label >= 0 and labels[owner] not in (-1, label)]
            terms = [q[i] @ d[i], *(q[i] @ d[j] for j in others)]
            terms += [q[i] @ n[m] for m in range(len(owners)) if m not in may_be_mine]
            if kind == "improved":
                terms += [q[i] @ q[j] for j in others] + [d[i] @ d[j] for j in others]
                terms += [d[i] @ q[i], *(d[i] @ q[j] for j in others)]
            total = total + torch.logsumexp(torch.stack(terms) / 0.05, dim=0) - q[i] @ d[i] / 0.05
        return total / len(labels)

    given = PairLabels(torch.tensor(labels), torch.tensor([labels[owner] for owner in owners]))
    loss = contrastive_loss(q, d, n, temperature=0.05, kind=kind, labels=given, block_rows=block_rows)
    for value, expected in zip(
        loss_and_gradients(loss, q, d, n), loss_and_gradients(reference(), q, d, n), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-11)
    none = PairLabels(torch.full((7,), -1), torch.full((5,), -1))
    unlabelled = contrastive_loss(q, d, n, temperature=0.05, kind=kind, labels=none)
    torch.testing.assert_close(unlabelled, contrastive_loss(q, d, n, temperature=0.05, kind=kind))


def test_all_of_one_label_leaves_the_positive_alone() -> None:
    q, d = unit_rows(5), unit_rows(5)
    labels = PairLabels(torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert contrastive_loss(q, d, temperature=0.05, labels=labels).item() == pytest.approx(math.log(2), abs=1e-12)
