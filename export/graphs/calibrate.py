"""Measures how large each channel of a graph's activations gets on real texts.

gte_sdk/runtime/int8/quantize.py levels the channels with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from gte_sdk.runtime.tokens import TokenBatch

_SMALLEST = 1e-3


def measure_channel_maxima(
    graph: Path, tensors: Sequence[str], batches: Iterable[TokenBatch]
) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude (k,) of each channel over real tokens, for each named tensor (n, t, k) of the graph.

    It is the mean of the batches' maxima, so that a single token does not decide. Needs at least one batch; the last
    one may be smaller than the others.
    """
    maxima: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    for name, magnitudes_RK in _observe_magnitudes(graph, tensors, batches):
        maxima[name].append(magnitudes_RK.max(axis=0))
    return {name: np.stack(rows).mean(axis=0, dtype=np.float64).astype(np.float32) for name, rows in maxima.items()}


def measure_token_spread(graph: Path, tensors: Sequence[str], batches: Iterable[TokenBatch]) -> dict[str, float]:
    """For each named tensor, how many times larger the largest token is than the median one, by their largest channel.

    With a spread of s, one scale for all tokens leaves 256 / s steps to the median token.
    """
    maxima: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    for name, magnitudes_RK in _observe_magnitudes(graph, tensors, batches):
        maxima[name].append(magnitudes_RK.max(axis=1))
    largest = {name: np.concatenate(tokens) for name, tokens in maxima.items()}
    return {name: float(tokens.max() / max(float(np.median(tokens)), _SMALLEST)) for name, tokens in largest.items()}


def _observe_magnitudes(
    graph: Path, tensors: Sequence[str], batches: Iterable[TokenBatch]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the name and the magnitudes (r, k) of the r real tokens, for each batch and tensor."""
    if not tensors:  # ONNX Runtime takes "no outputs" for "all outputs"
        return
    model = onnx.load(graph, load_external_data=False)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    observed = graph.with_name(f"{graph.name}.observed")  # beside it, where external data of the graph are
    try:
        onnx.save(model, observed, format="protobuf")
        session = onnxruntime.InferenceSession(str(observed), providers=["CPUExecutionProvider"])
        inputs = {node.name for node in session.get_inputs()}
        for batch in batches:
            feed = {name: array for name, array in batch._asdict().items() if name in inputs}
            real = batch.attention_mask.astype(bool)
            for name, values_NTK in zip(tensors, session.run(list(tensors), feed), strict=True):
                yield name, np.abs(values_NTK[real])
    finally:
        observed.unlink(missing_ok=True)
