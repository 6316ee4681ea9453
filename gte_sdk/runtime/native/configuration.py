"""The values of config.json that change what an encoder computes: known, or a NotCoveredError that names the key."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.model_files.published import LARGEST
from gte_sdk.runtime.native.description import NotCoveredError

Config = Mapping[str, Any]

# transformers' names. Several stand for one function, up to the last digits of its constants.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
# Keys that make something else of any architecture, with the values that do not.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "is_decoder": (None, False),
    "is_causal": (None, False),
    "add_cross_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
}


def refuse_other_arithmetic(config: Config, harmless: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises NotCoveredError for a key of _HARMLESS or `harmless` with another value."""
    for key, values in {**_HARMLESS, **harmless}.items():
        if not any(config.get(key) == value and type(config.get(key)) is type(value) for value in values):
            raise NotCoveredError(f"config.json has {key}={config[key]!r:.80}")


def whole(config: Config, key: str, default: int | None = None, least: int = 1) -> int:
    value = config.get(key, default)
    if type(value) is not int or not least <= value <= LARGEST:
        raise NotCoveredError(f"config.json has {key}={value!r:.40} where a whole number from {least} belongs")
    return value


def widths(config: Config) -> tuple[int, int]:
    """The width of the hidden states, and the number of heads, which share it."""
    hidden, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    if hidden % heads:
        raise NotCoveredError(f"config.json has {heads} heads in a width of {hidden}, which they cannot share equally")
    if config.get("head_dim") not in (None, hidden // heads):
        raise NotCoveredError(
            f"config.json has head_dim={config['head_dim']!r:.40} for {heads} heads in a width of {hidden}"
        )
    return hidden, heads


def number(config: Config, key: str, default: float | None = None) -> float:
    """A positive number."""
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e300:
        raise NotCoveredError(f"config.json has {key}={value!r:.40} where a positive number belongs")
    return float(value)


def switch(config: Config, key: str, default: bool) -> bool:
    value = config.get(key, default)
    if type(value) is not bool:
        raise NotCoveredError(f"config.json has {key}={value!r:.40} where true or false belongs")
    return value


def epsilon(config: Config, key: str, default: float) -> float:
    value = number(config, key, default)
    if value >= 1:
        raise NotCoveredError(f"config.json has {key}={value!r}, which must be below 1")
    return value


def activation(config: Config, key: str) -> str:
    """One of EncoderWeights.activation. transformers takes GELU where the key is missing."""
    value = config.get(key, "gelu")
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        raise NotCoveredError(f"config.json has {key}={value!r:.40}; one of {', '.join(_ACTIVATIONS)} is known")
    return _ACTIVATIONS[value]


def settings(config: Config, key: str) -> Config:
    """The object under a key; empty where it is missing or null."""
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise NotCoveredError(f"config.json has {key}={value!r:.40}, which must be an object")
    return value


def rotary_frequencies(theta: float, head: int, scaling: Config | None) -> NDArray[np.float32]:
    """(head / 2,): the inverse frequencies theta^(-2i / head) of arXiv 2104.09864, scaled for longer texts.

    scaling: `rope_scaling` or `rope_parameters` of config.json. "linear" divides all frequencies by its factor. "ntk"
    is that of GTE's own code (https://kexue.fm/archives/9706), which applies to texts of any length.
    """
    if head % 2:
        raise NotCoveredError(f"rotary positions need heads of an even width, and they have {head}")
    scaling = scaling or {}
    if scaling.get("partial_rotary_factor") not in (None, 1):
        raise NotCoveredError(f"config.json has partial_rotary_factor={scaling['partial_rotary_factor']!r:.40}")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    frequencies: NDArray[np.float64] = theta ** -(np.arange(0, head, 2, dtype=np.float64) / head)
    if kind == "linear":
        frequencies /= number(scaling, "factor")
    elif kind == "ntk" and (factor := number(scaling, "factor")) > 1:
        if scaling.get("mixed_b") is None:
            frequencies *= factor ** -(np.arange(2, head + 2, 2, dtype=np.float64) / head)
        else:
            steps = np.arange(1, head // 2 + 1, dtype=np.float64) / (head / 2)
            frequencies *= np.exp(-np.log(factor) * steps ** number(scaling, "mixed_b"))
    elif kind not in ("default", "ntk"):
        raise NotCoveredError(f"config.json has rotary positions of type {kind!r:.40}; default, linear, ntk are known")
    return frequencies.astype(np.float32)
