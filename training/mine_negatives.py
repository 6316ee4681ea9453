"""Hard negatives for stage 2: documents of the same source that rank high for a query and are not its answer.

Ranked exactly, with the kernel of the runtime. Positive-aware (NV-Retriever, arXiv 2407.15831): a document that scores
more than 95 % of the positive's similarity is probably an answer too and is left out; of the rest, a sample out of a
window of ranks. Costs one pass of the encoder over the source and one exact search.

    python -m training.mine_negatives MODEL SOURCE... --output DIR
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_sdk import top_k_cosine
from gte_sdk.runtime.tokens import load_tokenizer
from training.data.pairs import Pair, write_pairs
from training.data.sources import open_sources
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.recipe import Mining
from training.runs.command_line import run_command

QUERIES_A_SEARCH = 4096


def mine(
    pairs: Sequence[Pair],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    mining: Mining,
    seed: int,
) -> list[Pair]:
    """The pairs with up to `mining.count` negatives each: their own first, then mined ones.

    A candidate is a document of `pairs` of rank first_rank to last_rank (0 is the nearest) for the query, at most
    max_ratio times as similar as the query's own document, and no document of another pair with the same query.
    Candidates are drawn at random with `seed`. A pair without candidates keeps what it has.
    """
    documents = list(dict.fromkeys(pair.document for pair in pairs))
    document_vectors_MD = embed(documents)
    numbers = {document: number for number, document in enumerate(documents)}
    answers: defaultdict[str, set[int]] = defaultdict(set)
    for pair in pairs:
        answers[pair.query].add(numbers[pair.document])
    random = np.random.default_rng(seed)
    rank_count = min(mining.last_rank + 1, len(documents))
    mined = []
    for start in range(0, len(pairs), QUERIES_A_SEARCH):
        block = pairs[start : start + QUERIES_A_SEARCH]
        queries_QD = embed([pair.query for pair in block])
        scores_QK, indices_QK = top_k_cosine(queries_QD, document_vectors_MD, rank_count)
        own_QD = document_vectors_MD[[numbers[pair.document] for pair in block]]
        limit_Q = mining.max_ratio * (queries_QD * own_QD).sum(axis=1)
        for pair, limit, scores_K, indices_K in zip(block, limit_Q, scores_QK, indices_QK, strict=True):
            window = zip(scores_K[mining.first_rank :], indices_K[mining.first_rank :], strict=True)
            candidates = [int(index) for score, index in window if score <= limit and index not in answers[pair.query]]
            wanted = min(len(candidates), max(0, mining.count - len(pair.negatives)))
            chosen = random.choice(candidates, wanted, replace=False) if wanted else ()
            texts = [*pair.negatives, *(documents[index] for index in chosen)]
            negatives = tuple(dict.fromkeys(text for text in texts if text not in (pair.query, pair.document)))
            mined.append(pair._replace(negatives=negatives))
    return mined


def main(arguments: Sequence[str] | None = None) -> None:
    defaults = Mining()
    parser = argparse.ArgumentParser(prog="python -m training.mine_negatives", description=__doc__)
    parser.add_argument("model", help="checkpoint directory or Hub name")
    parser.add_argument("sources", nargs="+", help="as in a recipe: patterns under --data, paths, hub:OWNER/NAME/FILE")
    parser.add_argument("--data", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--output", type=Path, required=True, help="directory for one Parquet file a source")
    parser.add_argument("--count", type=int, default=defaults.count)
    parser.add_argument("--first-rank", type=int, default=defaults.first_rank)
    parser.add_argument("--last-rank", type=int, default=defaults.last_rank)
    parser.add_argument("--max-ratio", type=float, default=defaults.max_ratio)
    parser.add_argument("--max-tokens", type=int, default=defaults.max_tokens)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    mining = Mining(
        count=options.count,
        first_rank=options.first_rank,
        last_rank=options.last_rank,
        max_ratio=options.max_ratio,
    )
    directory = resolve_directory(options.model)
    encoder, tokenizer = load_encoder(directory), load_tokenizer(directory / "tokenizer.json")
    max_tokens = min(options.max_tokens, encoder.max_tokens)
    options.output.mkdir(parents=True, exist_ok=True)
    for source in open_sources(options.sources, options.data):
        pairs = [source[index] for index in range(len(source))]
        mined = mine(pairs, lambda texts: embed_texts(encoder, tokenizer, texts, max_tokens), mining, options.seed)
        write_pairs(options.output / f"{source.name}.parquet", mined)
        mean = sum(len(pair.negatives) for pair in mined) / len(mined)
        print(f"{source.name}: {len(mined)} pairs, {mean:.1f} negatives a pair")


if __name__ == "__main__":
    run_command(main)
