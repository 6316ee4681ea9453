"""The methods of an Embedder between texts and vectors: the token ids of texts, and the vectors of token ids."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_list, check_token_ids
from gte_sdk.runtime.tokens import TokenizedTexts

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder


def tokenize(embedder: "Embedder", texts: Sequence[str], *, prompt: str = "") -> TokenizedTexts:
    """Returns the token ids of each text, including special tokens, and how many tokens were left out.

    Args:
        texts: A list of texts.
        prompt: Put before each text.
    """
    return embedder._tokenize(check_list(texts), prompt)


def embed_tokens(embedder: "Embedder", ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Embeds n texts, given as the token ids from `tokenize`. Returns the rows that `embed` returns: (n, dim).

    Args:
        ids: The token ids of each text, including special tokens.

    Raises:
        InputError: A text that has no tokens, more than max_tokens, or an unknown id, with its number.
    """
    return embedder._engine.run(check_token_ids(ids, embedder.max_tokens, embedder.vocabulary_size), None)
