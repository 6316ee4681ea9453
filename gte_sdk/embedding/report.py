"""`Embedder.report`: which graph really runs, and how."""

from typing import TYPE_CHECKING, NamedTuple

from gte_sdk.model_files.published import ModelPath
from gte_sdk.runtime.engine import GoldenResult

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder


class EmbedderReport(NamedTuple):
    """What `Embedder.report` returns."""

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
    why_not_native: str | None = None
    """Why the native engine does not run the model, where it was asked first. None if it runs it, or was not asked."""


def report(embedder: "Embedder") -> EmbedderReport:
    """What really runs: engine, device, variant, instruction set, threads, graph and golden vectors."""
    engine = embedder._engine
    return EmbedderReport(
        engine=engine.name,
        device=engine.device,
        variant=engine.variant,
        instruction_set=engine.instruction_set,
        threads=engine.threads,
        graph=embedder._description.path / engine.graph_name,
        golden=engine.golden,
        why_not_native=engine.why_not_native,
    )
