"""The encoder reads and writes the sentence-transformers layout, and gives the vectors sentence-transformers gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from gte_sdk.errors import ModelFormatError
from gte_sdk.runtime.tokens import load_tokenizer, pad_batch, tokenize
from training.encoders.encoder import (
    POOLING,
    AnyEncoder,
    Encoder,
    StaticEncoder,
    cls_pool,
    find_special_token_ids,
    last_token_pool,
    make_random_static_encoder,
    mean_pool,
)
from training.encoders.encoder_files import load_encoder, write_encoder

TEXTS = ["open a file", "sort a list of numbers by key", "", "a"]


def embed(encoder: AnyEncoder, tokenizer: Tokenizer) -> Tensor:
    batch = pad_batch(tokenize(tokenizer, TEXTS, encoder.max_tokens).ids)
    with torch.no_grad():
        output = encoder.eval()(*(torch.from_numpy(array) for array in batch))
    embedding: Tensor = output.sentence_embedding
    return embedding


@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_ignores_padding_on_either_side(side: str) -> None:
    hidden_NTD = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [99.0, 99.0]]])
    mask_NT = torch.tensor([[1, 1, 1, 0]])
    if side == "left":
        hidden_NTD, mask_NT = hidden_NTD.roll(1, dims=1), mask_NT.roll(1, dims=1)
    assert mean_pool(hidden_NTD, mask_NT).tolist() == [[3.0, 2.0]]
    assert cls_pool(hidden_NTD, mask_NT).tolist() == [[1.0, 2.0]]
    assert last_token_pool(hidden_NTD, mask_NT).tolist() == [[5.0, 0.0]]


def test_mean_pool_of_nothing_is_zero_and_not_nan() -> None:
    assert mean_pool(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.int64)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("pooling", POOLING)
def test_written_encoder_is_the_one_sentence_transformers_loads(
    tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path, pooling: str
) -> None:
    from sentence_transformers import SentenceTransformer

    dense = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Tanh())
    encoder = Encoder(tiny_encoder.backbone, pooling, 16, dense, {"query": "q: "})  # type: ignore[arg-type]
    write_encoder(encoder, tokenizer_directory, tmp_path)
    reloaded = load_encoder(tmp_path)
    expected_ND = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    ours_ND = embed(encoder, load_tokenizer(tmp_path / "tokenizer.json"))
    np.testing.assert_allclose(ours_ND.numpy(), expected_ND, atol=1e-6)
    assert torch.equal(ours_ND, embed(reloaded, load_tokenizer(tmp_path / "tokenizer.json")))
    assert (reloaded.max_tokens, reloaded.dim, reloaded.prompts, reloaded.pooling) == (16, 8, {"query": "q: "}, pooling)
    assert torch.allclose(ours_ND.norm(dim=1), torch.ones(len(TEXTS)))


def test_static_encoder_is_sentence_transformers_static_embedding(tokenizer_directory: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    encoder = make_random_static_encoder(tokenizer.get_vocab_size(), 24, find_special_token_ids(tokenizer), 64)
    with torch.no_grad():
        encoder.token_weights.uniform_(0.1, 2.0)
    write_encoder(encoder, tokenizer_directory, tmp_path)
    ours_ND = embed(encoder, tokenizer)
    expected_ND = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    not_empty = [0, 1, 3]
    np.testing.assert_allclose(ours_ND.numpy()[not_empty], expected_ND[not_empty], atol=2e-6)
    assert torch.allclose(ours_ND.norm(dim=1), torch.ones(len(TEXTS)))
    reloaded = load_encoder(tmp_path)
    assert isinstance(reloaded, StaticEncoder)
    assert torch.allclose(embed(reloaded, tokenizer), ours_ND, atol=1e-6)


def test_plain_transformers_directory_is_mean_pooled(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.backbone.save_pretrained(tmp_path)  # type: ignore[operator]
    encoder = load_encoder(tmp_path)
    assert (encoder.pooling, encoder.max_tokens) == ("mean", 64)


def test_padding_does_not_change_a_vector(tiny_encoder: Encoder, tokenizer_directory: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    together_ND = embed(tiny_encoder, tokenizer)
    for index, text in enumerate(TEXTS):
        batch = pad_batch(tokenize(tokenizer, [text], 64).ids)
        alone = tiny_encoder(*(torch.from_numpy(array) for array in batch)).sentence_embedding[0]
        assert torch.allclose(alone, together_ND[index], atol=1e-6)


def test_what_cannot_be_rebuilt_is_refused(tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="no/such/dir is not a directory"):
        load_encoder("no/such/dir")
    with pytest.raises(ModelFormatError, match=r"config\.json is missing"):
        load_encoder(tmp_path)
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path)
    dense = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Tanh())
    pooling = {"word_embedding_dimension": 32, "pooling_mode": ["cls", "mean"]}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ModelFormatError, match=r"asks for pooling \['cls', 'mean'\]"):
        load_encoder(tmp_path)
    write_encoder(Encoder(tiny_encoder.backbone, "mean", 16, dense), tokenizer_directory, tmp_path)
    config = json.loads((tmp_path / "2_Dense" / "config.json").read_text())
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps({**config, "module_input_name": "token_embeddings"}))
    with pytest.raises(ModelFormatError, match=r"a Dense layer with module_input_name='token_embeddings'"):
        load_encoder(tmp_path)
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFormatError, match="has a module LSTM"):
        load_encoder(tmp_path)
    modules[1]["type"] = "sentence_transformers.models.Normalize"
    modules[2]["type"] = "sentence_transformers.models.Pooling"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFormatError, match="Transformer, Normalize, Pooling in this order"):
        load_encoder(tmp_path)
    (tmp_path / "modules.json").unlink()
    (tmp_path / "1_Pooling" / "config.json").unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match="pickled weights are not read"):
        load_encoder(tmp_path)
