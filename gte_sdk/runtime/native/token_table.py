"""Static models as sentence-transformers and model2vec publish them: a text is the mean of its tokens' table rows.

No graph and no engine is needed, only numpy. The table stays in its file, which is mapped: a text reads only its rows.
Sums run token after token, so a text's vector has the same bits in any batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gte_sdk import _kernels
from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file
from gte_sdk.runtime.engine import Engine, EngineSettings
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.native.safetensors_file import read_safetensors

NAME = "native"


class TokenTable(NamedTuple):
    rows_VD: NDArray[Any]
    mapping_V: NDArray[Any] | None
    """The row of each token, where tokens share rows."""
    weights_V: NDArray[Any] | None
    """What the row of each token is multiplied by."""


def open_token_table(description: ModelDir, device: str, variant: str, settings: EngineSettings) -> Engine:
    """The engine of a static model. Raises InputError for another device or variant, ModelFormatError for its file."""
    assert description.token_table is not None
    name = description.token_table
    if device not in ("auto", "cpu") or variant not in ("auto", "fp32"):
        raise InputError(
            f"device={device!r} variant={variant!r}; {description.path} is a table that runs on 'cpu' in 'fp32'"
        )
    loaded = Loaded(lambda: load_table(description), settings.unload_after, survives_fork=True)
    with loaded.use() as table:
        dim = table.rows_VD.shape[1]

    def run(ids: Sequence[Sequence[int]], max_rows: int | None) -> NDArray[np.float32]:
        means_ND = np.zeros((len(ids), dim), dtype=np.float32)
        with loaded.use() as table:
            for text, tokens in enumerate(ids):
                if len(tokens):
                    means_ND[text] = token_rows(table, tokens).mean(axis=0)
        return _kernels.normalize_rows(means_ND)

    return Engine(
        name=NAME,
        device="cpu",
        variant="fp32",
        graph_name=name,
        dim=dim,
        threads=1,
        instruction_set=None,
        run=run,
        close=loaded.drop,
        token_states=None,
    )


def load_table(description: ModelDir) -> TokenTable:
    """Maps the table. sentence-transformers calls it embedding.weight; model2vec embeddings, mapping and weights."""
    assert description.token_table is not None
    file = checked_file(description, description.token_table)
    tensors = read_safetensors(file)
    rows_VD = tensors.get("embedding.weight", tensors.get("embeddings"))
    if rows_VD is None or rows_VD.ndim != 2 or not rows_VD.shape[1]:
        raise ModelFormatError(
            f"{file} has the tensors {sorted(tensors)}; a static model has embedding.weight (v, dim)"
        )
    return TokenTable(rows_VD, tensors.get("mapping"), tensors.get("weights"))


def token_rows(table: TokenTable, tokens: Sequence[int]) -> NDArray[np.float32]:
    """The (t, dim) float32 rows of some tokens. Raises ModelFormatError for a token that the table does not have."""
    ids_T = np.asarray(tokens)
    try:
        rows_TD = table.rows_VD[ids_T if table.mapping_V is None else table.mapping_V[ids_T]].astype(np.float32)
        if table.weights_V is not None:
            rows_TD *= table.weights_V[ids_T].astype(np.float32)[:, None]
    except IndexError as error:
        raise ModelFormatError(
            f"the table has {len(table.rows_VD)} rows and no token {ids_T.max()}; it and the tokenizer belong to "
            "different models"
        ) from error
    floats_TD: NDArray[np.float32] = rows_TD
    return floats_TD
