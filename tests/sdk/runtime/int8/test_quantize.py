"""The quantization rule, held to float arithmetic and to a CPU that saturates."""

from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.runtime.int8.at_open import quantize_model
from gte_sdk.runtime.int8.quantize import (
    GELU_SHIFT,
    _geometric_mean,
    level_channels,
    quantize_linear,
    quantize_symmetrically,
    quantize_without_saturation,
    undo_shift,
)
from gte_sdk.runtime.native.description import Linear
from gte_sdk.runtime.tokens import load_tokenizer

from ..native.look_alikes import CONFIGURATIONS, random_texts, write_look_alike

Floats = NDArray[np.float32]
RANDOM = np.random.default_rng(2)


def test_gelu_is_never_below_its_minimum() -> None:
    lowest = min(x * (erf(x / sqrt(2)) + 1) / 2 for x in np.linspace(-2, 0, 20_001))
    assert -GELU_SHIFT < lowest < -GELU_SHIFT + 1e-4


matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)


@given(matrices)
@settings(deadline=None)
def test_weights_that_no_cpu_saturates(weights_KN: Floats) -> None:
    """vpmaddubsw adds two neighbouring products of uint8 and int8 in 16 bits; 255 is the largest uint8."""
    codes_KN, scales_1N = quantize_without_saturation(weights_KN)
    wide_KN = np.abs(codes_KN.astype(np.int64))
    pairs = wide_KN[: len(wide_KN) // 2 * 2]
    assert 255 * (pairs[0::2] + pairs[1::2]).max(initial=0) <= np.iinfo(np.int16).max
    assert np.abs(codes_KN * scales_1N - weights_KN).max() <= scales_1N.max() / 2 + 1e-6


@given(matrices)
@settings(deadline=None)
def test_symmetric_scales(values: Floats) -> None:
    codes, scales = quantize_symmetrically(values, axis=1)
    assert scales.shape == (len(values), 1)
    assert (np.abs(codes * scales - values) <= scales / 2 + 1e-6).all()


def test_levelling_changes_nothing_in_float_and_evens_out_channels() -> None:
    activations = RANDOM.normal(size=(50, 12)).astype(np.float32)
    activations[:, 5] *= 30
    weights = RANDOM.normal(size=(12, 6)).astype(np.float32)
    factors = level_channels(np.abs(activations).max(axis=0), [weights])
    assert np.allclose((activations / factors) @ (weights * factors[:, None]), activations @ weights, atol=1e-4)
    before, after = np.abs(activations).max(axis=0), np.abs(activations / factors).max(axis=0)
    assert after.max() / np.median(after) < 0.4 * before.max() / np.median(before)
    assert np.isclose(np.log(factors).mean(), 0, atol=1e-5)


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-6, 1e6)))
@settings(deadline=None)
def test_the_geometric_mean(values: NDArray[np.float64]) -> None:
    assert np.isclose(_geometric_mean(values), np.exp(np.log(values).mean()), rtol=1e-13)


def test_the_geometric_mean_of_many_numbers_neither_overflows_nor_vanishes() -> None:
    assert np.isclose(_geometric_mean(np.full(4096, 1e200)), 1e200, rtol=1e-13)
    assert np.isclose(_geometric_mean(np.full(3073, 1e-200)), 1e-200, rtol=1e-13)


def test_undoing_the_shift_of_a_gelu() -> None:
    factors_K = RANDOM.uniform(0.5, 2, 24).astype(np.float32)
    codes_KN, scales_1N = quantize_without_saturation(RANDOM.normal(size=(24, 7)).astype(np.float32))
    shifted_N = (np.full(24, GELU_SHIFT) / factors_K) @ (codes_KN * scales_1N.astype(np.float64))
    assert np.allclose(undo_shift(factors_K, codes_KN, scales_1N[0]), -shifted_N, atol=1e-6)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_quantized_layer_computes_what_it_did_in_float(shifted: bool, has_bias: bool) -> None:
    """By the definition of QuantizedLinear, without the rounding of the inputs."""
    weights_NK = RANDOM.normal(size=(6, 32)).astype(np.float32)
    bias_N = RANDOM.normal(size=6).astype(np.float32) if has_bias else None
    inputs_RK = np.maximum(RANDOM.normal(size=(20, 32)), -GELU_SHIFT)
    inputs_RK[:, 3] *= 20
    codes_KN, scales_N, total_N, smoothing_K, is_shifted = quantize_linear(
        Linear(weights_NK, bias_N), np.abs(inputs_RK).max(axis=0).astype(np.float32), shifted
    )
    assert is_shifted is shifted
    assert codes_KN.flags.c_contiguous
    read_RK = (inputs_RK + (GELU_SHIFT if shifted else 0)) * smoothing_K
    exact_RN = inputs_RK @ weights_NK.T + (0 if bias_N is None else bias_N)
    errors_RN = read_RK @ (codes_KN * scales_N) + total_N - exact_RN
    assert np.abs(errors_RN).max() < 0.03 * np.abs(exact_RN).max()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_int8_stays_close_to_float32_in_each_architecture(name: str, tmp_path: Path) -> None:
    path = write_look_alike(tmp_path, name)
    description, tokenizer = read_model_dir(path), load_tokenizer(path / "tokenizer.json")
    texts = random_texts([3, 9, 40, 150])
    shares: list[float] = []
    quantized = quantize_model(description, "model.safetensors", texts, 1, tokenizer, shares.append)
    cosines_N = np.einsum("nd,nd->n", quantized.int8_rows_ND, quantized.float_rows_ND)
    assert cosines_N.mean() >= 0.998  # .9989 to .9999
    assert (quantized.int8_rows_ND != quantized.float_rows_ND).any()
    assert shares == sorted(shares)
    assert shares[-1] == 1
