"""From a description of an encoder to the C++ encoder itself."""

from typing import Any

from gte_sdk import _kernels
from gte_sdk.runtime.native.description import EncoderWeights, Linear, NotCoveredError

# The kernels need layers, heads and tables whose widths are multiples of these.
_WIDTH, _HEAD_WIDTH, _TABLE_WIDTH = 64, 16, 16


def build_encoder(weights: EncoderWeights) -> Any:
    """The _kernels.Encoder of a description. Raises NotCoveredError for widths that the kernels do not have."""
    _check_widths(weights)
    encoder = _kernels.Encoder(
        weights.token_embeddings_VE,
        weights.token_scales_V,
        weights.hidden,
        weights.heads,
        weights.most_tokens,
        weights.epsilon,
        weights.pooling,
        weights.norm_first,
        weights.activation,
        weights.gated,
        weights.positions_PE,
        weights.token_type_row_E,
        weights.embedding_norm,
        weights.projection,
        weights.relative_bias_HD,
        weights.final_norm,
    )
    for layer in weights.layers:
        out = layer.feed_forward_out
        wide = out.weights_NK.shape[1] if isinstance(out, Linear) else out.codes_KN.shape[0]
        if wide % _WIDTH:
            raise NotCoveredError(f"its feed-forward width is {wide}, which is no multiple of {_WIDTH}")
        encoder.add_layer(*layer)
    return encoder


def _check_widths(weights: EncoderWeights) -> None:
    embedding_width = weights.token_embeddings_VE.shape[1]
    if weights.is_table:
        if weights.hidden % _TABLE_WIDTH:
            raise NotCoveredError(f"its table has {weights.hidden} columns, which is no multiple of {_TABLE_WIDTH}")
    elif weights.hidden % _WIDTH or weights.hidden % (weights.heads * _HEAD_WIDTH):
        raise NotCoveredError(
            f"it has {weights.heads} heads in a width of {weights.hidden}; the width must be a multiple of {_WIDTH} "
            f"and that of a head of {_HEAD_WIDTH}"
        )
    elif embedding_width % _WIDTH:
        raise NotCoveredError(f"its embeddings have {embedding_width} values, which is no multiple of {_WIDTH}")
