"""Texts to vectors with an encoder in PyTorch, for mining, evaluation and distillation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from gte_sdk.runtime.tokens import batches_by_tokens, pad_batch, pad_token_id, tokenize


def embed_texts(
    encoder: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_tokens: int,
    *,
    prompt: str = "",
    token_budget: int = 16_384,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """(n, d) float32 unit rows of `prompt + text`, in the order of the texts, without dropout or gradients."""
    ids = tokenize(tokenizer, texts, max_tokens, prompt).ids
    vectors_ND = embed_token_ids(encoder, ids, pad_token_id(tokenizer), token_budget=token_budget, device=device)
    array: NDArray[np.float32] = vectors_ND.float().cpu().numpy()
    return array


def embed_token_ids(
    encoder: nn.Module,
    token_ids: Sequence[Sequence[int]],
    pad_id: int,
    *,
    token_budget: int = 16_384,
    device: torch.device | None = None,
) -> Tensor:
    """(n, d) unit rows on `device`, in the order of the texts, without dropout or gradients."""
    if not token_ids:
        raise ValueError("no texts to embed")
    device = device or torch.device("cpu")
    was_training = encoder.training
    encoder.eval()
    chunks = list(batches_by_tokens([len(ids) for ids in token_ids], token_budget))
    parts = []
    with torch.no_grad():
        for chunk in chunks:
            batch = pad_batch([token_ids[index] for index in chunk], pad_id)
            inputs = (torch.from_numpy(array).to(device, non_blocking=True) for array in batch)
            parts.append(encoder(*inputs).sentence_embedding)
    encoder.train(was_training)
    order_N = torch.from_numpy(np.concatenate(chunks)).to(device)
    return torch.cat(parts)[torch.argsort(order_N)]
