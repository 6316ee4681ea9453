"""`gte bench`: measures how fast a model embeds on this machine, in a few seconds.

The texts are English words in an order set by a fixed rule. They have as many tokens as real texts but no meaning,
which does not change the speed of a text encoder. Compare the figures of different machines, not those of other texts.
"""

import json
import time
from typing import NamedTuple

import click
import numpy as np

from gte_sdk.cli.model_options import model_options, open_model
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.embedding.text_kinds import embed_batch
from gte_sdk.threads import available_threads

_WORDS = """
    the of and to in a is that for it as was with be by on not he his but at are this have an had they you were their
    one all we can her has there been if more when will would who so no said what up its about into than them only
    other new some could time these two may then do first any my now such like our over man me even most made after
    also did many before must through years where much your way well down should because each just those people how too
    little state good very make world still own see men work long here get both between life being under never day
    same another know while last might us great old year off come since against go came right used take three
"""


class Workload(NamedTuple):
    name: str
    shortest: int
    longest: int
    """Words of a text."""
    batch: int
    """Texts for each call; 1 measures the latency of one text."""


_WORKLOADS = (
    Workload("one short query", 3, 10, 1),
    Workload("short texts", 8, 24, 512),
    Workload("paragraphs", 60, 160, 256),
    Workload("mixed documents", 8, 350, 256),
)


class Measured(NamedTuple):
    workload: str
    texts: int
    texts_per_second: float
    tokens_per_second: float
    p50_ms: float
    """The latency of one call with the whole batch."""
    p99_ms: float


@click.command()
@model_options
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=3.0, show_default=True,
    help="How long to measure each kind of text.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def bench(model: str, device: str, threads: int | None, seconds: float, as_json: bool) -> None:
    """Measure how many texts and tokens a second a model embeds on this machine.

    Each kind of text is embedded once to warm up, then repeatedly for some seconds, including tokenization. Programs
    that run at the same time slow it down.

    \b
    Examples:
      gte bench
      gte bench --model app.gte --threads 1 --json
    """
    started = time.perf_counter()
    embedder = open_model(model, device, threads)
    embedder.embed("warm")
    first_ms = 1000 * (time.perf_counter() - started)
    figures = [_measure(embedder, workload, seconds) for workload in _WORKLOADS]
    facts = {
        "model": model, "device": embedder.device, "engine": embedder.engine, "variant": embedder.variant,
        "threads": threads or available_threads(), "open_and_first_vector_ms": round(first_ms, 1),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps({**facts, "workloads": [figure._asdict() for figure in figures]}, indent=1))
        return
    click.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    click.echo(f"{'':<18} {'texts/s':>10} {'tokens/s':>10} {'p50 ms':>9} {'p99 ms':>9}")
    for figure in figures:
        rates = f"{figure.texts_per_second:>10,.1f} {figure.tokens_per_second:>10,.0f}"
        click.echo(f"{figure.workload:<18} {rates} {figure.p50_ms:>9.2f} {figure.p99_ms:>9.2f}")


def _measure(embedder: Embedder, workload: Workload, seconds: float) -> Measured:
    random = np.random.default_rng(1)
    words = _WORDS.split()
    texts = [
        " ".join(random.choice(words, random.integers(workload.shortest, workload.longest + 1)))
        for _ in range(max(workload.batch, 64))
    ]
    batches = [texts[start : start + workload.batch] for start in range(0, len(texts), workload.batch)]
    token_counts = [sum(map(len, embedder.tokenize(batch).ids)) for batch in batches]
    embed_batch(embedder, batches[0], "plain")
    times: list[float] = []
    text_count = token_count = 0
    while sum(times) < seconds:
        turn = len(times) % len(batches)
        started = time.perf_counter()
        embed_batch(embedder, batches[turn], "plain")
        times.append(time.perf_counter() - started)
        text_count += len(batches[turn])
        token_count += token_counts[turn]
    total = sum(times)
    p50, p99 = np.percentile(times, [50, 99])
    return Measured(
        workload.name, text_count, round(text_count / total, 1), round(token_count / total, 1),
        round(1000 * float(p50), 3), round(1000 * float(p99), 3),
    )  # fmt: skip
