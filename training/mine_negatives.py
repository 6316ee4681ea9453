"""Mines hard negatives once, for several runs: the sources again, each pair with negatives (training/data/mining.py).

python -m training.mine_negatives MODEL SOURCE... --output DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gte_sdk.runtime.tokens import load_tokenizer
from training.data.mining import mine
from training.data.pairs import write_pairs
from training.data.sources import open_sources
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.recipe import Mining
from training.runs.command_line import run_command


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
