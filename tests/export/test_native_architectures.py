"""Each architecture of the native engine against transformers: one checkpoint, from safetensors and from graphs."""

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from export.graphs.trace import write_graph
from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.runtime.native.architectures import _mpnet_buckets
from gte_sdk.runtime.native.engine import load_encoder, run_native
from gte_sdk.runtime.native.weights import read_weights
from training.encoders.encoder import Encoder

from ..sdk.runtime.native.look_alikes import CONFIGURATIONS, MOST_TOKENS, VOCABULARY, write_look_alike

# The window of local attention is smaller than most of them. Among ids up to 4 is the padding token of each, for which
# transformers counts no position in RoBERTa's relatives: at the start, at the end, and among others.
_NUMBERS = np.random.default_rng(0)
TEXTS = [_NUMBERS.integers(5, VOCABULARY, length).tolist() for length in (1, 2, 7, 33, 128, 300, MOST_TOKENS)]
TEXTS += [[0, 1, 4, 9, 30], [9, 0, 1, 1, 4, 4, 0, 30, 31, 4, 0, 1], [1], [4], [0, 0, 0]]
TEXTS += [_NUMBERS.integers(0, 8, length).tolist() for length in (40, MOST_TOKENS)]


def open_in_transformers(path: Path) -> Any:
    """With every parameter of the file, and no other but a pooler, which nobody reads."""
    model, report = AutoModel.from_pretrained(path, output_loading_info=True, attn_implementation="eager")
    strange = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    assert not [name for name in strange if "pooler" not in name], strange
    return model.eval()


def mean_vectors(model: Any, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    rows = []
    for ids in texts:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        rows.append(torch.nn.functional.normalize(states.last_hidden_state[0].mean(dim=0), dim=0).numpy())
    return np.array(rows)


def native_vectors(path: Path, name: str) -> NDArray[np.float32]:
    return run_native(load_encoder(read_weights(read_model_dir(path), name, "fp32"), threads=1), TEXTS)


def as_new(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of "new" in transformers' terms: its scaling of rotary positions is a base and a factor."""
    factor = config["rope_scaling"]["factor"]
    head = config["hidden_size"] // config["num_attention_heads"]
    rope = {"rope_type": "linear", "factor": factor ** (2 / head), "rope_theta": config["rope_theta"] * factor}
    return {**config, "model_type": "gte", "rope_parameters": rope, "rope_scaling": None, "rope_theta": None}


def test_distances_fall_into_the_buckets_of_transformers() -> None:
    distances_D = np.arange(-2000, 2001)
    in_transformers: Any = MPNetEncoder.relative_position_bucket
    expected_D = in_transformers(torch.from_numpy(distances_D)).numpy()
    np.testing.assert_array_equal(_mpnet_buckets(distances_D), expected_D)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_description_of_a_checkpoint_equals_transformers(name: str, tmp_path: Path) -> None:
    path = write_look_alike(tmp_path / "model", name)
    vectors = native_vectors(path, "model.safetensors")
    if name == "new":
        config = as_new(json.loads((path / "config.json").read_text()))
        (path / "config.json").write_text(json.dumps(config))
    model = open_in_transformers(path)
    assert np.abs(vectors - mean_vectors(model, TEXTS)).max() <= 5e-6
    # As transformers writes it: names, shards, and keys of config.json may be others.
    model.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    shutil.copytree(path / "1_Pooling", tmp_path / "saved" / "1_Pooling")
    saved = native_vectors(tmp_path / "saved", "model.safetensors.index.json")
    np.testing.assert_allclose(saved, vectors, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name != "new"])
def test_the_description_of_a_graph_is_that_of_its_checkpoint(name: str, tmp_path: Path) -> None:
    path = write_look_alike(tmp_path / "model", name)
    expected = native_vectors(path, "model.safetensors")
    model = open_in_transformers(path)
    write_graph(Encoder(model, "mean", MOST_TOKENS), path / "own.onnx")
    np.testing.assert_allclose(native_vectors(path, "own.onnx"), expected, atol=1e-7)
    _export_as_others_do(model, path / "plain.onnx")
    np.testing.assert_allclose(native_vectors(path, "plain.onnx"), expected, atol=1e-7)
    onnx.save(
        onnx.load(path / "plain.onnx"), path / "outside.onnx",
        save_as_external_data=True, location="outside.onnx_data", size_threshold=0,
    )  # fmt: skip
    np.testing.assert_allclose(native_vectors(path, "outside.onnx"), expected, atol=1e-7)


class _OnlyStates(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


def _export_as_others_do(model: Any, path: Path) -> None:
    """As optimum does: an older opset, and nothing done to the graph afterwards."""
    ids = torch.arange(6, 20).reshape(2, 7)
    free = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _OnlyStates(model), (ids, torch.ones_like(ids)), str(path), opset_version=14, dynamo=False,
            input_names=list(free), output_names=["last_hidden_state"], dynamic_axes=free,
        )  # fmt: skip
