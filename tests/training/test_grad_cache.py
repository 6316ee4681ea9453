"""Cached, kept and plain gradients are the same gradients; dropout draws the same in both passes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from gte_sdk.runtime.tokens import pad_batch
from training.encoders.encoder import Encoder
from training.loss.grad_cache import backward_through_chunks
from training.loss.losses import contrastive_loss

TOKEN_IDS = [[2, *range(5, 5 + length), 3] for length in (1, 9, 4, 4, 17, 2, 8, 30, 3, 6)]


def loss_of(vectors_ND: Tensor) -> Tensor:
    queries_ND, documents_ND = vectors_ND.chunk(2)
    return contrastive_loss(queries_ND, documents_ND, temperature=0.1)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> None:
    assert left.keys() == right.keys()
    assert len(left) > 10
    for name, gradient in left.items():
        assert (gradient - right[name]).abs().max() <= tolerance, name


def plain_batch(encoder: Encoder) -> Tensor:
    """One forward pass over everything, padded to the longest."""
    batch = pad_batch(TOKEN_IDS)
    loss = loss_of(encoder(*(torch.from_numpy(array) for array in batch)).sentence_embedding)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@pytest.mark.parametrize("kept_tokens", [0, 20, 60, 10_000])
@pytest.mark.parametrize("chunk_tokens", [1, 40, 10_000])
def test_cached_equals_plain_in_float64(tiny_encoder: Encoder, chunk_tokens: int, kept_tokens: int) -> None:
    plain = tiny_encoder.double().eval()
    cached = copy.deepcopy(plain)
    expected = plain_batch(plain)
    loss = backward_through_chunks(cached, TOKEN_IDS, loss_of, chunk_tokens=chunk_tokens, kept_tokens=kept_tokens)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-9)
    assert_same(gradients(cached), gradients(plain), 1e-9)


@pytest.mark.parametrize("kept_tokens", [0, 60])
def test_with_dropout_both_passes_draw_the_same(tiny_encoder: Encoder, kept_tokens: int) -> None:
    whole_graph = tiny_encoder.double().train()
    cached = copy.deepcopy(whole_graph)
    torch.manual_seed(7)
    # Everything kept: each chunk runs once, with its own dropout. This is the reference for the same chunks cached.
    expected = backward_through_chunks(whole_graph, TOKEN_IDS, loss_of, chunk_tokens=40, kept_tokens=10_000)
    next_draw = torch.rand(())
    torch.manual_seed(7)
    loss = backward_through_chunks(cached, TOKEN_IDS, loss_of, chunk_tokens=40, kept_tokens=kept_tokens)
    assert torch.equal(torch.rand(()), next_draw)  # the second pass leaves no trace in the random state
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    assert_same(gradients(cached), gradients(whole_graph), 1e-12)
    without_dropout = copy.deepcopy(whole_graph).eval()
    assert abs(plain_batch(without_dropout).item() - expected.item()) > 1e-4
