"""The quantization rule: how float32 weights become int8 codes, for the export and for models quantized as they open.

Activations are quantized while the encoder runs, with a scale for each token. Weights get a scale for each output
channel, and embedding tables one for each row. A transformer's activations have a few channels that are ten times
larger than the rest, which would cost the others three bits. Dividing each channel by a factor, and multiplying the
weights that read it by the same factor, changes nothing in float and moves part of the range from the activations to
the weights (SmoothQuant, arXiv 2211.10438, equation 4).

All operations here are rounded as IEEE 754 says and have a fixed order, so every machine makes the same codes.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.runtime.native.description import EncoderWeights, Layer, Linear, QuantizedLinear

# Changes whenever the same weights and texts give other codes: it is part of the name of what the cache keeps.
VERSION = 1
# GELU is never below -GELU_SHIFT; adding it makes the output non-negative, so that it uses all 256 steps of uint8.
GELU_SHIFT = _kernels.GELU_SHIFT
_SMALLEST = 1e-3
_TABLE_ROWS = 4096


def level_channels(maxima_K: NDArray[np.float32], weights_KN: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The factors (k,) to divide the activations by, and to multiply the rows of all weights that read them by.

    maxima_K: the largest magnitude of each channel. The factors are equation 4 of SmoothQuant with alpha = 1/2 (tried
    too: 1/4 and 3/4), scaled to a geometric mean of 1.
    """
    weight_maxima_K = np.max([np.abs(weights).max(axis=1) for weights in weights_KN], axis=0)
    activations_K = np.sqrt(np.maximum(maxima_K.astype(np.float64), _SMALLEST))
    factors_K = activations_K / np.sqrt(np.maximum(weight_maxima_K, np.float32(_SMALLEST)))
    levelled_K: NDArray[np.float32] = (factors_K / _geometric_mean(factors_K)).astype(np.float32)
    return levelled_K


def quantize_symmetrically(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes and float32 scales along `axis`, kept as a dimension of 1: values are about codes * scales."""
    scales = np.abs(values).max(axis=axis, keepdims=True).astype(np.float32) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(values / scales).astype(np.int8), scales


def quantize_without_saturation(weights_KN: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes (k, n) and a float32 scale (1, n) for each output channel, such that no CPU saturates.

    x86 without VNNI adds two neighbouring uint8 x int8 products in 16 bits, and saturates (onnxruntime#6004). If two
    neighbouring codes are at most 128 together, the largest sum is 255 * 128 = 32 640, which fits. So the result is the
    same everywhere. The scale is coarser only in channels in which two large weights are neighbours.
    """
    magnitudes_KN = np.abs(weights_KN)
    even_KN = magnitudes_KN[: len(magnitudes_KN) // 2 * 2]
    pairs_1N = (even_KN[0::2] + even_KN[1::2]).max(axis=0, keepdims=True, initial=0)
    scales_1N = np.maximum(pairs_1N, magnitudes_KN.max(axis=0, keepdims=True)).astype(np.float32) / np.float32(127)
    scales_1N[scales_1N == 0] = 1
    return np.rint(weights_KN / scales_1N).astype(np.int8), scales_1N


def undo_shift(
    factors_K: NDArray[np.float32], codes_KN: NDArray[np.int8], scales_N: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What to add to the products (n,) of a GELU's output that was shifted by GELU_SHIFT before it was quantized."""
    shift_K1 = (GELU_SHIFT / factors_K.astype(np.float64))[:, None]
    sums_N = np.add.reduce(shift_K1 * codes_KN, axis=0)  # row after row, where a matrix product has no fixed order
    undo_N: NDArray[np.float32] = (-sums_N * scales_N).astype(np.float32)
    return undo_N


def quantize_encoder(weights: EncoderWeights, maxima: Sequence[Sequence[NDArray[np.float32]]]) -> EncoderWeights:
    """The encoder with int8 token embeddings and layers. A layer is read and quantized when it is asked for, once.

    maxima: for each layer the largest magnitude of each channel of its four linear layers' inputs, in their order.
    A projection of the embeddings, positions and biases stay in float32.
    """
    codes_VE, scales_V = _quantize_table(weights.token_embeddings_VE)
    return weights._replace(
        token_embeddings_VE=codes_VE, token_scales_V=scales_V, layers=_quantize_layers(weights, maxima)
    )


def quantize_linear(linear: Linear, maxima_K: NDArray[np.float32], shifted: bool) -> QuantizedLinear:
    """shifted: whether the inputs are the output of a GELU."""
    weights_KN = linear.weights_NK.T
    factors_K = level_channels(maxima_K, [weights_KN])
    codes_KN, scales_1N = quantize_without_saturation(np.ascontiguousarray(weights_KN * factors_K[:, None]))
    bias_N = np.zeros_like(scales_1N[0]) if linear.bias_N is None else linear.bias_N
    if shifted:
        bias_N = bias_N + undo_shift(factors_K, codes_KN, scales_1N[0])
    return QuantizedLinear(codes_KN, scales_1N[0], bias_N, np.float32(1) / factors_K, shifted)


def _quantize_layers(weights: EncoderWeights, maxima: Sequence[Sequence[NDArray[np.float32]]]) -> Iterator[Layer]:
    shifted = weights.activation == "gelu" and not weights.gated
    for layer, maxima_of_layer in zip(weights.layers, maxima, strict=True):
        linears = (layer.query_key_value, layer.attention_output, layer.feed_forward_in, layer.feed_forward_out)
        quantized = [
            quantize_linear(linear, maxima_K, shifted and linear is layer.feed_forward_out)
            for linear, maxima_K in zip(linears, maxima_of_layer, strict=True)
            if isinstance(linear, Linear)
        ]
        yield layer._replace(
            query_key_value=quantized[0],
            attention_output=quantized[1],
            feed_forward_in=quantized[2],
            feed_forward_out=quantized[3],
        )


def _quantize_table(table_VE: NDArray[np.float32] | NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes and a scale for each row, some rows after the other: the table may be the largest part of a model."""
    codes_VE = np.empty(table_VE.shape, dtype=np.int8)
    scales_V = np.empty(len(table_VE), dtype=np.float32)
    for start in range(0, len(table_VE), _TABLE_ROWS):
        rows = slice(start, start + _TABLE_ROWS)
        codes_VE[rows], scales_R1 = quantize_symmetrically(table_VE[rows].astype(np.float32), axis=1)
        scales_V[rows] = scales_R1[:, 0]
    return codes_VE, scales_V


def _geometric_mean(values: NDArray[np.float64]) -> float:
    """Of positive numbers. Logarithms of numpy differ between processors; products of halves of the list do not."""
    mantissas, exponents = np.frexp(values)
    exponent = int(exponents.sum())
    while len(mantissas) > 1:
        middle = len(mantissas) // 2
        rest = mantissas[2 * middle :]
        mantissas, exponents = np.frexp(np.append(mantissas[:middle] * mantissas[middle : 2 * middle], rest))
        exponent += int(exponents.sum())
    with localcontext() as context:
        context.prec = 30
        logarithm = Decimal(float(mantissas[0])).ln() + exponent * Decimal(2).ln()
        return float((logarithm / len(values)).exp())
