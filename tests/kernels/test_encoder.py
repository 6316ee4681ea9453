"""The encoder against float64 numpy, each feature and architecture, and what holds across instruction sets."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gte_sdk import _kernels

from .encoder_reference import Weights, states, vector

INSTRUCTION_SETS = _kernels.encoder_instruction_sets()
VOCABULARY = 30

# What each kind of architecture has; everything else is as in BERT.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {},
    "relu, the first token's vector": {"activation": "relu", "pooling": "cls"},
    "tanh's GELU, the last token's vector": {"activation": "gelu_tanh", "pooling": "lasttoken"},
    "embeddings of another width (ELECTRA)": {"width": 192},
    "narrower embeddings": {"width": 64, "hidden": 128, "heads": 2},
    "relative biases, a padding token (MPNet)": {"relative": True, "padding": 1},
    "a padding token, narrow": {"hidden": 48, "heads": 4, "wide": 100, "width": 24, "padding": 0},
    "rotary, gated (GTE's new)": {"positions": False, "rotary": [1e4, 1e4], "gated": True, "biased": False},
    "rotary, a SiLU gate, token types": {
        "positions": False, "token_type": True, "rotary": [500.0, 1e4], "gated": True, "activation": "silu",
    },
    "norms first, a window (ModernBERT)": {
        "positions": False, "norm_first": True, "rotary": [1.6e5, 1e4], "windows": [0, 3], "gated": True,
        "biased": False,
    },
    "a window of one, norms first, positions": {"norm_first": True, "windows": [1, 20]},
    "heads of 16": {"heads": 8},
    "heads of 48 that turn": {"hidden": 192, "heads": 4, "wide": 64, "positions": False, "rotary": [100.0, 1e4]},
    "one head": {"heads": 1, "relative": True},
    "heads of 12": {"hidden": 48, "heads": 4, "wide": 100},
    "an odd number of odd heads": {"hidden": 35, "heads": 5, "wide": 33, "width": 24, "relative": True},
    "halves of 3 that turn": {
        "hidden": 72, "heads": 12, "wide": 50, "positions": False, "rotary": [100.0, 1e4], "gated": True,
        "norm_first": True, "windows": [0, 3],
    },
    "more inputs than a block": {"hidden": 64, "heads": 2, "wide": 832, "layer_count": 1},
}  # fmt: skip


NO_PADDING: dict[str, Any] = {"padding_token": None, "padding_row": None}


def floats(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def make_weights(
    seed: int = 0, *, hidden: int = 128, heads: int = 4, wide: int = 192, width: int = 0, most_tokens: int = 40,
    layer_count: int = 2, positions: bool = True, token_type: bool = False, relative: bool = False,
    rotary: list[float] | None = None, windows: list[int] | None = None, norm_first: bool = False, gated: bool = False,
    biased: bool = True, activation: str = "gelu", pooling: str = "mean", padding: int | None = None,
) -> Weights:  # fmt: skip
    """Made-up weights whose states are about 1, and scores far enough apart that a mistake in one shows."""
    generator = np.random.default_rng(seed)
    embedding_width = width or hidden

    def linear(inputs: int, outputs: int) -> tuple[Any, Any]:
        bias_N = floats(generator, outputs, scale=0.3) if biased else None
        return floats(generator, outputs, inputs, scale=2 / np.sqrt(inputs)), bias_N

    def norm(size: int) -> tuple[Any, Any]:
        return 1 + floats(generator, size, scale=0.2), floats(generator, size, scale=0.2) * biased

    settings = {
        "token_embeddings": floats(generator, VOCABULARY, embedding_width),
        "token_scales": None,
        "hidden": hidden,
        "heads": heads,
        "most_tokens": most_tokens,
        "epsilon": 1e-5,
        "pooling": pooling,
        "norm_first": norm_first,
        "activation": activation,
        "gated": gated,
        "positions": floats(generator, most_tokens, embedding_width, scale=0.5) if positions else None,
        "token_type_row": floats(generator, embedding_width) if token_type else None,
        "embedding_norm": norm(embedding_width),
        "projection": linear(embedding_width, hidden) if width else None,
        "relative_bias": floats(generator, heads, 2 * most_tokens - 1) if relative else None,
        "final_norm": norm(hidden) if norm_first else None,
        "padding_token": padding,
        "padding_row": None if padding is None else floats(generator, embedding_width),
    }
    layers = []
    for index in range(layer_count):
        head = hidden // heads
        bases = rotary[index] ** -(np.arange(0, head, 2) / head) if rotary else None
        layers.append(
            {
                "query_key_value": linear(hidden, 3 * hidden),
                "attention_output": linear(hidden, hidden),
                "feed_forward_in": linear(hidden, wide * (1 + gated)),
                "feed_forward_out": linear(wide, hidden),
                "attention_norm": None if norm_first and index == 0 else norm(hidden),
                "feed_forward_norm": norm(hidden),
                "window": windows[index] if windows else 0,
                "rotary": None if bases is None else bases.astype(np.float32),
            }
        )
    return Weights(settings, layers)


def in_int8(weights: Weights) -> Weights:
    """The same in int8, with one scale for each output."""
    generator = np.random.default_rng(5)

    def quantized(given: tuple[Any, Any], shifted: bool) -> tuple[Any, ...]:
        smoothing_K = generator.uniform(0.7, 1.3, given[0].shape[1]).astype(np.float32)
        weights_KN = given[0].T / smoothing_K[:, None]
        scales_N = np.abs(weights_KN).max(axis=0) / 127
        codes_KN = np.rint(weights_KN / scales_N).astype(np.int8)
        bias_N = np.zeros(len(scales_N), np.float32) if given[1] is None else given[1]
        shift_N = _kernels.GELU_SHIFT * given[0].sum(axis=1) if shifted else 0
        return codes_KN, scales_N, (bias_N - shift_N).astype(np.float32), smoothing_K, shifted

    shifted = weights.settings["activation"] == "gelu" and not weights.settings["gated"]
    products = {"query_key_value", "attention_output", "feed_forward_in", "feed_forward_out"}
    layers = [
        layer | {name: quantized(layer[name], shifted and name == "feed_forward_out") for name in sorted(products)}
        for layer in weights.layers
    ]
    embeddings_VE = weights.settings["token_embeddings"]
    scales_V = np.abs(embeddings_VE).max(axis=1) / 127
    codes_VE = np.rint(embeddings_VE / scales_V[:, None]).astype(np.int8)
    return Weights(weights.settings | {"token_embeddings": codes_VE, "token_scales": scales_V}, layers)


def make_encoder(weights: Weights) -> _kernels.Encoder:
    encoder = _kernels.Encoder(**weights.settings)
    for layer in weights.layers:
        encoder.add_layer(**layer)
    return encoder


def make_texts(seed: int, lengths: list[int]) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, length).tolist() for length in lengths]


def encode(
    encoder: _kernels.Encoder, weights: Weights, texts: list[list[int]], *, batch_tokens: int = 256, threads: int = 1,
    **options: Any,
) -> NDArray[np.float32]:  # fmt: skip
    starts = np.cumsum([0, *map(len, texts)])
    row_count = starts[-1] if options.get("token_states") else len(texts)
    out = np.full((row_count, weights.settings["hidden"]), np.nan, np.float32)
    encoder.encode(np.concatenate(texts).astype(np.int32), starts, out, batch_tokens, threads, **options)
    return out


# Around the 16 keys of a panel, more rows than attend together, and the longest.
LENGTHS = [1, 2, 7, 16, 17, 40]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_states_and_vectors_equal_float64(name: str) -> None:
    weights = make_weights(**ARCHITECTURES[name])
    encoder, texts = make_encoder(weights), make_texts(1, LENGTHS)
    expected_states = np.concatenate([states(weights, text) for text in texts])
    expected_vectors = np.array([vector(weights, text) for text in texts])
    for instruction_set in INSTRUCTION_SETS:
        found = encode(encoder, weights, texts, token_states=True, instruction_set=instruction_set)
        np.testing.assert_allclose(found, expected_states, atol=1e-5 * np.abs(expected_states).max())
        found = encode(encoder, weights, texts, instruction_set=instruction_set)
        np.testing.assert_allclose(found, expected_vectors, atol=2e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bits_are_those_of_a_text_alone_in_scalar_code(name: str, precision: str) -> None:
    """Whatever the instruction set, the threads, the batch and the place in it."""
    weights = make_weights(**ARCHITECTURES[name])
    weights = in_int8(weights) if precision == "int8" else weights
    encoder, texts = make_encoder(weights), make_texts(2, [3, 40, 1, 17, 6, 8])
    alone = np.concatenate([encode(encoder, weights, [text], instruction_set="scalar") for text in texts])
    assert np.isfinite(alone).all()
    order = [5, 0, 3, 3, 1, 4, 2]
    for instruction_set in INSTRUCTION_SETS:
        for threads, batch_tokens in ((1, 1000), (3, 1), (2, 30)):
            found = encode(
                encoder, weights, [texts[i] for i in order], batch_tokens=batch_tokens, threads=threads,
                instruction_set=instruction_set,
            )  # fmt: skip
            assert found.tobytes() == alone[order].tobytes()


def test_int8_is_near_fp32() -> None:
    for name in ("bert", "norms first, a window (ModernBERT)"):
        weights = make_weights(**ARCHITECTURES[name])
        coarse, texts = in_int8(weights), make_texts(3, [9, 20])
        cosines = (encode(make_encoder(weights), weights, texts) * encode(make_encoder(coarse), coarse, texts)).sum(
            axis=1
        )
        assert cosines.min() > 0.98


def test_a_table_of_floats_is_the_mean_of_its_rows() -> None:
    for width in (16, 48, 304, 5):
        weights = make_weights(hidden=width, heads=1, layer_count=0)
        nothing = {"positions": None, "embedding_norm": None, "most_tokens": 0}
        weights = Weights(weights.settings | nothing, [])
        table, texts = make_encoder(weights), make_texts(4, [1, 300, 7])
        expected = [vector(weights, text) for text in texts]
        for instruction_set in INSTRUCTION_SETS:
            np.testing.assert_allclose(
                encode(table, weights, texts, instruction_set=instruction_set), expected, atol=1e-6
            )


@pytest.mark.parametrize("name", ["bert", "norms first, a window (ModernBERT)", "halves of 3 that turn"])
def test_channel_maxima_are_those_of_all_inputs(name: str) -> None:
    weights = make_weights(**ARCHITECTURES[name])
    encoder, texts = make_encoder(weights), make_texts(6, LENGTHS * 9)
    inputs: list[list[list[Any]]] = []
    for text in texts[: len(LENGTHS)]:
        inputs.append([])
        states(weights, text, inputs[-1])
    ids, starts = np.concatenate(texts[: len(LENGTHS)]).astype(np.int32), np.cumsum([0, *LENGTHS])
    for instruction_set in INSTRUCTION_SETS:
        found = encoder.channel_maxima(ids, starts, 2, instruction_set)
        assert len(found) == len(weights.layers)
        for layer, maxima in enumerate(found):
            for part, channels in enumerate(maxima):
                expected = np.abs(np.concatenate([text[layer][part] for text in inputs])).max(axis=0)
                np.testing.assert_allclose(channels, expected, atol=1e-4 * expected.max())
    # Many batches on many threads, and each text alone.
    ids, starts = np.concatenate(texts).astype(np.int32), np.cumsum([0, *(LENGTHS * 9)])
    together = encoder.channel_maxima(ids, starts, 3)
    alone = [encoder.channel_maxima(np.array(text, np.int32), np.array([0, len(text)]), 1) for text in texts]
    for layer, maxima in enumerate(together):
        for part, channels in enumerate(maxima):
            assert channels.tobytes() == np.max([text[layer][part] for text in alone], axis=0).tobytes()


def test_only_fp32_has_channel_maxima() -> None:
    encoder = make_encoder(in_int8(make_weights()))
    with pytest.raises(ValueError, match="only layers in fp32"):
        encoder.channel_maxima(np.array([1], np.int32), np.array([0, 1]), 1)


def test_angles_of_far_positions() -> None:
    """Cosines and sines are our own: at positions in the thousands they must still be those of numpy."""
    weights = make_weights(
        hidden=64, heads=1, wide=64, layer_count=1, most_tokens=9000, positions=False, rotary=[1e4], windows=[2]
    )
    encoder, texts = make_encoder(weights), make_texts(7, [700])
    found = encode(encoder, weights, texts, token_states=True)
    np.testing.assert_allclose(found, states(weights, texts[0]), atol=2e-5)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_positions_beyond_those_whose_angles_are_kept(instruction_set: str) -> None:
    """A token sees two on either side, so that the reference needs only the end of the text."""
    weights = make_weights(
        hidden=32, heads=1, wide=16, layer_count=1, most_tokens=2**24, positions=False, rotary=[1e4], windows=[2]
    )
    encoder, texts = make_encoder(weights), make_texts(8, [8300])
    found = encode(encoder, weights, texts, token_states=True, instruction_set=instruction_set)
    expected = states(weights, texts[0][8100:], first=8100)
    np.testing.assert_allclose(found[8102:], expected[2:], atol=5e-5)


def test_only_the_padding_token_is_not_counted() -> None:
    weights = make_weights(padding=5)
    encoder, plain = make_encoder(weights), make_encoder(Weights(weights.settings | NO_PADDING, weights.layers))
    texts = [[1, 2, 3], [5], [5, 5, 1, 2], [1, 5, 2], [4] * 40, [5] * 40]
    found, counted = encode(encoder, weights, texts), encode(plain, weights, texts)
    assert (found != counted).any(axis=1).tolist() == [5 in text for text in texts]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding_row": None}, "belong together"),
        ({"padding_token": None}, "belong together"),
        ({"padding_token": -1}, "belong together"),
        ({"positions": None}, "belong together"),
        ({"padding_row": np.zeros(127, np.float32)}, "another length"),
    ],
)
def test_half_of_a_padding_token_is_refused(changes: dict[str, Any], message: str) -> None:
    weights = make_weights(padding=5)
    with pytest.raises(ValueError, match=message):
        _kernels.Encoder(**{**weights.settings, **changes})
