"""What a GPU computes in training is what the CPU does: gradient caching, 16 bits, attention, processes, whole runs."""

import copy
import os
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from training.encoders.encoder import Encoder, make_random_encoder
from training.loss.gather import Counts, average_gradients, gather_batch
from training.loss.grad_cache import backward_through_chunks
from training.loss.losses import contrastive_loss
from training.recipes.recipe import EncoderRecipe, Hardware, Recipe
from training.runs.hardware import open_accelerator, prepare_model

from ..training.tiny_run import change, losses, train, write_data

TOKEN_IDS = [[2, *range(5, 5 + length), 3] for length in (1, 9, 4, 4, 17, 2, 8, 30, 3, 6, 12, 5)]
BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # heads of 32: flash attention has no narrower ones
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return make_random_encoder(BERT, vocabulary_size=300, max_tokens=64)


def loss_of(vectors_ND: Tensor) -> Tensor:
    queries_ND, documents_ND = vectors_ND.chunk(2)
    return contrastive_loss(queries_ND, documents_ND, temperature=0.1)


def gradient_of(encoder: Encoder, device: torch.device, kept_tokens: int) -> Tensor:
    """The loss and all gradients, one after another, in float64 on the CPU."""
    torch.manual_seed(7)
    encoder.zero_grad()
    loss = backward_through_chunks(encoder, TOKEN_IDS, loss_of, chunk_tokens=64, kept_tokens=kept_tokens, device=device)
    gradients = [parameter.grad.flatten() for parameter in encoder.parameters() if parameter.grad is not None]
    return torch.cat([loss.reshape(1), *gradients]).double().cpu()


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """The difference as a share of the length: single small gradients may be rounding alone."""
    assert float((actual - expected).norm() / expected.norm()) < tolerance


def prepared(encoder: Encoder, **hardware_keys: object) -> Encoder:
    """The encoder as training prepares it."""
    hardware = Hardware(**hardware_keys)  # type: ignore[arg-type]
    recipe = Recipe("gpu", EncoderRecipe(), {}, hardware=hardware)
    prepare_model(encoder, recipe, open_accelerator(recipe, Path()))
    return encoder


@pytest.mark.parametrize("kept_tokens", [0, 130])
def test_cached_gradients_equal_uncached_ones_with_dropout(
    encoder: Encoder, device: torch.device, kept_tokens: int
) -> None:
    encoder = encoder.to(device).train()
    expected = gradient_of(encoder, device, kept_tokens=10_000)
    assert_near(gradient_of(encoder, device, kept_tokens), expected, 1e-5)
    assert float((gradient_of(encoder.eval(), device, kept_tokens) - expected).norm() / expected.norm()) > 1e-2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_are_near_float32(encoder: Encoder, device: torch.device, precision: str) -> None:
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("fp16 training is for GPUs, as hardware.py says")
    expected = gradient_of(copy.deepcopy(encoder).to(device).eval(), device, kept_tokens=0)
    actual = gradient_of(prepared(encoder, precision=precision).eval(), device, kept_tokens=0)
    assert_near(actual, expected, 0.05)
    assert not torch.equal(actual, expected)


def test_a_compiled_encoder_draws_the_same_dropout_in_both_passes(encoder: Encoder, device: torch.device) -> None:
    if not any(map(which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    plain = gradient_of(copy.deepcopy(encoder).to(device).eval(), device, kept_tokens=0)
    prepared(encoder, compile=True)
    assert_near(gradient_of(encoder.eval(), device, kept_tokens=0), plain, 1e-4)
    expected = gradient_of(encoder.train(), device, kept_tokens=10_000)
    assert_near(gradient_of(encoder, device, kept_tokens=0), expected, 1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_flash_attention_is_near_sdpa(encoder: Encoder, device: torch.device, precision: str) -> None:
    if device.type == "cpu" or find_spec("flash_attn") is None:
        pytest.skip("flash attention needs a GPU and the package flash-attn")
    sdpa = gradient_of(prepared(copy.deepcopy(encoder), precision=precision).eval(), device, kept_tokens=0)
    packed = prepared(encoder, precision=precision, attention="flash_attention_2").eval()
    flash = gradient_of(packed, device, kept_tokens=0)
    assert_near(flash, sdpa, 0.05)


def test_a_run_is_the_cpus_and_continues(device: torch.device, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    recipe = change(data, ("max_tokens = 16\narch", "max_tokens = 16\ndropout = 0.0\narch"))
    whole, parts = losses(train(data, "whole", recipe=recipe)), []
    for more in (["--stop-after", "5"], ["--stop-after", "5"], []):  # in the first stage, in the second, to the end
        parts = losses(train(data, "parts", *more, recipe=recipe))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    if device.type == "cuda":
        for precision in ("bf16", "fp16"):
            AcceleratorState._reset_state(reset_partial_state=True)
            half = change(data, ("kept_tokens = 64", f'kept_tokens = 64\nprecision = "{precision}"'))
            np.testing.assert_allclose(losses(train(data, precision, recipe=half))[:8], whole[:8], rtol=0.1)


def take_steps(encoder: Encoder, device: torch.device, rank: int, processes: int) -> Tensor:
    """The losses of three steps, of this process's pairs."""
    half, share = len(TOKEN_IDS) // 2, len(TOKEN_IDS) // 2 // processes
    own = slice(rank * share, (rank + 1) * share)
    token_ids = TOKEN_IDS[:half][own] + TOKEN_IDS[half:][own]
    counts: list[Counts] = [(share, share, 0)] * processes
    encoder = encoder.to(device).eval()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)

    def loss_of_batch(vectors_ND: Tensor) -> Tensor:
        batch = gather_batch(vectors_ND, counts)
        return contrastive_loss(*batch[:3], own=batch.own, temperature=0.1)

    taken = []
    for _ in range(3):
        taken.append(backward_through_chunks(encoder, token_ids, loss_of_batch, chunk_tokens=40, device=device))
        average_gradients(encoder.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(taken)


def in_process(rank: int, encoder: Encoder, device: torch.device, directory: Path) -> None:
    torch.set_num_threads(1)
    # NCCL refuses two processes on one device; gloo takes its tensors through the memory of the CPU.
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)
    own = take_steps(copy.deepcopy(encoder), device, rank, 2)
    dist.all_reduce(own)
    torch.save((own / 2).cpu(), directory / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # torch can deadlock between its gloo threads and the interpreter's when a process ends in order


def test_two_processes_on_one_device_are_one(encoder: Encoder, device: torch.device, tmp_path: Path) -> None:
    spawn(in_process, (encoder, device, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    expected = take_steps(encoder, device, 0, 1).cpu()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=0, atol=2e-6)
