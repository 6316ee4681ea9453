"""What every model of the family is to the native engine: one description of its arithmetic and its weights.

The readers of files make one, and build.py gives it to the C++ encoder. Its parts are named as in the papers, its
arrays as in PyTorch. Layers are read one after the other, so that only one is in memory beside what the encoder keeps.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Beyond any model's; the C++ encoder refuses more.
MOST_POSITIONS = 1 << 24


class NotCoveredError(Exception):
    """A model that only onnxruntime can run; the message says why. Never leaves this package."""


class Linear(NamedTuple):
    """y = x W^T + b, as PyTorch stores it."""

    weights_NK: NDArray[np.float32]
    """A row of inputs for each output; it may be read-only, mapped from a file, at any alignment."""
    bias_N: NDArray[np.float32] | None


class QuantizedLinear(NamedTuple):
    """A linear layer in int8: docs/export.md says how its numbers are made."""

    codes_KN: NDArray[np.int8]
    scales_N: NDArray[np.float32]
    bias_N: NDArray[np.float32]
    """With what undoes the shift, if the inputs are shifted."""
    smoothing_K: NDArray[np.float32]
    """What each input is multiplied by before it is quantized."""
    shifted: bool
    """Whether the inputs, which are never below -_kernels.GELU_SHIFT, are quantized without a sign."""


class Norm(NamedTuple):
    """Layer normalization."""

    weight_H: NDArray[np.float32]
    bias_H: NDArray[np.float32]
    """Zeros where the model has none."""


class Layer(NamedTuple):
    query_key_value: Linear | QuantizedLinear
    """3 * hidden outputs: all queries, all keys, all values."""
    attention_output: Linear | QuantizedLinear
    feed_forward_in: Linear | QuantizedLinear
    """Of a gated model, 2 * wide outputs: first those that the activation is applied to, then what they are multiplied
    with."""
    feed_forward_out: Linear | QuantizedLinear
    attention_norm: Norm | None
    """None: the attention reads the layer's input as it is, as in the first layer of ModernBERT."""
    feed_forward_norm: Norm
    window: int = 0
    """A token attends to tokens up to this distance on either side; 0: to all."""
    rotary_H2: NDArray[np.float32] | None = None
    """The inverse frequencies of rotary positions (arXiv 2104.09864), one for each pair (i, i + head / 2)."""


class EncoderWeights(NamedTuple):
    hidden: int
    heads: int
    most_tokens: int
    """The most tokens of a text that the positions allow, or where they have no end, that the model is made for."""
    epsilon: float
    """Of all layer normalizations."""
    pooling: str
    """"mean", "cls" or "lasttoken"."""
    token_embeddings_VE: NDArray[np.float32] | NDArray[np.int8]
    layers: Iterable[Layer]
    """Read when they are asked for, once."""
    norm_first: bool = False
    """Whether a block is x + f(norm(x)), and not norm(x + f(x)) as in BERT."""
    activation: str = "gelu"
    """"gelu", "gelu_tanh", "relu" or "silu"."""
    gated: bool = False
    """Whether the feed-forward multiplies two halves (GLU, arXiv 2002.05202)."""
    token_scales_V: NDArray[np.float32] | None = None
    """Of int8 embeddings, what a row is multiplied by."""
    positions_PE: NDArray[np.float32] | None = None
    """Added to the embeddings by position, with the row of token type 0; None: rotary or relative positions."""
    padding_token: int | None = None
    """In RoBERTa's way of counting, the token without a position: wherever it stands, its row is padding_row_E, and the
    tokens behind it are counted as if it were not there."""
    padding_row_E: NDArray[np.float32] | None = None
    """As a row of positions_PE."""
    token_type_row_E: NDArray[np.float32] | None = None
    """The row of token type 0, where there is no table of positions."""
    embedding_norm: Norm | None = None
    """None together with no layers: a table of tokens, whose rows are averaged."""
    projection: Linear | None = None
    """From the width of the embeddings to `hidden`, after the normalization."""
    relative_bias_HD: NDArray[np.float32] | None = None
    """Added to the scaled scores of a head: the entry [key - query + most_tokens - 1]."""
    final_norm: Norm | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a table of tokens, without layers, positions or a limit of tokens."""
        return self.most_tokens == 0

    def reading(self, max_tokens: int) -> "EncoderWeights":
        """The same for texts of up to max_tokens tokens, where the positions are rotary and have no end."""
        if self.is_table or self.positions_PE is not None or self.relative_bias_HD is not None:
            return self
        return self._replace(most_tokens=max(self.most_tokens, min(max_tokens, MOST_POSITIONS)))
