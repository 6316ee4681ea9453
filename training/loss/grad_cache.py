"""Gradient caching: the gradient of a loss over all vectors of a batch, in the memory of one chunk of it.

Gao et al. 2021 (arXiv 2101.06983): embed every chunk without a graph, differentiate the loss with respect to the
vectors, then embed each chunk again with a graph and backpropagate its vectors' gradients. Chunks are cut by tokens and
grouped by length, so short texts are not padded to long ones. Each chunk keeps its random state, so dropout draws the
same in both passes. The last chunks, up to `kept_tokens`, keep their first graph and are not embedded twice.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gte_sdk.runtime.tokens import batches_by_tokens, pad_batch


class _RandomState(NamedTuple):
    cpu: Tensor
    accelerator: Tensor | None


def backward_through_chunks(
    model: nn.Module,
    token_ids: Sequence[Sequence[int]],
    loss_of: Callable[[Tensor], Tensor],
    *,
    chunk_tokens: int,
    kept_tokens: int = 0,
    pad_id: int = 0,
    device: torch.device | None = None,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Adds the gradient of `loss_of(vectors)` to the model's parameters and returns the loss, detached.

    `loss_of` gets the vectors (n, d) of `token_ids`, in their order. A chunk has at most `chunk_tokens` padded tokens;
    a longer text is a chunk of its own. Memory holds the graphs of up to `kept_tokens` padded tokens. The model returns
    an EncoderOutput. `backward` lets mixed precision scale the loss. Processes may make different numbers of chunks, so
    the model must not be inside of DDP; call average_gradients of gather.py afterwards.
    """
    device = device or torch.device("cpu")
    lengths = [len(ids) for ids in token_ids]
    chunks = list(batches_by_tokens(lengths, chunk_tokens))
    first_kept = _first_kept(chunks, lengths, kept_tokens)

    def embed(chunk: NDArray[np.int64]) -> Tensor:
        batch = pad_batch([token_ids[index] for index in chunk], pad_id)
        tensors = [torch.from_numpy(array) for array in batch]
        if device.type == "cuda":  # only from pinned memory does a copy run beside the computation
            tensors = [tensor.pin_memory() for tensor in tensors]
        inputs = (tensor.to(device, non_blocking=True) for tensor in tensors)
        embedding_ND: Tensor = model(*inputs).sentence_embedding
        return embedding_ND

    states: list[_RandomState] = []
    parts: list[Tensor] = []
    for index, chunk in enumerate(chunks):
        if index < first_kept:
            states.append(_random_state(device))
            with torch.no_grad():
                parts.append(embed(chunk))
        else:
            parts.append(embed(chunk))

    order_N = torch.from_numpy(np.concatenate(chunks)).to(device)
    position_N = torch.argsort(order_N)
    if first_kept == 0:
        loss = loss_of(torch.cat(parts)[position_N])
        backward(loss)
        return loss.detach()

    vectors_ND = torch.cat([part.detach() for part in parts])[position_N].requires_grad_()
    loss = loss_of(vectors_ND)
    (gradient_ND,) = torch.autograd.grad(loss, vectors_ND)
    gradients = torch.split(gradient_ND[order_N], [len(chunk) for chunk in chunks])

    if first_kept < len(chunks):
        backward(_inner_product(parts[first_kept:], gradients[first_kept:]))
    del parts
    for index, chunk in enumerate(chunks[:first_kept]):
        after_first_pass = _random_state(device)
        _restore(states[index], device)
        part_ND = embed(chunk)
        _restore(after_first_pass, device)
        backward(_inner_product([part_ND], [gradients[index]]))
    return loss.detach()


def _first_kept(chunks: Sequence[NDArray[np.int64]], lengths: Sequence[int], kept_tokens: int) -> int:
    """The index of the first of the last chunks that together have at most `kept_tokens` padded tokens."""
    first = len(chunks)
    for chunk in reversed(chunks):
        kept_tokens -= len(chunk) * max(lengths[index] for index in chunk)
        if kept_tokens < 0:
            break
        first -= 1
    return first


def _inner_product(parts: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar whose gradient with respect to the parts is `gradients`."""
    products = [(part_ND * gradient_ND).sum() for part_ND, gradient_ND in zip(parts, gradients, strict=True)]
    return torch.stack(products).sum()


def _random_state(device: torch.device) -> _RandomState:
    if device.type == "cuda":
        return _RandomState(torch.get_rng_state(), torch.cuda.get_rng_state(device))
    return _RandomState(torch.get_rng_state(), torch.mps.get_rng_state() if device.type == "mps" else None)


def _restore(state: _RandomState, device: torch.device) -> None:
    torch.set_rng_state(state.cpu)
    if device.type == "cuda" and state.accelerator is not None:
        torch.cuda.set_rng_state(state.accelerator, device)
    elif state.accelerator is not None:
        torch.mps.set_rng_state(state.accelerator)
