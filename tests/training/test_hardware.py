"""What the hardware keys change is speed and memory: precision, attention and checkpointing train the same."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from gte_sdk.runtime.tokens import load_tokenizer, pad_batch
from training.encoders.encoder import Encoder, make_random_encoder
from training.encoders.encoder_files import write_encoder
from training.loss.grad_cache import backward_through_chunks
from training.loss.losses import contrastive_loss
from training.recipes.recipe import Architecture, EncoderRecipe, Hardware, Recipe, RecipeError
from training.runs.hardware import open_accelerator, prepare_model
from training.runs.start import make_start_encoder

from .tiny_run import change, losses, train

TOKEN_IDS = [[2, *range(5, 5 + length), 3] for length in (1, 9, 4, 4, 17, 2, 8, 30, 3, 6)]
ARCHITECTURE = Architecture(layers=1, hidden=16, heads=2, feed_forward=32, positions=64)


def prepared(encoder: Encoder, **hardware: object) -> Encoder:
    """The encoder as training gets it with these hardware keys."""
    recipe = Recipe("hardware", EncoderRecipe(), {}, hardware=Hardware(**hardware))  # type: ignore[arg-type]
    prepare_model(encoder, recipe, open_accelerator(recipe, Path()))
    return encoder


def embed(encoder: Encoder) -> Tensor:
    batch = pad_batch(TOKEN_IDS)
    embedding: Tensor = encoder(*(torch.from_numpy(array) for array in batch)).sentence_embedding
    return embedding


def loss_of(vectors_ND: Tensor) -> Tensor:
    queries_ND, documents_ND = vectors_ND.chunk(2)
    return contrastive_loss(queries_ND, documents_ND, temperature=0.1)


def test_bf16_trains_as_float32_does_to_its_rounding(data: Path) -> None:
    expected = losses(train(data, "float32", "--stop-after", "7"))
    half = change(data, ("kept_tokens = 64", 'kept_tokens = 64\nprecision = "bf16"'))
    AcceleratorState._reset_state(reset_partial_state=True)
    run = train(data, "bf16", "--stop-after", "7", recipe=half)
    assert losses(run) != expected
    np.testing.assert_allclose(losses(run), expected, rtol=0.1)
    (checkpoint,) = (run / "checkpoints").glob("step-00000007")
    weights = load_file(checkpoint / "model" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.parametrize("written", [False, True])
def test_eager_attention_equals_sdpa_to_rounding(written: bool, tokenizer_directory: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    recipe = EncoderRecipe(architecture=ARCHITECTURE, max_tokens=64)
    if written:
        write_encoder(make_start_encoder(recipe, tokenizer, 0), tokenizer_directory, tmp_path / "start")
        recipe = EncoderRecipe(start=str(tmp_path / "start"), max_tokens=64)
    encoders = []
    for attention in ("sdpa", "eager"):
        encoder = make_start_encoder(recipe, tokenizer, 0, attention).eval()
        assert isinstance(encoder, Encoder)
        encoders.append(prepared(encoder, attention=attention))
        assert encoder.backbone.config._attn_implementation == attention  # type: ignore[union-attr]
    sdpa, eager = encoders
    for encoder in encoders:
        loss_of(embed(encoder)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(embed(eager), embed(sdpa), rtol=0, atol=1e-6)
    for name, parameter in sdpa.named_parameters():
        gradient = eager.get_parameter(name).grad
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


def test_an_attention_that_the_backbone_has_not_is_an_error_with_the_one_it_has() -> None:
    fields = {"model_type": "mpnet", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = make_random_encoder({**fields, "intermediate_size": 32}, vocabulary_size=50, max_tokens=64)
    with pytest.raises(RecipeError, match=r"hardware\.attention = 'sdpa': MPNetModel of .* has 'eager' only; set that"):
        prepared(encoder)
    assert prepared(encoder, attention="eager") is encoder


def test_what_is_not_here_is_said_before_anything_is_loaded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    hardware = "kept_tokens = 64"
    for key, message in (
        ('precision = "fp16"', "precision = 'fp16' needs a GPU, but this machine has none"),
        ('attention = "flash_attention_2"', "'flash_attention_2' needs a GPU, but this machine has none; set sdpa"),
    ):
        with pytest.raises(RecipeError, match=message):
            train(data / "nowhere", "run", recipe="../" + change(data, (hardware, f"{hardware}\n{key}")))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("training.runs.hardware.find_spec", lambda name: None)
    flash = Recipe("flash", EncoderRecipe(), {}, hardware=Hardware("bf16", "flash_attention_2"))
    with pytest.raises(RecipeError, match="pip install flash-attn, or set sdpa"):
        open_accelerator(flash, data)
    with pytest.raises(RecipeError, match="needs a package that is not installed: pip install tensorboard"):
        open_accelerator(Recipe("board", EncoderRecipe(), {}, tensorboard=True), data)
    monkeypatch.setattr("training.runs.hardware.find_spec", lambda name: True)
    with pytest.raises(RecipeError, match=r"computes in 16 bits; set hardware\.precision = 'bf16'"):
        open_accelerator(Recipe("flash", EncoderRecipe(), {}, hardware=Hardware("fp32", "flash_attention_2")), data)


@pytest.mark.parametrize("kept_tokens", [0, 60, 10_000])
def test_gradient_checkpointing_gives_the_same_gradients_with_dropout_and_gradient_caching(
    tiny_encoder: Encoder, kept_tokens: int
) -> None:
    plain = prepared(copy.deepcopy(tiny_encoder)).double().train()
    checkpointed = prepared(copy.deepcopy(tiny_encoder), gradient_checkpointing=True).double().train()
    results: list[tuple[Tensor, Tensor]] = []
    layer_runs: list[list[object]] = []
    for encoder in (plain, checkpointed):
        runs: list[object] = []
        inside = encoder.backbone.encoder.layer[0].output.dense  # type: ignore  # hooks of a layer itself run once
        inside.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        layer_runs.append(runs)
        torch.manual_seed(7)
        loss = backward_through_chunks(encoder, TOKEN_IDS, loss_of, chunk_tokens=40, kept_tokens=kept_tokens)
        results.append((loss, torch.rand(())))  # and the next draw: no pass leaves a trace in the random state
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(checkpointed.get_parameter(name).grad, parameter.grad, rtol=0, atol=1e-12)
    assert len(layer_runs[1]) > len(layer_runs[0])  # every layer of a graph ran once more
    assert not torch.equal(embed(plain), embed(plain))  # and dropout was on


def test_no_dropout_means_none_also_inside_of_attention(tokenizer_directory: Path) -> None:
    tokenizer: Tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    drawn = []
    for dropout in (0.0, -1.0):
        recipe = EncoderRecipe(architecture=ARCHITECTURE, max_tokens=64, dropout=dropout)
        encoder = make_start_encoder(recipe, tokenizer, 0)
        assert isinstance(encoder, Encoder)
        drawn.append(torch.equal(embed(encoder.train()), embed(encoder)))
    assert drawn == [True, False]
