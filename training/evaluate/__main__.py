"""Scores a model on evaluation sets with MTEB's protocols.

A set is a directory TASK/NAME with JSON lines; TASK names the protocol. Checkpoints, exported fp32 and int8 models and
other libraries' models are all measured the same way, and ranked with the kernel that ships.

    python -m training.evaluate MODEL SETS... [--output scores.json]
    python -m training.evaluate gte-mini 'retrieval/*' --queries-by gte-nano --dim 256     # two models of one space
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gte_sdk import Embedder
from gte_sdk.model_files.directory import GTE_JSON, bundled_models
from gte_sdk.runtime.engine import cut_rows
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.evaluate.protocols import PROTOCOLS, Embed
from training.evaluate.scores import evaluate, find_sets, summarize
from training.runs.command_line import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="checkpoint or Hub name (run by PyTorch in fp32), or exported model")
    parser.add_argument("sets", nargs="+", help="directories TASK/NAME, folders of them, or patterns below --root")
    parser.add_argument("--root", type=Path, help="directory that patterns are relative to")
    parser.add_argument("--variant", choices=("fp32", "int8"), help="run this graph of an exported model")
    parser.add_argument(
        "--max-tokens", type=int, help="read at most this many tokens of a text (default: the model's limit)"
    )
    parser.add_argument("--dim", type=int, help="cut the vectors to this many dimensions (for a Matryoshka model)")
    parser.add_argument(
        "--queries-by", metavar="MODEL", help="another model, of the same space, that embeds the queries"
    )
    parser.add_argument("--output", type=Path, help="file to write the scores to, as JSON")
    options = parser.parse_args(arguments)

    sets = find_sets(options.sets, options.root)
    embed, embed_query = _open_embed_functions(options.model, options.variant, options.max_tokens)
    if options.queries_by:
        _, embed_query = _open_embed_functions(options.queries_by, options.variant, options.max_tokens)
    if options.dim:
        embed, embed_query = _cut(embed, options.dim), _cut(embed_query, options.dim)
    scores: dict[str, float] = {}
    for path in sets:
        scores |= evaluate([path], embed, embed_query)
        name, score = list(scores.items())[-1]
        print(f"{score:7.2f}  {name}", flush=True)
    summary = summarize(scores)
    for name, score in summary.items():
        print(f"{score:7.2f}  mean of {name}" if name in PROTOCOLS else f"{score:7.2f}  {name}")
    if options.output:
        report = {
            "model": str(options.model),
            **({"queries_by": options.queries_by} if options.queries_by else {}),
            "variant": options.variant or "torch",
            "summary": summary,
            "scores": scores,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _open_embed_functions(model: str, variant: str | None, max_tokens: int | None) -> tuple[Embed, Embed]:
    exported = model in bundled_models() or (Path(model) / GTE_JSON).is_file()
    if variant or exported:
        embedder = Embedder(model, variant=variant or "auto", max_tokens=max_tokens, truncation="ignore")
        return embedder.embed_documents, embedder.embed_query
    directory = resolve_directory(model)
    encoder, tokenizer = load_encoder(directory, max_tokens), load_tokenizer(directory / "tokenizer.json")

    def embed_with(prompt: str) -> Embed:
        return lambda texts: embed_texts(encoder, tokenizer, texts, encoder.max_tokens, prompt=prompt)

    return embed_with(encoder.prompts.get("document", "")), embed_with(encoder.prompts.get("query", ""))


def _cut(embed: Embed, dim: int) -> Embed:
    """`embed` with vectors of `dim` dimensions, of unit length as a user has them."""
    return lambda texts: cut_rows(embed(texts), dim)


if __name__ == "__main__":
    run_command(main)
