"""A tiny run for the tests: two stages, mining and checkpoints on 90 made pairs, in about a second."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from training.data.pairs import Pair, write_pairs
from training.runs.run_log import read_log
from training.train import main

SENTENCES = ("open a file and read its lines", "sort a list by key", "send a message to the server", "write text")
WORDS = [word for sentence in SENTENCES for word in sentence.split()]
RECIPE = """
name = "tiny"
checkpoint_steps = 3
[encoder]
max_tokens = 16
architecture = { layers = 1, hidden = 16, heads = 2, feed_forward = 32, positions = 16, vocabulary = 200 }
[hardware]
chunk_tokens = 64
kept_tokens = 64
[stages.pretrain]
sources = ["stage1/*"]
batch_size = 8
steps = 8
max_tokens = 12
learning_rate = 1e-2
temperature = 0.05
average_last = 0.5
[stages.finetune]
sources = ["stage1/a__one"]
batch_size = 6
steps = 5
max_tokens = 16
learning_rate = 1e-3
temperature = 0.05
negatives = 2
[stages.finetune.mining]
count = 3
first_rank = 0
last_rank = 20
"""


def write_data(directory: Path) -> Path:
    """The recipe `tiny.toml` and its sources; returns the data directory."""
    random = np.random.default_rng(0)
    (directory / "data" / "stage1").mkdir(parents=True)
    for name, count in (("a__one", 60), ("b__two", 30)):
        words = [[str(word) for word in random.choice(WORDS, 5)] for _ in range(count)]
        pairs = [Pair(f"{' '.join(five[:3])} {row}", f"{' '.join(five[1:])} {row}") for row, five in enumerate(words)]
        write_pairs(directory / "data" / "stage1" / f"{name}.parquet", pairs)
    (directory / "tiny.toml").write_text(RECIPE)
    return directory / "data"


def train(data: Path, output: str, *more: str, recipe: str = "tiny.toml") -> Path:
    """Trains in this process; returns the run's directory."""
    directory = data.parent / output
    main([str(data.parent / recipe), "--output", str(directory), "--data", str(data), *more])
    return directory


def losses(run: Path) -> list[float]:
    return [line.loss for line in read_log(run / "log.csv")]


def change(data: Path, *changes: tuple[str, str], name: str = "changed.toml") -> str:
    """Another recipe beside tiny.toml, with each first text replaced by the second; returns its name."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (data.parent / name).write_text(text)
    return name


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
