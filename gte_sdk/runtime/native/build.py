"""From a description of an encoder to the C++ encoder itself."""

from typing import Any

from gte_sdk import _kernels
from gte_sdk.runtime.native.description import EncoderWeights


def build_encoder(weights: EncoderWeights) -> Any:
    """The _kernels.Encoder of a description. Raises ValueError for arrays whose shapes do not fit together."""
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
        weights.padding_token,
        weights.padding_row_E,
    )
    for layer in weights.layers:
        encoder.add_layer(*layer)
    return encoder
