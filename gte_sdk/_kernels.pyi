"""The C++ kernels. Arguments are checked by their callers in gte_sdk; a ValueError from here is a mistake of ours."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

MAX_ROWS: int
MAX_DIM: int
GELU_SHIFT: float
"""What the int8 graphs add to a GELU's output, which is never below its negative."""

def search_instruction_sets() -> list[str]:
    """Names of the instruction sets that this CPU and build have, slowest first: "scalar", "avx2", "neon", ..."""

def encode(vectors: NDArray[np.float32], dtype: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rows (n, bytes) of dtype "float32", "float16", "int8" or "binary" (csrc/search/row_types.hpp); scales (n,)."""

def search(
    queries: NDArray[np.float32],
    documents: NDArray[np.uint8],
    k: int,
    dtype: str = "float32",
    scales: NDArray[np.float32] | None = None,
    selected: NDArray[np.uint32] | None = None,
    threads: int = 1,
    instruction_set: str = "",
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Scores (q, k), rows (q, k), and the lowest row that is not finite or -1. documents: rows as `encode` makes them.

    scales: needed for int8 and binary. selected: the rows to search, ascending. instruction_set: "" is the fastest.
    """

def search_candidates(
    queries: NDArray[np.float32],
    documents: NDArray[np.uint8],
    k: int,
    dtype: str,
    candidates: NDArray[np.uint32],
    threads: int = 1,
    instruction_set: str = "",
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """As `search`, each query among its own rows only: candidates (q, c), ascending. For float32 and float16."""

def block_checksums(data: Buffer, block_bytes: int, threads: int = 1) -> NDArray[np.uint32]:
    """CRC-32C of each block of the bytes; the last block may be shorter."""

def mean_pool(last_hidden_state: NDArray[np.float32], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Means (n, d) of the token vectors (n, t, d) where the mask (n, t) is not 0; zeros for a text without tokens."""

def normalize_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy (n, d) with rows of unit length; a row of zeros stays zero."""

class WordPieces:
    """BERT's tokenizer on ASCII texts, csrc/tokenizer/word_pieces.hpp."""

    def __init__(
        self,
        vocabulary: dict[str, int],
        prefix: str,
        unknown: str,
        longest_word: int,
        lowercase: bool,
        split_case: bool,
        reserved: list[str],
    ) -> None: ...
    def encode(self, texts: list[str], room: int, threads: int) -> tuple[list[list[int] | None], list[int]]:
        """Of each text the ids, at most `room` (None where not covered), and its count of tokens. No special ones."""

def encoder_instruction_sets() -> list[str]:
    """Names of the instruction sets that the encoder has on this CPU and build, slowest first."""

_Floats = NDArray[np.float32]
_Linear = tuple[_Floats, _Floats | None] | tuple[NDArray[np.int8], _Floats, _Floats, _Floats, bool]

class Encoder:
    """An encoder of csrc/encoder/encoder.hpp. Without layers, positions, norms and projection it is a table of tokens.

    A linear layer is in fp32 (weights (outputs, inputs), bias (outputs,) or None), in int8 (codes (inputs, outputs),
    scales (outputs,), bias (outputs,), smoothing (inputs,), shifted). A norm is (weight, bias). Everything is copied
    but the token embeddings, which are borrowed where they are aligned and contiguous.
    """

    def __init__(
        self,
        token_embeddings: NDArray[np.int8] | _Floats,
        token_scales: _Floats | None,
        hidden: int,
        heads: int,
        most_tokens: int,
        epsilon: float,
        pooling: str,
        norm_first: bool,
        activation: str,
        gated: bool,
        positions: _Floats | None = None,
        token_type_row: _Floats | None = None,
        embedding_norm: tuple[_Floats, _Floats] | None = None,
        projection: tuple[_Floats, _Floats | None] | None = None,
        relative_bias: _Floats | None = None,
        final_norm: tuple[_Floats, _Floats] | None = None,
        padding_token: int | None = None,
        padding_row: _Floats | None = None,
    ) -> None:
        """token_embeddings (vocabulary, E), int8 with token_scales (vocabulary,) or float32 without.

        pooling: "mean", "cls" or "lasttoken". activation: "gelu", "gelu_tanh", "relu" or "silu". positions
        (most_tokens, E) has the row of token type 0 added; without it token_type_row (E,) is added to each embedding.
        relative_bias (heads, 2 * most_tokens - 1): [h, key - query + most_tokens - 1] is added to the scaled scores.
        padding_token, from 0: wherever it stands, padding_row (E,) is added to it, and positions do not count it.
        """

    def add_layer(
        self,
        query_key_value: _Linear,
        attention_output: _Linear,
        feed_forward_in: _Linear,
        feed_forward_out: _Linear,
        attention_norm: tuple[_Floats, _Floats] | None,
        feed_forward_norm: tuple[_Floats, _Floats],
        window: int = 0,
        rotary: _Floats | None = None,
    ) -> None:
        """Gated, feed_forward_in has twice the outputs: the half that is activated, then the half it is multiplied by.

        attention_norm: None is the identity, only where norms come first. window: a token sees those up to this
        distance on either side; 0: all. rotary: the inverse frequencies (head / 2,).
        """

    def encode(
        self,
        token_ids: NDArray[np.int32],
        starts: NDArray[np.int64],
        out: NDArray[np.float32],
        batch_tokens: int,
        threads: int,
        instruction_set: str = "",
        token_states: bool = False,
    ) -> None:
        """Writes unit rows to out (n, hidden); text i has the token ids [starts[i], starts[i + 1]).

        token_states: writes the last state of each token instead, to out (tokens, hidden).
        """

    def channel_maxima(
        self, token_ids: NDArray[np.int32], starts: NDArray[np.int64], threads: int, instruction_set: str = ""
    ) -> list[list[_Floats]]:
        """The largest magnitude of each channel over all tokens, for each layer: the inputs of its four linear layers.

        In the order of `add_layer`. For layers in fp32.
        """
