"""Mines hard negatives once, for several runs: writes each source again with negatives (see training/data/mining.py).

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
from training.recipes.recipe import Mining
from training.runs.command_line import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    defaults = Mining()
    parser = argparse.ArgumentParser(
        prog="python -m training.mine_negatives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="checkpoint directory or Hub name of the encoder that mines")
    parser.add_argument(
        "sources", nargs="+", help="as in a recipe: patterns below --data, paths, or hub:OWNER/NAME/FILE"
    )
    parser.add_argument("--data", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--output", type=Path, required=True, help="directory for a Parquet file of each source")
    for name, kind, default, text in (
        ("--count", int, defaults.count, "negatives of a pair"),
        ("--first-rank", int, defaults.first_rank, "first rank of the window, 0 is the nearest document"),
        ("--last-rank", int, defaults.last_rank, "last rank of the window"),
        ("--max-ratio", float, defaults.max_ratio, "largest similarity, as a share of the positive's"),
        ("--max-tokens", int, defaults.max_tokens, "most tokens of a text"),
        ("--seed", int, 0, "of the draw"),
    ):
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")
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
