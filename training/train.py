"""Runs a recipe from the first pair to the last checkpoint. Read `train` and `train_stage` from top to bottom.

    python -m training.train RECIPE --output DIR [--data DIR] [--evaluation DIR] [--seed N] [--stop-after STEPS]
    python -m training.train RECIPE --print
    python -m training.train RECIPE --dry-run [--data DIR]

If a run is killed, the same command continues from the last checkpoint, with the losses it would have had. For several
GPUs or processes, use `accelerate launch -m training.train ...`: each process takes its share of every batch, and all
share their negatives.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from gte_sdk.model_files.directory import TOKENIZER_JSON
from gte_sdk.runtime.tokens import pad_token_id
from training.data.feed import open_feed
from training.data.mixture import Mixture
from training.data.pairs import Source
from training.data.sources import label_sources, open_sources
from training.encoders.encoder_files import MODEL, write_encoder
from training.evaluate.scores import hash_texts_of_sets
from training.loss.gather import average_gradients
from training.loss.grad_cache import backward_through_chunks
from training.recipes.recipe import Recipe, dump_recipe
from training.runs.checkpoint import (
    CHECKPOINTS,
    StageState,
    explain_full_disk,
    find_latest_checkpoint,
    load_state,
    restore_random_state,
)
from training.runs.command_line import TrainingError, choose_recipe, parse_options, run_command
from training.runs.hardware import open_accelerator, prepare_model
from training.runs.nodes import first_on_each_node, main_process_first
from training.runs.objective import number_labels, stage_loss
from training.runs.optimizer import (
    WeightAverage,
    collect_optimizer_state,
    learning_rate_at,
    make_optimizer,
    set_learning_rate,
    take_step,
)
from training.runs.plan import print_plan, shape_of, step_count, utilization
from training.runs.run_log import LogLine, append_log, claim_output, plot_losses, read_log, record_run, write_json
from training.runs.stages import Run, check_stages, find_evaluation_sets, measure, mine_sources, save
from training.runs.start import freeze_layers, load_start, prepare_tokenizer
from training.runs.teaching.teachers import Teacher, ask_teachers, keep_taught_pairs, open_teachers


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(__doc__, arguments)
    recipe = choose_recipe(options)
    if options.print:
        print(dump_recipe(recipe), end="")
        return
    if options.dry_run:
        print_plan(recipe, options.data)
        return
    with explain_full_disk(options.output):
        train(recipe, options.output, options.data, options.evaluation, options.stop_after)


def train(recipe: Recipe, output: Path, data: Path | None, evaluation: Path | None, stop_after: int | None) -> None:
    """Trains all stages, from where an earlier session of the run stopped, for at most `stop_after` steps."""
    accelerator = open_accelerator(recipe, output)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers draws one for each file
    claim_output(output, recipe, accelerator)

    # The data, without pairs that contain an evaluation text.
    sets = find_evaluation_sets(recipe.evaluation, evaluation)
    forbidden = hash_texts_of_sets(sets if recipe.evaluation.refuse_texts else ())
    stages = {name: stage for name, stage in recipe.stages.items() if stage.steps or stage.epochs}
    with first_on_each_node(accelerator):
        sources = {
            name: open_sources(
                stage.sources,
                data,
                exclude=stage.exclude,
                commercial=stage.commercial,
                forbidden=forbidden,
                first=stage.max_sources,
                seed=recipe.seed,
                shards=stage.shards,
                workers=recipe.hardware.feed_workers,
            )
            for name, stage in stages.items()
        }
        sources = {
            name: label_sources(opened, stages[name].linked_labels, f"stages.{name}.linked_labels")
            for name, opened in sources.items()
        }
    with main_process_first(accelerator, output / "taught", output / "tokenizer", output / CHECKPOINTS):
        sources = {
            name: keep_taught_pairs(
                name, stages[name].distillation, opened, output / "taught" / f"{name}.npz", accelerator
            )
            for name, opened in sources.items()
        }
        directory = prepare_tokenizer(recipe.encoder, next(iter(sources.values())), output / "tokenizer")
        checkpoint = find_latest_checkpoint(output)

    # The encoder before the first step, its teachers, and then the weights that an earlier session left.
    tokenizer, encoder = load_start(recipe.encoder, directory, recipe.seed, recipe.hardware.attention)
    check_stages(stages, sources, encoder, data)
    encoder.matryoshka_dims = next(reversed(stages.values())).matryoshka
    teachers = {
        name: open_teachers(stage, encoder, tokenizer, accelerator.device, recipe.hardware.chunk_tokens)
        for name, stage in stages.items()
    }
    state = load_state(checkpoint) if checkpoint else None
    if accelerator.is_main_process:
        record_run(output, recipe, accelerator, sources, state)
    model = prepare_model(encoder, recipe, accelerator)
    torch.manual_seed(recipe.seed + accelerator.process_index)  # dropout differs between processes
    first_step = state["step"] if state else 0
    metrics = state["metrics"] if state else {}
    in_stages: dict[str, StageState] = {}
    if state:
        encoder.load_state_dict(state["encoder"])
        restore_random_state(state["random"], accelerator)
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        if state["in_stage"]:
            in_stages[state["stage"]] = state["in_stage"]
    del state  # a stage that follows has an optimizer of its own
    last_step = first_step + (stop_after or 2**62)
    run = Run(recipe, output, accelerator, encoder, model, tokenizer, directory, data, last_step)

    step_before = 0
    for name, stage in stages.items():
        stage_steps = step_count(stage, [len(source) for source in sources[name]])
        if name not in metrics:
            steps = range(first_step - step_before if name in in_stages else 0, stage_steps)
            with freeze_layers(encoder, stage.frozen_layers):
                done = train_stage(
                    run, name, sources[name], teachers[name], step_before, steps, in_stages.pop(name, None), metrics
                )
            if not done:
                accelerator.print(f"stopped after {stop_after} steps; the same command continues")
                return
            metrics[name] = measure(run, name, sets if recipe.evaluation.after_stages else ())
            save(run, step_before + stage_steps, name, None, metrics)
        step_before += stage_steps
        if step_before == last_step and name != next(reversed(stages)):
            accelerator.print(f"stopped after {stop_after} steps; the same command continues")
            return

    if accelerator.is_main_process:
        write_encoder(encoder, directory, output / MODEL)
        write_json(output / "metrics.json", metrics)
        plot_losses(read_log(output / "log.csv"), output / "loss.png")
    accelerator.print(
        f"{output / MODEL} is trained; `python export/to_onnx.py {output / MODEL} --output DIR` exports it"
    )
    accelerator.end_training()


def train_stage(
    run: Run,
    name: str,
    sources: Sequence[Source],
    teachers: Mapping[str, Teacher],
    step_before: int,
    steps: range,
    state: StageState | None,
    metrics: dict[str, Any],
) -> bool:
    """Trains the steps of a stage that are left, from its start or from `state`.

    Returns False if the session's steps end before the stage does.
    """
    recipe, accelerator, hardware, stage = run.recipe, run.accelerator, run.recipe.hardware, run.recipe.stages[name]
    if stage.mining:
        sources = mine_sources(run, name, stage.mining, sources)
    mixture = Mixture(
        sources,
        stage.batch_size,
        stage.alpha,
        seed=recipe.seed * 1000 + list(recipe.stages).index(name),
        mixed=stage.mixed_sources,
        negatives=stage.negatives,
        random_negatives=stage.random_negatives,
        whole_passes=not stage.steps,
        multiple=accelerator.num_processes,
    )
    optimizer = make_optimizer(run.encoder, stage, hardware.optimizer_sharding)
    stage_steps, shape = steps.stop, shape_of(run.encoder)
    average = WeightAverage(stage_steps if stage.average_last == 0 else int(stage_steps * (1 - stage.average_last)))
    if state:
        mixture.restore(state["mixture"])
        optimizer.load_state_dict(state["optimizer"])
        average.restore(state["average"], accelerator.device)
    del state

    parameters = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    run.model.train()
    quiet = not accelerator.is_local_main_process
    with (
        tqdm(total=stage_steps, initial=steps.start, desc=name, unit="step", disable=quiet) as progress,
        open_feed(
            mixture,
            run.tokenizer_directory / TOKENIZER_JSON,
            stage.max_tokens,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            workers=hardware.feed_workers,
            count=len(steps),
        ) as feed,
    ):
        for step in steps:
            started = time.perf_counter()
            tokenized = next(feed)
            learning_rate = learning_rate_at(stage, step, stage_steps)
            set_learning_rate(optimizer, learning_rate)

            batch = tokenized.batch
            category = batch.sources[0].partition("__")[0]
            with accelerator.autocast():
                taught = ask_teachers(teachers, stage, category, tokenized.queries, tokenized.documents)
            labels = number_labels(batch.pairs, accelerator.device)
            loss = backward_through_chunks(
                run.model,
                tokenized.token_ids,
                stage_loss(
                    stage,
                    tokenized.counts,
                    taught,
                    hardware.block_rows,
                    labels,
                    stage.loss_weights.get(category, 1.0),
                ),
                chunk_tokens=hardware.chunk_tokens,
                kept_tokens=hardware.kept_tokens,
                pad_id=pad_token_id(run.tokenizer),
                device=accelerator.device,
                backward=accelerator.backward,
            )
            average_gradients(parameters)
            lengths = [len(ids) for ids in tokenized.token_ids]
            own = torch.stack([loss, loss.new_tensor(sum(lengths))])
            loss_sum, token_count = accelerator.reduce(own, "sum").tolist()  # here, once a step, Python waits for a GPU
            loss_value = loss_sum / accelerator.num_processes
            source = "mixed" if stage.mixed_sources else batch.sources[0]
            if not math.isfinite(loss_value):
                raise TrainingError(
                    f"the loss is {loss_value} at step {step + 1} of {name} (source {source}, learning rate "
                    f"{learning_rate:.2e}); the step was not taken and the last good checkpoint is "
                    f"{find_latest_checkpoint(run.output)}: lower the learning rate or raise the temperature"
                )
            take_step(optimizer, parameters, stage.clip_norm, accelerator.scaler)
            average.update(run.encoder, step)

            seconds = time.perf_counter() - started
            run_step = step_before + step + 1
            mfu = utilization(shape, lengths, seconds, hardware)
            if accelerator.is_main_process:
                used = round(seconds, 4), source, round(mfu, 4)
                line = LogLine(name, run_step, loss_value, learning_rate, int(token_count), *used)
                append_log(run.output / "log.csv", line)
            accelerator.log({"loss": loss_value, "learning_rate": learning_rate}, step=run_step)
            progress.set_postfix_str(
                f"loss {loss_value:.4f}, {token_count / seconds:.0f} tokens/s, lr {learning_rate:.1e}"
                + (f", MFU {mfu:.1%}" if hardware.peak_tflops else "")
            )
            progress.update()
            stopping = run_step >= run.last_step
            if step + 1 < stage_steps and (stopping or (step + 1) % recipe.checkpoint_steps == 0):
                in_stage: StageState = {
                    "mixture": batch.state,
                    "optimizer": collect_optimizer_state(optimizer),
                    "average": average.state(),
                }
                save(run, run_step, name, in_stage, metrics)
                if stopping:
                    return False
    average.apply(run.encoder)
    return True


if __name__ == "__main__":
    run_command(main)
