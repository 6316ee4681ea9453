"""The loss of a stage, as its recipe describes it: contrastive loss, Matryoshka dimensions, distillation."""

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gte_sdk import Embedder
from gte_sdk.model_files.directory import GTE_JSON, read_model_dir
from gte_sdk.runtime.tokens import load_tokenizer, pad_token_id, tokenize
from training.encoders.embed import embed_token_ids
from training.encoders.encoder import AnyEncoder
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.loss.losses import (
    contrastive_loss,
    cut_rows,
    matryoshka,
    similarity_distillation_loss,
    vector_distillation_loss,
)
from training.recipes.recipe import Distillation, Stage

Teacher = Callable[[Sequence[str], int], Tensor]
"""Texts and their token limit to unit rows, without gradients."""


def stage_loss(
    stage: Stage, counts: tuple[int, int, int], teacher_ND: Tensor | None, block_rows: int
) -> Callable[[Tensor], Tensor]:
    """The loss as a function of a batch's vectors: those of the queries, documents and negatives, in this order.

    `counts` says how many there are of each. `teacher_ND` holds the teacher's vectors of the texts that
    `stage.distillation` names, or is None if the batch is not distilled.
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
                block_rows=block_rows,
            )

        loss = matryoshka(contrastive, stage.matryoshka or (vectors_ND.shape[1],))
        distillation = stage.distillation
        if distillation is not None and teacher_ND is not None:
            distilled = {"queries": queries_ND, "documents": documents_ND}
            student_ND = distilled.get(distillation.texts, vectors_ND[: counts[0] + counts[1]])
            distance = similarity_distillation_loss if distillation.kind == "similarities" else vector_distillation_loss
            loss = loss + distillation.weight * distance(student_ND, teacher_ND)
        return loss

    return loss_of


def open_teacher(
    distillation: Distillation | None, start: AnyEncoder, tokenizer: Tokenizer, device: torch.device, chunk_tokens: int
) -> Teacher | None:
    """The stage's teacher: a frozen copy of `start`, a checkpoint with its own tokenizer, or an exported model.

    An exported model runs in gte_sdk, whose int8 graph is several times as fast on a CPU.
    """
    if distillation is None:
        return None
    teacher, own_tokenizer = copy.deepcopy(start), tokenizer
    if distillation.teacher != "start":
        directory: Path = resolve_directory(distillation.teacher)
        if (directory / GTE_JSON).is_file():
            return _exported_teacher(directory, device)
        teacher, own_tokenizer = load_encoder(directory), load_tokenizer(directory / "tokenizer.json")
    teacher = teacher.to(device).requires_grad_(False).eval()

    def embed(texts: Sequence[str], max_tokens: int) -> Tensor:
        ids = tokenize(own_tokenizer, texts, min(max_tokens, teacher.max_tokens)).ids
        return embed_token_ids(teacher, ids, pad_token_id(own_tokenizer), token_budget=chunk_tokens, device=device)

    return embed


def _exported_teacher(directory: Path, device: torch.device) -> Teacher:
    limit = read_model_dir(directory).max_tokens

    @functools.cache  # a stage has one limit, so the model is opened once
    def opened(max_tokens: int) -> Embedder:
        return Embedder(directory, max_tokens=max_tokens, truncation="ignore")

    def embed(texts: Sequence[str], max_tokens: int) -> Tensor:
        return torch.from_numpy(opened(min(max_tokens, limit)).embed(list(texts))).to(device)

    return embed
