"""The quantization rule: how float32 weights become int8 codes, for the export and for models quantized as they open.

Activations are quantized while the encoder runs, with a scale for each token. Weights get a scale for each output
channel, and embedding tables one for each row. A transformer's activations have a few channels that are ten times
larger than the rest, which would cost the others three bits. Dividing each channel by a factor, and multiplying the
weights that read it by the same factor, changes nothing in float and moves part of the range from the activations to
the weights (SmoothQuant, arXiv 2211.10438, equation 4).

All operations here are rounded as IEEE 754 says and have a fixed order, so every machine makes the same codes.
"""

from collections.abc import Iterable
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels

# Changes whenever the same weights and texts give other codes: it is part of the name of what the cache keeps.
VERSION = 1
# GELU is never below -GELU_SHIFT; adding it makes the output non-negative, so that it uses all 256 steps of uint8.
GELU_SHIFT = _kernels.GELU_SHIFT
_SMALLEST = 1e-3


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
