"""A run, and what happens before and after each of its stages: mining, measuring, saving."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from training.data.mining import mine, read_corpus
from training.data.pairs import Source, open_source, write_pairs
from training.data.sources import choose_sources, match_files
from training.encoders.embed import embed_texts
from training.encoders.encoder import AnyEncoder
from training.evaluate.scores import evaluate, find_sets, summarize
from training.recipes.recipe import Evaluation, Mining, Recipe, RecipeError, Stage
from training.runs.checkpoint import RunState, StageState, gather_random_states, save_checkpoint
from training.runs.nodes import first_on_each_node, main_process_first, wait_for_all
from training.runs.objective import find_loss
from training.runs.run_log import read_log
from training.runs.start import find_layers


class Run(NamedTuple):
    """What all stages of a run share."""

    recipe: Recipe
    output: Path
    accelerator: Accelerator
    encoder: AnyEncoder
    model: nn.Module
    """The encoder, wrapped for mixed precision and several processes."""
    tokenizer: Tokenizer
    tokenizer_directory: Path
    data: Path | None
    """The directory that sources are relative to."""
    last_step: int
    """The step of the whole run at which this session ends."""


def check_stages(
    stages: Mapping[str, Stage], sources: Mapping[str, Sequence[Source]], encoder: AnyEncoder, data: Path | None
) -> None:
    """Raises RecipeError for what would otherwise stop a later stage only after the earlier ones were trained."""
    for name, stage in stages.items():
        find_loss(stage)
        if stage.max_tokens > encoder.max_tokens:
            raise RecipeError(
                f"stages.{name}.max_tokens = {stage.max_tokens} exceeds encoder.max_tokens = {encoder.max_tokens}"
            )
        if wrong := [dim for dim in stage.matryoshka if not 1 <= dim <= encoder.dim]:
            raise RecipeError(f"stages.{name}.matryoshka has {wrong[0]}; the encoder's vectors have {encoder.dim}")
        if stage.frozen_layers > (layer_count := len(find_layers(encoder))):
            raise RecipeError(
                f"stages.{name}.frozen_layers = {stage.frozen_layers}; the encoder has {layer_count} layers"
            )
        if stage.mining:
            choose_sources(sources[name], stage.mining.sources, f"stages.{name}.mining.sources")
            for pattern in stage.mining.corpus:
                match_files(pattern, data)


def find_evaluation_sets(evaluation: Evaluation, directory: Path | None) -> list[Path]:
    """The directories of the recipe's evaluation sets."""
    if directory is None and not all(Path(pattern).is_absolute() for pattern in evaluation.sets):
        raise RecipeError(f"evaluation.sets = {list(evaluation.sets)}: give their directory with --evaluation DIR")
    return find_sets(evaluation.sets, directory)


def mine_sources(run: Run, stage: str, mining: Mining, sources: Sequence[Source]) -> list[Source]:
    """The sources with hard negatives, mined with the encoder as it is now. mined/ keeps them for a resumed run."""
    chosen = choose_sources(sources, mining.sources, f"stages.{stage}.mining.sources")
    max_tokens = min(mining.max_tokens, run.encoder.max_tokens)
    directory = run.output / "mined" / stage
    with main_process_first(run.accelerator, directory):
        if not directory.is_dir():
            partial = directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            corpus = read_corpus(mining.corpus, run.data)
            for source in (source for source in sources if source.name in chosen):
                run.accelerator.print(f"mining {source.name}: {len(source)} pairs")
                pairs = [source[index] for index in range(len(source))]
                mined = mine(pairs, lambda texts: embed(run, texts, max_tokens), mining, run.recipe.seed, corpus)
                write_pairs(partial / f"{source.name}.parquet", mined)
            partial.rename(directory)
    with first_on_each_node(run.accelerator):
        return [
            open_source(directory / f"{source.name}.parquet") if source.name in chosen else source for source in sources
        ]


def measure(run: Run, stage: str, sets: Sequence[Path]) -> dict[str, Any]:
    """The entry of a finished stage in metrics.json; {} in all processes but the first, which measures."""
    if not run.accelerator.is_main_process:
        return {}
    lines = [line for line in read_log(run.output / "log.csv") if line.stage == stage]
    last = lines[-max(1, len(lines) // 10) :]
    seconds = sum(line.seconds for line in lines)
    metrics: dict[str, Any] = {
        "steps": len(lines),
        "loss_of_last_tenth": sum(line.loss for line in last) / len(last),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(sum(line.tokens for line in lines) / seconds),
    }
    if sets:
        scores = evaluate(sets, lambda texts: embed(run, texts, run.encoder.max_tokens))
        metrics |= {"summary": summarize(scores), "scores": scores}
    return metrics


def save(run: Run, step: int, stage: str, in_stage: StageState | None, metrics: dict[str, Any]) -> None:
    """Writes checkpoint `step` of the run. All processes must call it."""
    wait_for_all()  # the main process may have evaluated meanwhile
    random, scaler = gather_random_states(run.accelerator), run.accelerator.scaler
    if run.accelerator.is_main_process:
        state: RunState = {
            "step": step,
            "stage": stage,
            "in_stage": in_stage,
            "metrics": metrics,
            "random": random,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "encoder": run.encoder.state_dict(),
        }
        save_checkpoint(run.output, run.encoder, run.tokenizer_directory, state)
    wait_for_all()


def embed(run: Run, texts: Sequence[str], max_tokens: int) -> NDArray[np.float32]:
    """(n, d) unit rows, by the encoder as it is now."""
    budget, device = run.recipe.hardware.chunk_tokens, run.accelerator.device
    with run.accelerator.autocast():
        return embed_texts(run.encoder, run.tokenizer, texts, max_tokens, token_budget=budget, device=device)
