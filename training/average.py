"""Averages the weights of checkpoints of one architecture, such as a model before and after fine-tuning.

The mean of a model and its fine-tuned version keeps what the first could do and most of what the second learned
(WiSE-FT, arXiv 2109.01903). The mean of several runs is a model soup (arXiv 2203.05482).

    python -m training.average runs/mini/model sentence-transformers/all-MiniLM-L6-v2 --weights 0.5 0.5 --output DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.encoders.encoder import AnyEncoder
from training.encoders.encoder_files import load_encoder, resolve_directory, write_encoder


def average(encoders: Sequence[AnyEncoder], weights: Sequence[float]) -> AnyEncoder:
    """Replaces the first encoder's parameters by the weighted mean of all encoders' parameters, and returns it.

    `weights` are scaled to a sum of 1. Raises ValueError if parameters differ in name or shape.
    """
    if len(encoders) != len(weights) or not encoders or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights={list(weights)}; give one, of at least 0, for each of the {len(encoders)} models")
    first = encoders[0]
    states: list[dict[str, Tensor]] = [dict(encoder.named_parameters()) for encoder in encoders]
    for number, state in enumerate(states[1:], start=2):
        shapes, own = ({name: tuple(tensor.shape) for name, tensor in of.items()} for of in (states[0], state))
        if shapes != own:
            different = sorted(name for name in shapes.keys() | own.keys() if shapes.get(name) != own.get(name))
            raise ValueError(
                f"model {number} differs from model 1 in {different[0]}; average models of one architecture"
            )
    with torch.no_grad():
        for name, parameter in states[0].items():
            parts = [
                weight / sum(weights) * state[name].double() for weight, state in zip(weights, states, strict=True)
            ]
            parameter.copy_(torch.stack(parts).sum(dim=0))
    return first


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="+", help="checkpoint directories or Hub names; the first also gives the tokenizer"
    )
    parser.add_argument("--weights", type=float, nargs="+", required=True, help="one number for each model")
    parser.add_argument("--output", type=Path, required=True, help="the directory to write")
    options = parser.parse_args(arguments)
    if len(options.weights) != len(options.models) or min(options.weights) < 0 or sum(options.weights) <= 0:
        parser.error(f"--weights takes one number, of at least 0, for each of the {len(options.models)} models")
    if options.output.exists():
        parser.error(f"{options.output} exists; choose another --output")
    directory = resolve_directory(options.models[0])
    encoders = [load_encoder(model) for model in options.models]
    write_encoder(average(encoders, options.weights), directory, options.output)


if __name__ == "__main__":
    main()
