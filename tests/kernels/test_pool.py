"""Mean pooling and unit length against float64 numpy."""

import numpy as np
import pytest

from gte_sdk import _kernels


def test_mean_pool_averages_the_tokens_of_the_mask_and_reads_no_padding() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((5, 9, 37)).astype(np.float32)
    mask = (generator.random((5, 9)) < 0.6).astype(np.int64)
    mask[2] = 0
    mask[:2, 0] = 1
    expected = np.zeros((5, 37))
    for text in range(5):
        if mask[text].any():
            expected[text] = vectors[text, mask[text] == 1].astype(np.float64).mean(axis=0)
    vectors[mask == 0] = np.nan
    means = _kernels.mean_pool(vectors, mask)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, expected, atol=1e-6)
    assert (means[2] == 0).all()


def test_mean_pool_does_not_change_with_more_padding() -> None:
    vectors = np.random.default_rng(1).standard_normal((3, 6, 16)).astype(np.float32)
    mask = np.ones((3, 6), np.int64)
    wider = np.concatenate([vectors, np.full((3, 4, 16), np.inf, np.float32)], axis=1)
    wider_mask = np.concatenate([mask, np.zeros((3, 4), np.int64)], axis=1)
    assert _kernels.mean_pool(wider, wider_mask).tobytes() == _kernels.mean_pool(vectors, mask).tobytes()


def test_mean_pool_of_no_texts_and_of_no_tokens() -> None:
    assert _kernels.mean_pool(np.empty((0, 4, 8), np.float32), np.empty((0, 4), np.int64)).shape == (0, 8)
    assert _kernels.mean_pool(np.empty((2, 0, 8), np.float32), np.empty((2, 0), np.int64)).tolist() == [[0.0] * 8] * 2


def test_mean_pool_refuses_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match="agree in n and t"):
        _kernels.mean_pool(np.ones((2, 3, 4), np.float32), np.ones((2, 4), np.int64))


def test_normalize_rows_gives_unit_rows_of_the_same_direction_at_any_size() -> None:
    generator = np.random.default_rng(2)
    vectors = generator.standard_normal((6, 50)).astype(np.float32)
    vectors *= np.array([[1e-30], [1e-5], [1], [1e5], [1e30], [0]], np.float32)
    before = vectors.copy()
    unit = _kernels.normalize_rows(vectors)
    assert vectors.tobytes() == before.tobytes()
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit[:5], vectors[:5] / lengths[:5], rtol=1e-6)
    assert (unit[5] == 0).all()
