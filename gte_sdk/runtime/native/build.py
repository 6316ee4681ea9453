"""From a description of an encoder to the C++ encoder itself."""

from typing import Any

import numpy as np

from gte_sdk import _kernels
from gte_sdk.runtime.native.description import EncoderWeights, NotCoveredError

# The kernels need layers, heads and tables whose widths are multiples of these.
_WIDTH, _HEAD_WIDTH, _TABLE_WIDTH = 64, 16, 16


def build_encoder(weights: EncoderWeights) -> Any:
    """The _kernels.Bert of a description. Raises NotCoveredError for widths that the kernels do not have."""
    _check_widths(weights)
    none = np.empty(0, dtype=np.float32)
    make: Any = _kernels.Bert
    bert = make(
        weights.token_embeddings_VE,
        weights.token_scales_V,
        none.reshape(0, weights.hidden) if weights.positions_PE is None else weights.positions_PE,
        *(weights.embedding_norm or (none, none)),
        weights.heads,
        weights.epsilon,
        weights.pooling,
    )
    layer: Any
    for layer in weights.layers:
        if layer.feed_forward_in.bias_N.shape[0] % _WIDTH:
            raise NotCoveredError(f"its feed-forward width is no multiple of {_WIDTH}")
        norms = [*layer.attention_norm, *layer.feed_forward_norm]
        bert.add_layer(
            layer.query_key_value, layer.attention_output, layer.feed_forward_in, layer.feed_forward_out, norms
        )
    return bert


def _check_widths(weights: EncoderWeights) -> None:
    if weights.embedding_norm is None:
        if weights.hidden % _TABLE_WIDTH:
            raise NotCoveredError(f"its table has {weights.hidden} columns, which is no multiple of {_TABLE_WIDTH}")
    elif weights.hidden % _WIDTH or weights.hidden % (weights.heads * _HEAD_WIDTH):
        raise NotCoveredError(
            f"it has {weights.heads} heads in a width of {weights.hidden}; the width must be a multiple of {_WIDTH} "
            f"and that of a head of {_HEAD_WIDTH}"
        )
