"""The MTEB protocols for a directory of evaluation sets, over any function from texts to vectors: one ruler for all.

A set is a directory TASK/NAME with JSON lines; the task's folder says the protocol. Checkpoints, exported fp32 and int8
models and rivals are all measured through here, and ranked with the kernel that ships.

    python -m training.evaluate MODEL SETS... [--output scores.json]
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_sdk import Embedder
from gte_sdk.model_files.directory import GTE_JSON, bundled_models
from gte_sdk.runtime.tokens import load_tokenizer
from training.data.pairs import comparable
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.evaluation.protocols import PROTOCOLS, Embed, SetError, rows_of, with_title
from training.runs.command_line import run_command


def evaluate(sets: Sequence[Path], embed: Embed, embed_query: Embed | None = None) -> dict[str, float]:
    """The main score of each set in percent, by `task/name`. `embed_query` is used for queries where it is given."""
    return {
        f"{path.parent.name}/{path.name}": 100 * PROTOCOLS[path.parent.name](path, embed, embed_query or embed)
        for path in sets
    }


def summarize(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean of each task type, the mean over tasks and the mean over task types."""
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for name, score in scores.items():
        by_task[name.partition("/")[0]].append(score)
    means = {task: float(np.mean(values)) for task, values in by_task.items()}
    return {
        **means,
        "mean_of_tasks": float(np.mean(list(scores.values()))),
        "mean_of_task_types": float(np.mean(list(means.values()))),
    }


def find_sets(patterns: Sequence[str], root: Path | None = None) -> list[Path]:
    """Directories TASK/NAME that the patterns match (`sts/*`, a path), in order. Raises SetError where one has none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        directories = [path] if path.is_dir() else sorted((root or Path()).glob(pattern))
        nested = [
            directory
            for parent in directories
            for directory in ([parent] if parent.parent.name in PROTOCOLS else sorted(parent.glob("*/*")))
            if directory.is_dir() and directory.parent.name in PROTOCOLS
        ]
        if path.is_dir() and path.name in PROTOCOLS and not nested:
            nested = sorted(directory for directory in path.iterdir() if directory.is_dir())
        if not nested:
            raise SetError(
                f"{pattern} is no evaluation set; one is a directory TASK/NAME, TASK of {', '.join(PROTOCOLS)}"
            )
        found.update(dict.fromkeys(nested))
    return list(found)


def evaluation_texts(sets: Sequence[Path]) -> set[str]:
    """Every text that is measured on, in its `comparable` form; the training splits beside them are not."""
    texts: set[str] = set()
    for path in sets:
        for name in ("test.jsonl", "queries.jsonl", "corpus.jsonl"):
            for row in rows_of(path / name) if (path / name).is_file() else ():
                values = [
                    with_title(row) if "title" in row else "",
                    *row.get("positive", ()),
                    *row.get("negative", ()),
                ]
                values += [row[key] for key in ("a", "b", "text", "query") if key in row]
                texts.update(comparable(value) for value in values)
    texts.discard("")
    return texts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("model", help="a checkpoint, a Hub name (run by torch in fp32), or an exported model directory")
    parser.add_argument("sets", nargs="+", help="directories TASK/NAME, or of them; patterns under --root")
    parser.add_argument("--root", type=Path, help="what the patterns are relative to")
    parser.add_argument("--variant", choices=("fp32", "int8"), help="run the exported graph instead of torch")
    parser.add_argument("--max-tokens", type=int, help="instead of the model's own limit")
    parser.add_argument("--dim", type=int, help="cut the vectors to this many dimensions (Matryoshka)")
    parser.add_argument("--output", type=Path, help="write the scores as JSON")
    options = parser.parse_args(arguments)
    if options.variant and options.max_tokens:
        parser.error("--max-tokens is for torch; an exported graph reads what gte.json says")

    sets = find_sets(options.sets, options.root)
    embed, embed_query = _embed_functions(options.model, options.variant, options.max_tokens)
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
            "variant": options.variant or "torch",
            "summary": summary,
            "scores": scores,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _embed_functions(model: str, variant: str | None, max_tokens: int | None) -> tuple[Embed, Embed]:
    exported = model in bundled_models() or (Path(model) / GTE_JSON).is_file()
    if variant or exported:
        embedder = Embedder(model, variant=variant or "auto", truncation="ignore")
        return embedder.embed_documents, embedder.embed_query
    directory = resolve_directory(model)
    encoder, tokenizer = load_encoder(directory, max_tokens), load_tokenizer(directory / "tokenizer.json")

    def embed_with(prompt: str) -> Embed:
        return lambda texts: embed_texts(encoder, tokenizer, texts, encoder.max_tokens, prompt=prompt)

    return embed_with(encoder.prompts.get("document", "")), embed_with(encoder.prompts.get("query", ""))


def _cut(embed: Embed, dim: int) -> Embed:
    """Cosines do not need unit length here, but the kernels and classifiers are fed what a user would have."""

    def cut(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors_ND = embed(texts)[:, :dim]
        unit_ND: NDArray[np.float32] = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return unit_ND

    return cut


if __name__ == "__main__":
    run_command(main)
