"""Spark: a column function that gives vectors (pandas_udf), and an iterator function for mapInPandas.

>>> frame.withColumn("embedding", embedding_function()("review"))
>>> frame.mapInPandas(embed_frames("review"), with_vectors(frame.schema))

The first leaves the other columns out of Python, and so as they are; the second is for programs that work on whole
frames anyway. The workers open the model once each; they need gte-sdk, pandas and pyarrow installed.
"""

from collections.abc import Callable, Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any

from gte_sdk.embedding.embedder import DEFAULT_MODEL
from gte_sdk.embedding.text_kinds import TextKind, check_kind, embed_function
from gte_sdk.errors import InputError
from gte_sdk.integrations.lazy_model import LazyModel

if TYPE_CHECKING:
    from gte_sdk.integrations.lazy_model import ModelOptions, Unpack

try:
    import pandas
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import ArrayType, FloatType, StructField, StructType
except ImportError as error:
    raise ImportError(
        "gte_sdk.integrations.spark needs PySpark, pandas and pyarrow: pip install pyspark pandas pyarrow"
    ) from error

from gte_sdk.integrations.pandas import embed_series

VECTOR_TYPE = ArrayType(FloatType(), containsNull=False)
Frames = Iterator["pandas.DataFrame"]


def embedding_function(
    kind: TextKind = "plain",
    *,
    model: str | PathLike[str] = DEFAULT_MODEL,
    **options: "Unpack[ModelOptions]",
) -> Any:
    """A pandas_udf: a column of texts to a column of vectors, array<float>.

    kind: which of the model's prompts goes before each text: "plain" is none. threads: of each task; 1 fits
    spark.task.cpus=1. The others are the parameters of `gte_sdk.Embedder`; a model directory must be there on every
    machine. A null text fails the task with the remedy, as does what Embedder raises.
    """
    check_kind(kind)
    lazy_model = LazyModel(model, **_one_thread(options))

    def embed_column(columns: Iterator[pandas.Series]) -> Iterator[pandas.Series]:
        embed = embed_function(lazy_model.open(), kind)
        for texts in columns:
            yield embed_series(texts, embed)

    return pandas_udf(embed_column, VECTOR_TYPE)


def embed_frames(
    column: str,
    *,
    vector_column: str = "embedding",
    kind: TextKind = "plain",
    model: str | PathLike[str] = DEFAULT_MODEL,
    **options: "Unpack[ModelOptions]",
) -> Callable[[Frames], Frames]:
    """The function for `mapInPandas` that adds `vector_column` to each frame; its schema is `with_vectors(schema)`.

    column: where the texts are. The others are as in `embedding_function`.
    """
    check_kind(kind)
    lazy_model = LazyModel(model, **_one_thread(options))

    def embed(frames: Frames) -> Frames:
        embed_texts = embed_function(lazy_model.open(), kind)
        for frame in frames:
            yield frame.assign(**{vector_column: embed_series(frame[column], embed_texts)})

    return embed


def with_vectors(schema: "StructType", vector_column: str = "embedding") -> "StructType":
    """The schema with the field of vectors behind the others. Raises InputError where that name is taken."""
    if vector_column in schema.names:
        raise InputError(f"there is a column {vector_column!r} already; give another vector_column")
    return StructType([*schema.fields, StructField(vector_column, VECTOR_TYPE, nullable=False)])


def _one_thread(options: "ModelOptions") -> "ModelOptions":
    return {"threads": 1, **options}
