"""From a description of an encoder to the C++ encoder itself."""

from typing import Any

import numpy as np

from gte_sdk import _kernels
from gte_sdk.errors import ModelFormatError
from gte_sdk.runtime.native.description import EncoderWeights, QuantizedLinear


def build_encoder(weights: EncoderWeights) -> Any:
    """The _kernels.Encoder of a description.

    Raises ValueError for arrays whose shapes do not fit together, ModelFormatError for int8 weights that are damaged.
    """
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
        for part in layer:
            if isinstance(part, QuantizedLinear):
                _refuse_not_finite(part)
        encoder.add_layer(*layer)
    return encoder


def _refuse_not_finite(linear: QuantizedLinear) -> None:
    """A NaN among them is rounded to some int8 code, and would end as a vector that is finite."""
    for name in ("scales_N", "bias_N", "smoothing_K"):
        if not np.isfinite(getattr(linear, name)).all():
            raise ModelFormatError(
                f"{name} of an int8 layer has NaN or infinity: the weights are damaged; export or download them again"
            )
