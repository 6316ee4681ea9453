"""Pairs of sentences that feel the same way: a contrastive model places opposite feelings side by side without them.

    python -m training.data.polarity SOURCE... --data DATA --output DATA/stage2/polarity__sentences.parquet

Every sentence of the sources gets the sentiment of VADER's lexicon (Hutto and Gilbert, ICWSM 2014, doi
10.1609/icwsm.v8i1.14550; the package vaderSentiment, MIT). A sentence with a clear one is paired with the nearest
sentence of the same sign. The nearest ones of the other sign, which are about the same things, are its negatives. The
sign is the pairs' label, so that no loss pushes two sentences of one sign apart.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_sdk import Embedder, top_k_cosine
from gte_sdk.errors import GteError
from training.data.pairs import Pair, PairsError, Source, write_pairs
from training.data.sources import open_sources

WORDS = range(4, 41)
"""How many words a sentence has: fewer say nothing, and more are no sentence but a text without punctuation."""
SAME_TEXT = 0.95
"""A cosine above which two sentences are taken for the same one."""
NEIGHBOURS = 8
"""How many of the nearest sentences of its own sign are looked at for one that is not the same text."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.polarity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", help="as in a recipe: patterns below --data, or paths")
    parser.add_argument("--data", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--output", type=Path, required=True, help="the Parquet file of pairs")
    parser.add_argument("--model", default="gte-mini", help="whose neighbours are taken (default: %(default)s)")
    parser.add_argument("--sentiment", type=float, default=0.6, help="least absolute sentiment (default: %(default)s)")
    parser.add_argument("--negatives", type=int, default=3, help="negatives of a pair (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=20_000, help="most sentences of a sign (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.sentiment <= 1:
        parser.error(f"--sentiment {options.sentiment} must be above 0 and at most 1")
    if options.negatives < 1:
        parser.error(f"--negatives {options.negatives} must be at least 1")
    if options.limit < 2:
        parser.error(f"--limit {options.limit} must be at least 2")

    try:
        sources = open_sources(options.sources, options.data)
        positive, negative = sort_by_sign(sentences_of(sources), load_lexicon(), options.sentiment, options.limit)
        embedder = Embedder(options.model, truncation="ignore")
        pairs = pair_by_sign(positive, negative, lambda texts: embedder.embed(list(texts)), options.negatives)
        write_pairs(options.output, pairs)
    except (PairsError, GteError) as error:
        parser.error(str(error))
    print(f"{options.output}: {len(pairs)} pairs of {len(positive)} positive and {len(negative)} negative sentences")


def load_lexicon() -> Callable[[str], float]:
    """The sentiment of a sentence, from -1 to 1. Raises PairsError without the package vaderSentiment."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise PairsError("the lexicon is missing; install it: pip install vaderSentiment") from error
    analyzer = SentimentIntensityAnalyzer()
    return lambda sentence: float(analyzer.polarity_scores(sentence)["compound"])


def sentences_of(sources: Sequence[Source]) -> Iterator[str]:
    """The sentences of all queries and documents, each source's in its order, the sources in turns."""
    for index in range(max(map(len, sources))):
        for source in sources:
            if index < len(source):
                pair = source[index]
                for text in (pair.query, pair.document):
                    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
                        if len(sentence.split()) in WORDS:
                            yield sentence.strip()


def sort_by_sign(
    sentences: Iterable[str], sentiment: Callable[[str], float], least: float, limit: int
) -> tuple[list[str], list[str]]:
    """The first `limit` positive and the first `limit` negative sentences, each once.

    Positive is a sentiment of `least` or more, negative one of -`least` or less. Reads on until both are full or the
    sentences end.
    """
    signs: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for sentence in sentences:
        score = sentiment(sentence)
        if abs(score) >= least and len(signs[score < 0]) < limit:
            signs[score < 0][sentence] = None
        if all(len(sign) == limit for sign in signs):
            break
    return list(signs[0]), list(signs[1])


def pair_by_sign(
    positive: Sequence[str],
    negative: Sequence[str],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    negatives: int,
) -> list[Pair]:
    """Each sentence, its nearest one of the same sign, and its `negatives` nearest ones of the other sign.

    `embed` gives unit vectors. A sentence whose neighbours are all the same text (SAME_TEXT) is left out. Raises
    PairsError if a sign has fewer than two sentences.
    """
    if min(len(positive), len(negative)) < 2:
        raise PairsError(
            f"there are {len(positive)} positive and {len(negative)} negative sentences, and pairs need two of each; "
            "name more sources, or a lower --sentiment"
        )
    positive_PD, negative_ND = embed(positive), embed(negative)
    pairs = []
    for label, own, own_AD, others, others_BD in (
        ("positive", positive, positive_PD, negative, negative_ND),
        ("negative", negative, negative_ND, positive, positive_PD),
    ):
        scores_AK, indices_AK = top_k_cosine(own_AD, own_AD, min(NEIGHBOURS, len(own)))
        _, opposite_AK = top_k_cosine(own_AD, others_BD, min(negatives, len(others)))
        for number, sentence in enumerate(own):
            nearest = zip(scores_AK[number], indices_AK[number], strict=True)
            partners = [int(index) for score, index in nearest if index != number and score < SAME_TEXT]
            if partners:
                opposite = tuple(others[int(index)] for index in opposite_AK[number])
                pairs.append(Pair(sentence, own[partners[0]], opposite, label))
    return pairs


if __name__ == "__main__":
    main()
