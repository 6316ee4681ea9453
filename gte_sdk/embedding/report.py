"""What `Embedder.report` tells: which graph really runs, and how."""

from typing import NamedTuple

from gte_sdk.model_files.published import ModelPath
from gte_sdk.runtime.engine import GoldenResult


class EmbedderReport(NamedTuple):
    engine: str
    """"native" or "onnxruntime"."""
    device: str
    """"cpu" or "cuda"."""
    variant: str
    """"fp32", "fp16" or "int8"."""
    instruction_set: str | None
    """The instruction set of the native engine, such as "avx2". None for onnxruntime, which chooses its own."""
    threads: int
    """The most threads that one call uses."""
    graph: ModelPath
    """The graph's file in the model directory or bundle."""
    golden: GoldenResult | None
    """The golden vectors that the engine reproduced when it opened. None if the model has none for this variant."""
