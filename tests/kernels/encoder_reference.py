"""What the encoder computes, in float64 numpy: one text after another, in the words of the papers."""

from collections.abc import Callable
from math import erf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Weights(NamedTuple):
    """The arguments of _kernels.Encoder and its add_layer."""

    settings: dict[str, Any]
    layers: list[dict[str, Any]]


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def linear(x_TK: Array, given: tuple[Any, Any]) -> Array:
    weights_NK, bias_N = given
    return np.asarray(x_TK @ weights_NK.astype(np.float64).T + (0 if bias_N is None else bias_N))


def norm(x_TH: Array, given: tuple[Array, Array] | None, epsilon: float) -> Array:
    if given is None:
        return x_TH
    centred_TH = x_TH - x_TH.mean(axis=1, keepdims=True)
    deviations_T1 = np.sqrt((centred_TH**2).mean(axis=1, keepdims=True) + epsilon)
    return np.asarray(centred_TH / deviations_T1 * given[0] + given[1])


def turn(x_TD: Array, rotary_F: Array, first: int) -> Array:
    """Rotary positions in the "rotate half" layout; the angle is rounded to float32."""
    positions_T = np.arange(first, first + len(x_TD), dtype=np.float32)
    angles_TF = (positions_T[:, None] * rotary_F).astype(np.float64)
    first_TF, second_TF = np.split(x_TD, 2, axis=1)
    return np.concatenate(
        [
            first_TF * np.cos(angles_TF) - second_TF * np.sin(angles_TF),
            second_TF * np.cos(angles_TF) + first_TF * np.sin(angles_TF),
        ],
        axis=1,
    )


def attention(x_TH: Array, weights: Weights, layer: dict[str, Any], first: int) -> Array:
    heads, most_tokens = weights.settings["heads"], weights.settings["most_tokens"]
    token_count, hidden = x_TH.shape
    head = hidden // heads
    distances_TT = np.arange(token_count)[None, :] - np.arange(token_count)[:, None]
    queries_TH, keys_TH, values_TH = np.split(linear(x_TH, layer["query_key_value"]), 3, axis=1)
    context_TH = np.empty_like(queries_TH)
    for index in range(heads):
        part = slice(index * head, (index + 1) * head)
        queries_TD, keys_TD = queries_TH[:, part], keys_TH[:, part]
        if layer["rotary"] is not None:
            queries_TD, keys_TD = turn(queries_TD, layer["rotary"], first), turn(keys_TD, layer["rotary"], first)
        scores_TT = queries_TD @ keys_TD.T / np.sqrt(head)
        if weights.settings["relative_bias"] is not None:
            scores_TT += weights.settings["relative_bias"][index, distances_TT + most_tokens - 1]
        if layer["window"]:
            scores_TT[np.abs(distances_TT) > layer["window"]] = -np.inf
        shares_TT = np.exp(scores_TT - scores_TT.max(axis=1, keepdims=True))
        context_TH[:, part] = shares_TT / shares_TT.sum(axis=1, keepdims=True) @ values_TH[:, part]
    return context_TH


def position_rows(weights: Weights, ids: list[int]) -> Array:
    """A row for each token: that of its position, or, for the padding token, its own."""
    rows, position = [], 0
    for id in ids:
        if id == weights.settings["padding_token"]:
            rows.append(weights.settings["padding_row"])
        else:
            rows.append(weights.settings["positions"][position])
            position += 1
    return np.array(rows)


def states(weights: Weights, ids: list[int], inputs: list[list[Array]] | None = None, first: int = 0) -> Array:
    """The last states (tokens, hidden) of a text.

    inputs: gets what the four linear layers of each layer read. first: the rotary position of the first token.
    """
    settings = weights.settings
    epsilon, norm_first = settings["epsilon"], settings["norm_first"]
    x_TE = settings["token_embeddings"][ids].astype(np.float64)
    if settings["token_scales"] is not None:
        x_TE *= settings["token_scales"][ids, None]
    if settings["positions"] is not None:
        x_TE += position_rows(weights, ids)
    if settings["token_type_row"] is not None:
        x_TE += settings["token_type_row"]
    x_TH = norm(x_TE, settings["embedding_norm"], epsilon)
    if settings["projection"] is not None:
        x_TH = linear(x_TH, settings["projection"])
    for layer in weights.layers:
        read_TH = norm(x_TH, layer["attention_norm"], epsilon) if norm_first else x_TH
        context_TH = attention(read_TH, weights, layer, first)
        x_TH = x_TH + linear(context_TH, layer["attention_output"])
        if not norm_first:
            x_TH = norm(x_TH, layer["attention_norm"], epsilon)
        wide_read_TH = norm(x_TH, layer["feed_forward_norm"], epsilon) if norm_first else x_TH
        wide_TW = linear(wide_read_TH, layer["feed_forward_in"])
        activate = ACTIVATIONS[settings["activation"]]
        if settings["gated"]:
            activated_TW, factor_TW = np.split(wide_TW, 2, axis=1)
            wide_TW = activate(activated_TW) * factor_TW
        else:
            wide_TW = activate(wide_TW)
        x_TH = x_TH + linear(wide_TW, layer["feed_forward_out"])
        if not norm_first:
            x_TH = norm(x_TH, layer["feed_forward_norm"], epsilon)
        if inputs is not None:
            inputs.append([read_TH, context_TH, wide_read_TH, wide_TW])
    return norm(x_TH, settings["final_norm"], epsilon)


def vector(weights: Weights, ids: list[int]) -> Array:
    """The unit vector of a text."""
    states_TH = states(weights, ids)
    pooled_H = {"mean": states_TH.mean(axis=0), "cls": states_TH[0], "lasttoken": states_TH[-1]}[
        weights.settings["pooling"]
    ]
    return np.asarray(pooled_H / np.linalg.norm(pooled_H))
