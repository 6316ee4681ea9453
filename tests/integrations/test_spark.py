"""Spark: the column function and the frame function in a real local Spark, where there is a Java for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from gte_sdk import Embedder

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ,
    reason="Spark needs a Java; Debian: apt-get install default-jre-headless",
)

# In a process of its own: the tests around it refuse sockets, by which Spark talks to its Java.
PROGRAM = """
import sys
from pyspark.errors import PythonException
from pyspark.sql import SparkSession
from gte_sdk.integrations.spark import embed_frames, embedding_function, with_vectors

model, folder = sys.argv[1:]
settings = {
    "spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "7", "spark.sql.warehouse.dir": folder + "/warehouse",
}
builder = SparkSession.builder.master("local[2]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
rows = spark.createDataFrame([(None if n % 3 == 0 else n, f"text {n}") for n in range(40)], "id long, review string")
rows = rows.repartition(3)
rows.withColumn("embedding", embedding_function("query", model=model)("review")).write.parquet(folder + "/column")
embed = embed_frames("review", kind="document", model=model)
rows.select("review").mapInPandas(embed, with_vectors(rows.select("review").schema)).write.parquet(folder + "/frames")
try:
    spark.createDataFrame([(None,)], "review string").select(embedding_function(model=model)("review")).collect()
except PythonException as error:
    assert "is missing, as are 0 others; use fillna" in str(error), error
else:
    raise AssertionError("a null text went through")
spark.stop()
"""


def test_both_functions_give_the_vectors_of_gte_sdk(prompted: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(prompted), str(tmp_path)],
        capture_output=True, text=True, timeout=600, env=environment, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    embedder = Embedder(prompted)
    for folder, embed in (("column", embedder.embed_query), ("frames", embedder.embed_documents)):
        table = parquet.read_table(tmp_path / folder)
        texts = table.column("review").to_pylist()
        assert sorted(texts) == sorted(f"text {number}" for number in range(40))
        np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), np.float32), embed(texts))
    ids = parquet.read_table(tmp_path / "column").column("id").to_pylist()
    assert ids.count(None) == 14
    assert all(
        f"text {number}" == text
        for number, text in zip(ids, parquet.read_table(tmp_path / "column").column("review").to_pylist(), strict=True)
        if number is not None
    )
