"""The encoder: a transformer or a token table, pooling and unit length, as one module that can be traced.

Pooling in PyTorch lives only here: training calls it, and the export traces the same module into the ONNX graph.
encoder_files.py reads and writes encoders.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from gte_sdk.runtime.tokens import special_tokens_around

Pooling = Literal["mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"]

# The weight of [CLS] and [SEP] in a static encoder: nothing beside a real token, but an empty text keeps a direction.
SPECIAL_TOKEN_WEIGHT = 1e-6


class EncoderOutput(NamedTuple):
    last_hidden_state: Tensor
    """(n, t, d) float: a vector for each token, padding included."""
    sentence_embedding: Tensor
    """(n, d) float: pooled rows of unit length."""


def mean_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the mean of the tokens that are not padding."""
    mask_NT1 = attention_mask_NT.unsqueeze(-1).to(last_hidden_state_NTD.dtype)
    return (last_hidden_state_NTD * mask_NT1).sum(dim=1) / mask_NT1.sum(dim=1).clamp(min=1.0)


def cls_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the first token that is not padding (the first column where padding is on the right)."""
    first_N11 = attention_mask_NT.argmax(dim=1)[:, None, None]
    return last_hidden_state_NTD.gather(1, first_N11.expand(-1, 1, last_hidden_state_NTD.shape[2]))[:, 0]


def last_token_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the last token that is not padding, on whichever side the padding is."""
    positions_T = torch.arange(attention_mask_NT.shape[1], device=attention_mask_NT.device)
    last_N11 = (attention_mask_NT * positions_T).argmax(dim=1)[:, None, None]
    return last_hidden_state_NTD.gather(1, last_N11.expand(-1, 1, last_hidden_state_NTD.shape[2]))[:, 0]


def max_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the largest value of each dimension over the tokens that are not padding."""
    lowest = torch.finfo(last_hidden_state_NTD.dtype).min  # not -inf, of which a text without tokens would become NaN
    return last_hidden_state_NTD.masked_fill(attention_mask_NT[:, :, None] == 0, lowest).amax(dim=1)


def weighted_mean_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the mean of the tokens, of which the k-th has the weight k (SGPT, arXiv 2202.08904)."""
    weights_NT1 = (attention_mask_NT.cumsum(dim=1) * attention_mask_NT)[:, :, None].to(last_hidden_state_NTD.dtype)
    return (last_hidden_state_NTD * weights_NT1).sum(dim=1) / weights_NT1.sum(dim=1).clamp(min=1.0)


def mean_sqrt_pool(last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """(n, d): the sum of the tokens that are not padding, divided by the square root of their number.

    It has the direction of the mean, so it is another vector only where a dense layer follows.
    """
    mask_NT1 = attention_mask_NT.unsqueeze(-1).to(last_hidden_state_NTD.dtype)
    return (last_hidden_state_NTD * mask_NT1).sum(dim=1) / mask_NT1.sum(dim=1).clamp(min=1.0).sqrt()


# By sentence-transformers' names.
POOLING: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pool,
    "cls": cls_pool,
    "lasttoken": last_token_pool,
    "max": max_pool,
    "weightedmean": weighted_mean_pool,
    "mean_sqrt_len_tokens": mean_sqrt_pool,
}


def pool_states(
    last_hidden_state_NTD: Tensor, attention_mask_NT: Tensor, pooling: Pooling, dense: nn.Sequential | None
) -> Tensor:
    """(n, d): what follows the transformer: pooling, the dense layers if there are any, and unit length."""
    pooled_ND = POOLING[pooling](last_hidden_state_NTD, attention_mask_NT)
    return normalize(pooled_ND if dense is None else dense(pooled_ND), dim=1)


class Encoder(nn.Module):
    """A transformer, pooling, optional linear layers, and unit length.

    `backbone` is a transformers model whose output has `last_hidden_state`. Its own pooler is dropped, because GTE does
    not use it. `dense` maps pooled vectors (n, h) to (n, d), as sentence-transformers' Dense modules do.
    `matryoshka_dims` are the numbers of dimensions that the vectors were trained to be cut to.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: Pooling = "mean",
        max_tokens: int = 512,
        dense: nn.Sequential | None = None,
        prompts: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise ValueError(f"pooling={pooling!r} is not one of {', '.join(POOLING)}")
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # type: ignore[assignment]
        self.backbone = backbone
        self.dense = dense
        self.pooling: Pooling = pooling
        positions = getattr(backbone.config, "max_position_embeddings", max_tokens)
        if max_tokens > positions:
            raise ValueError(f"max_tokens={max_tokens} exceeds the backbone's {positions} positions")
        self.max_tokens = max_tokens
        self.prompts = prompts or {}
        self.matryoshka_dims: tuple[int, ...] = ()
        self._takes_token_types = "token_type_ids" in inspect.signature(backbone.forward).parameters

    @property
    def dim(self) -> int:
        """Length of a sentence embedding."""
        for module in reversed(self.dense or ()):
            if isinstance(module, nn.Linear):
                return module.out_features
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(
        self, input_ids_NT: Tensor, attention_mask_NT: Tensor, token_type_ids_NT: Tensor | None = None
    ) -> EncoderOutput:
        """Token ids and mask (n, t) int64 to token vectors and unit rows.

        A backbone without segments ignores `token_type_ids_NT`. One with segments puts all tokens into segment 0 by
        default.
        """
        inputs = {"input_ids": input_ids_NT, "attention_mask": attention_mask_NT}
        if self._takes_token_types and token_type_ids_NT is not None:
            inputs["token_type_ids"] = token_type_ids_NT
        last_hidden_state_NTD = self.backbone(**inputs).last_hidden_state
        if last_hidden_state_NTD.dtype in (
            torch.bfloat16,
            torch.float16,
        ):  # from autocast: pool and normalize in float32
            last_hidden_state_NTD = last_hidden_state_NTD.float()
        sentences_ND = pool_states(last_hidden_state_NTD, attention_mask_NT, self.pooling, self.dense)
        return EncoderOutput(last_hidden_state_NTD, sentences_ND)


class StaticEncoder(nn.Module):
    """A vector and a learned weight for each token, their mean, unit length: no attention, hundreds of times faster.

    The tokens that the tokenizer puts around every text (`special_ids`) have the weight SPECIAL_TOKEN_WEIGHT. So the
    vectors are those of sentence-transformers' StaticEmbedding, and an empty text still has a unit vector.
    """

    def __init__(
        self,
        table_VD: Tensor,
        special_ids: Sequence[int],
        token_weights_V: Tensor | None = None,
        max_tokens: int = 512,
        prompts: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        token_count = table_VD.shape[0]
        self.embedding = nn.Embedding(token_count, table_VD.shape[1], _weight=table_VD.float().clone())
        weights_V = torch.ones(token_count) if token_weights_V is None else token_weights_V.float().clone()
        self.token_weights = nn.Parameter(weights_V)
        special_scale_V = torch.ones(token_count)
        special_scale_V[list(special_ids)] = SPECIAL_TOKEN_WEIGHT
        self.register_buffer("special_scale", special_scale_V, persistent=False)
        self.max_tokens = max_tokens
        self.prompts = prompts or {}
        self.matryoshka_dims: tuple[int, ...] = ()
        self.pooling: Pooling = "mean"

    @property
    def dim(self) -> int:
        """Length of a sentence embedding."""
        return self.embedding.embedding_dim

    def fold_table(self) -> Tensor:
        """(v, d) float32: each token's vector times its weight, which is all that inference needs."""
        special_scale_V: Tensor = self.get_buffer("special_scale")
        return (self.embedding.weight * (self.token_weights * special_scale_V)[:, None]).detach()

    def forward(
        self, input_ids_NT: Tensor, attention_mask_NT: Tensor, token_type_ids_NT: Tensor | None = None
    ) -> EncoderOutput:
        """As Encoder.forward; segments have no meaning here and are ignored."""
        weights_V1 = (self.token_weights * self.get_buffer("special_scale"))[:, None]
        weighted_NTD = self.embedding(input_ids_NT) * embedding(input_ids_NT, weights_V1)
        return EncoderOutput(weighted_NTD, normalize(mean_pool(weighted_NTD, attention_mask_NT), dim=1))


AnyEncoder = Encoder | StaticEncoder


def find_special_token_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that the tokenizer puts around every text, such as [CLS] and [SEP], each once."""
    before, after = special_tokens_around(tokenizer)
    return sorted({*before, *after})


def make_random_encoder(
    configuration: dict[str, Any], vocabulary_size: int, max_tokens: int, attention: str | None = None
) -> Encoder:
    """A transformer with random weights, from the fields of a transformers configuration, `model_type` included.

    The weights depend on torch's seed only. `attention` is the backbone's implementation, such as "eager"; None lets
    transformers choose.
    """
    from transformers import AutoConfig, AutoModel

    fields = dict(configuration)
    model_type = fields.pop("model_type", "bert")
    config = AutoConfig.for_model(model_type, **{**fields, "vocab_size": vocabulary_size})
    backbone = AutoModel.from_config(config, attn_implementation=attention)  # type: ignore[no-untyped-call]
    return Encoder(backbone, "mean", max_tokens)


def make_random_static_encoder(
    vocabulary_size: int, dim: int, special_ids: Sequence[int], max_tokens: int
) -> StaticEncoder:
    """A token table from a normal distribution with standard deviation 1/sqrt(dim), so rows have a length near one."""
    return StaticEncoder(torch.randn(vocabulary_size, dim) / dim**0.5, special_ids, max_tokens=max_tokens)
