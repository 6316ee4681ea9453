"""A teacher's vectors of the texts of sources, computed once and kept on disk, for `stages.*.distillation` to read.

    python -m training.runs.teaching.teacher_vectors TEACHER SOURCE... --data DATA --output DIR

Killed at any moment, the same command goes on; more sources may follow into the same directory. Sources take turns, so
that training can begin on what there is (`without_vectors = "leave_out"`). What another program embeds goes into such a
directory with training.data.text_vectors.write_text_vectors.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gte_sdk import Embedder
from gte_sdk.model_files.directory import GTE_JSON, read_model_dir
from gte_sdk.runtime.tokens import load_tokenizer
from training.data.sources import open_sources
from training.data.text_vectors import iterate_texts, write_text_vectors
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.runs.command_line import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.runs.teaching.teacher_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("teacher", help="checkpoint directory, exported model directory, or Hub name")
    parser.add_argument("sources", nargs="+", help="as in a recipe: patterns under --data, paths, hub:OWNER/NAME/FILE")
    parser.add_argument("--data", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--exclude", nargs="+", default=[], help="patterns of sources' names that are left out")
    parser.add_argument(
        "--output", type=Path, required=True, help="directory of the vectors; an existing one is added to"
    )
    parser.add_argument("--max-tokens", type=int, default=128, help="what the teacher reads of a text")
    parser.add_argument("--alpha", type=float, default=0.5, help="sources take turns in proportion to size^alpha")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of a checkpoint's products")
    parser.add_argument("--limit", type=int, help="end after about so many texts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.max_tokens < 3:
        parser.error(f"--max-tokens {options.max_tokens} must be at least 3")

    sources = open_sources(options.sources, options.data, exclude=options.exclude)
    texts = itertools.islice(iterate_texts(sources, options.alpha, options.seed), options.limit)
    embed = _embed_function(options.teacher, options.max_tokens, options.precision)
    started, before = time.perf_counter(), None
    for count in write_text_vectors(
        options.output, texts, embed, teacher=options.teacher, max_tokens=options.max_tokens
    ):
        seconds = time.perf_counter() - started
        rate = "" if before is None else f", {(count - before[0]) / (seconds - before[1]):.0f} texts a second"
        before = (count, seconds)
        print(f"{options.output}: {count} texts{rate}", flush=True)


def _embed_function(teacher: str, max_tokens: int, precision: str) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    directory = resolve_directory(teacher)
    if (directory / GTE_JSON).is_file():
        limit = min(max_tokens, read_model_dir(directory).max_tokens)
        embedder = Embedder(directory, max_tokens=limit, truncation="ignore")
        return lambda texts: embedder.embed(list(texts))
    encoder, tokenizer = load_encoder(directory), load_tokenizer(directory / "tokenizer.json")
    limit = min(max_tokens, encoder.max_tokens)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return embed_texts(encoder, tokenizer, texts, limit, token_budget=4096)

    return embed


if __name__ == "__main__":
    run_command(main)
