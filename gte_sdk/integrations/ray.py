"""Ray Data: `BatchEmbedder`, a callable class for map_batches that adds a column of vectors to each batch.

>>> rows = ray.data.read_parquet("s3://bucket/reviews")
>>> workers = ray.data.ActorPoolStrategy(min_size=1, max_size=8)
>>> rows.map_batches(BatchEmbedder, fn_constructor_kwargs={"column": "review"}, compute=workers, num_cpus=1)

Each worker opens the model once, with as many threads as num_cpus reserves for it. Leave a CPU to Ray's own reading and
writing, which else wait for ever. To embed Parquet to Parquet with resume and every row once, there is
`gte embed --on ray`.
"""

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from gte_sdk.embedding.embedder import DEFAULT_MODEL
from gte_sdk.embedding.text_kinds import TextKind, check_kind, embed_function
from gte_sdk.errors import InputError
from gte_sdk.integrations.lazy_model import LazyModel
from gte_sdk.tables.vector_files import arrow_vectors

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack


class BatchEmbedder:
    """Takes a batch in any of Ray's formats and gives it back with the column `vector_column`; the rest stays.

    numpy (a dict of arrays): float32 (n, dim). pyarrow (a Table): fixed_size_list<float>[dim]. pandas (a DataFrame): as
    gte_sdk.integrations.pandas has it. pyarrow is the format that keeps every other column as it is.

    column: where the texts are. kind: which of the model's prompts goes before each: "plain" is none. The others are
    the parameters of `gte_sdk.Embedder`; a model directory must be there on every machine. Pickles as its parameters.
    fingerprint: that of the model which every worker must have; another one raises ModelMismatchError.
    Raises InputError where the column is not there or `vector_column` is, InputTypeError naming a row without text.
    """

    def __init__(
        self,
        column: str = "text",
        *,
        vector_column: str = "embedding",
        kind: TextKind = "plain",
        model: str | PathLike[str] = DEFAULT_MODEL,
        fingerprint: str | None = None,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        check_kind(kind)
        self._column = column
        self._vector_column = vector_column
        self._kind = kind
        self._model = LazyModel(model, fingerprint, **options)

    def __call__(self, batch: Any) -> Any:
        """The batch with its vectors, in the format that it came in; the batch that was given is left alone."""
        names = list(batch) if isinstance(batch, dict) else list(getattr(batch, "column_names", batch.columns))
        if self._column not in names:
            raise InputError(f"no column {self._column!r}; the columns are {', '.join(map(str, names))}")
        if self._vector_column in names:
            raise InputError(f"there is a column {self._vector_column!r} already; give another vector_column")
        embed = embed_function(self._model.open(), self._kind)
        texts = batch[self._column]
        if isinstance(batch, dict):
            return {**batch, self._vector_column: embed(np.asarray(texts).tolist())}
        if hasattr(batch, "column_names"):
            return batch.append_column(self._vector_column, arrow_vectors(embed(texts.to_pylist())))
        from gte_sdk.integrations.pandas import embed_series

        return batch.assign(**{self._vector_column: embed_series(texts, embed)})
