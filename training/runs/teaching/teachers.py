"""The teachers of a stage: a copy of its start, a checkpoint, an exported model, or vectors computed before."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from gte_sdk import Embedder
from gte_sdk.atomic_file import replace_whole
from gte_sdk.model_files.directory import GTE_JSON, read_model_dir
from gte_sdk.runtime.tokens import load_tokenizer, pad_token_id, tokenize
from training.data.pairs import PairsError, Source
from training.data.text_vectors import VECTORS_JSON, TextVectors, find_rows_with_vectors, open_text_vectors
from training.encoders.embed import embed_token_ids
from training.encoders.encoder import AnyEncoder
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.recipes.recipe import Distillation, Stage
from training.runs.objective import Taught

Teacher = Callable[[Sequence[str], int], Tensor]
"""Texts and the most tokens of each to unit rows, without a graph."""


def open_teachers(
    stage: Stage, start: AnyEncoder, tokenizer: Tokenizer, device: torch.device, chunk_tokens: int
) -> dict[str, Teacher]:
    """The teachers of a stage that weigh anything, by their names in the recipe."""
    return {
        name: _open_teacher(distillation.teacher, start, tokenizer, device, chunk_tokens)
        for name, distillation in stage.distillation.items()
        if distillation.weighs
    }


def ask_teachers(
    teachers: Mapping[str, Teacher], stage: Stage, category: str, queries: Sequence[str], documents: Sequence[str]
) -> list[Taught]:
    """What the teachers say of a batch of this category; those that do not weigh there are not asked."""
    texts = {"queries": queries, "documents": documents, "both": [*queries, *documents]}
    asked = [(stage.distillation[name], teacher) for name, teacher in teachers.items()]
    return [
        Taught(distillation, weight, teacher(texts[distillation.texts], stage.max_tokens))
        for distillation, teacher in asked
        if (weight := distillation.weight_of(category)) > 0
    ]


def keep_taught_pairs(
    stage: str,
    distillations: Mapping[str, Distillation],
    sources: Sequence[Source],
    path: Path,
    accelerator: Accelerator,
) -> list[Source]:
    """The sources, only with pairs for which every directory of vectors has the texts that it is asked for.

    The rows are kept at `path`, so a resumed run trains on the same pairs even if a directory has grown. Raises
    PairsError if pairs would be left out against the recipe, or none is left.
    """
    stored = {
        name: open_text_vectors(directory)
        for name, distillation in distillations.items()
        if distillation.weighs and (directory := find_stored_vectors(distillation.teacher))
    }
    if not stored:
        return list(sources)
    if not path.is_file():  # the main process comes here first
        rows: dict[str, Any] = {
            source.name: _find_taught_rows(stage, distillations, stored, source) for source in sources
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_whole(path) as file:
            np.savez(file, **{name: of_source for name, of_source in rows.items() if len(of_source)})
    with np.load(path) as kept:
        left = [source.with_rows(kept[source.name]) for source in sources if source.name in kept.files]
    if not left:
        raise PairsError(
            f"stages.{stage}: no pair has vectors in {', '.join(str(of.directory) for of in stored.values())}"
        )
    accelerator.print(
        f"{stage}: {sum(map(len, left))} of {sum(map(len, sources))} pairs have their vectors, in {len(left)} of "
        f"{len(sources)} sources"
    )
    return left


def find_stored_vectors(teacher: str) -> Path | None:
    """The directory of text vectors that `teacher` names, if it is one."""
    path = Path(teacher).expanduser()
    return path if (path / VECTORS_JSON).is_file() else None


def _find_taught_rows(
    stage: str, distillations: Mapping[str, Distillation], stored: Mapping[str, TextVectors], source: Source
) -> NDArray[np.int64]:
    for name, vectors in stored.items():
        distillation = distillations[name]
        if distillation.weight_of(source.category) <= 0:
            continue
        rows = find_rows_with_vectors(source, vectors, distillation.texts)
        if len(rows) < len(source) and distillation.without_vectors == "refuse":
            raise PairsError(
                f"stages.{stage}.distillation.{name}: {len(source) - len(rows)} of {len(source)} pairs of "
                f"{source.name} have a text without a vector in {vectors.directory}. Compute them with `python -m "
                f"training.runs.teaching.teacher_vectors {vectors.teacher} {source.path} "
                f"--max-tokens {vectors.max_tokens} --output {vectors.directory}`, or leave them out with "
                'without_vectors = "leave_out"'
            )
        source = source.with_rows(rows)
    return source.rows


def _open_teacher(
    name: str, start: AnyEncoder, tokenizer: Tokenizer, device: torch.device, chunk_tokens: int
) -> Teacher:
    if stored := find_stored_vectors(name):
        return _open_stored_teacher(open_text_vectors(stored), device)
    teacher, own_tokenizer = copy.deepcopy(start), tokenizer
    if name != "start":
        directory = resolve_directory(name)
        if (directory / GTE_JSON).is_file():
            return _open_exported_teacher(directory, device)
        teacher, own_tokenizer = load_encoder(directory), load_tokenizer(directory / "tokenizer.json")
    teacher = teacher.to(device).requires_grad_(False).eval()

    def embed(texts: Sequence[str], max_tokens: int) -> Tensor:
        ids = tokenize(own_tokenizer, texts, min(max_tokens, teacher.max_tokens)).ids
        return embed_token_ids(teacher, ids, pad_token_id(own_tokenizer), token_budget=chunk_tokens, device=device)

    return embed


def _open_stored_teacher(vectors: TextVectors, device: torch.device) -> Teacher:
    def look_up(texts: Sequence[str], max_tokens: int) -> Tensor:
        return torch.from_numpy(vectors.read(vectors.find(texts))).to(device)

    return look_up


def _open_exported_teacher(directory: Path, device: torch.device) -> Teacher:
    limit = read_model_dir(directory).max_tokens

    @functools.cache  # a stage asks with one limit, so this opens the model once
    def opened(max_tokens: int) -> Embedder:
        return Embedder(directory, max_tokens=max_tokens, truncation="ignore")

    def embed(texts: Sequence[str], max_tokens: int) -> Tensor:
        return torch.from_numpy(opened(min(max_tokens, limit)).embed(list(texts))).to(device)

    return embed
