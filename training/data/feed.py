"""The feed of a stage: batches, drawn and tokenized ahead of the step, by a thread or by worker processes.

Every process draws the same batches and tokenizes its own share. Worker processes keep Python free for the step; they
get texts and return token ids as one array.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gte_sdk.runtime.tokens import load_tokenizer, tokenize
from training.data.mixture import Batch, Mixture


class Tokenized(NamedTuple):
    batch: Batch
    """The whole batch, of all processes."""
    queries: list[str]
    """This process's share of the batch, as are the documents and token ids."""
    documents: list[str]
    token_ids: Sequence[Sequence[int]]
    """Of queries, then documents, then negatives, each an array."""
    counts: list[tuple[int, int, int]]
    """How many queries, documents and negatives each process has, by rank."""


@contextmanager
def open_feed(
    mixture: Mixture, tokenizer_file: Path, max_tokens: int, *, process: int, processes: int, workers: int, count: int
) -> Iterator[Iterator[Tokenized]]:
    """The next `count` batches, with the share of `process` out of `processes`.

    With `workers` processes, as many batches are ahead of the step; with 0, a thread is one ahead.
    """
    tokenizers = (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_work_on_one_core)
        if workers
        else ThreadPoolExecutor(1)
    )

    def draw() -> tuple[Tokenized, Future[tuple[NDArray[np.int32], NDArray[np.int64]]]]:
        batch = mixture.next_batch()
        share = len(batch.pairs) // processes
        shares = [batch.pairs[start : start + share] for start in range(0, share * processes, share)]
        queries, documents = [pair.query for pair in shares[process]], [pair.document for pair in shares[process]]
        negatives = [text for pair in shares[process] for text in pair.negatives]
        counts = [(share, share, sum(len(pair.negatives) for pair in of_one)) for of_one in shares]
        tokenized = Tokenized(batch, queries, documents, [], counts)
        return tokenized, tokenizers.submit(_tokenize, tokenizer_file, queries + documents + negatives, max_tokens)

    def batches(drawing: ThreadPoolExecutor) -> Iterator[Tokenized]:
        ahead = deque(drawing.submit(draw) for _ in range(min(count, 1 + workers)))
        for number in range(count):
            tokenized, ids = ahead.popleft().result()
            flat, ends = ids.result()
            if number + len(ahead) + 1 < count:
                ahead.append(drawing.submit(draw))
            yield tokenized._replace(token_ids=cast(Sequence[Sequence[int]], np.split(flat, ends[:-1])))

    with tokenizers, ThreadPoolExecutor(1) as drawing:
        try:
            yield batches(drawing)
        finally:
            drawing.shutdown(cancel_futures=True)


def _tokenize(
    tokenizer_file: Path, texts: Sequence[str], max_tokens: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The ids of all texts, one after another, and where those of each end."""
    rows = tokenize(_open_tokenizer(tokenizer_file), texts, max_tokens).ids
    return np.concatenate([np.array(row, dtype=np.int32) for row in rows]), np.cumsum([len(row) for row in rows])


@cache  # of a worker's life
def _open_tokenizer(path: Path) -> Tokenizer:
    return load_tokenizer(path)


def _work_on_one_core() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many workers as the recipe wants cores
