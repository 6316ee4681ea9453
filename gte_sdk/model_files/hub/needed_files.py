"""Which files of a Hub repository a model needs, and what is refused before the large ones are fetched.

The small files say what the model is; then its weights are one graph, a static model's table, or the safetensors file
of an architecture that an engine runs without a graph. hub.py fetches what is chosen here.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import GRAPH_FILES, GTE_JSON, INT8_WEIGHTS, TOKENIZER_JSON, ModelDir
from gte_sdk.model_files.graph_file import SENTENCE_EMBEDDING, STATES, WEIGHT_FILES, graph_names, unknown_inputs
from gte_sdk.model_files.hub.hub_errors import Wanted
from gte_sdk.model_files.modules import SAFETENSORS, static_folder
from gte_sdk.model_files.published import (
    ADAPTER_CONFIG_JSON,
    CONFIG_JSON,
    IN_GRAPH,
    ModelFacts,
    known_of,
    read_json,
    read_modules,
)

# The model types in gte_sdk/runtime/native/architectures.py, which the native engine runs from weights without a graph.
NATIVE_MODEL_TYPES = (
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra", "modernbert", "new", "gte",
)  # fmt: skip


def _variants_to_use(variant: str, is_ours: bool) -> tuple[str, ...]:
    """The variants that may be used, the preferred one first."""
    if variant != "auto":
        return (variant,)
    return ("int8", "fp32", "fp16") if is_ours else ("fp32", "int8", "fp16")


def check_pooling(wanted: Wanted, description: ModelDir, graph: str, names: Collection[str], facts: ModelFacts) -> None:
    """Refuses weights that an adapter changes, or of which nobody says that they pool, before they are fetched.

    A graph with its weights in other files is small, so it is fetched and looked at first (check_graph).
    """
    if ADAPTER_CONFIG_JSON in names and not graph.endswith(".onnx"):
        raise ModelFormatError(
            f"{wanted}: {ADAPTER_CONFIG_JSON} adds an adapter to the weights, which gte-sdk does not do; take a model "
            f"with both merged; {graph} was not downloaded"
        )
    if description.pooling == IN_GRAPH and not graph.endswith(".onnx"):
        raise ModelFormatError(f"{wanted}: {description.why_in_graph}; {graph} was not downloaded")
    known = known_of(description.path)
    is_said = facts.pooling is not None or (known is not None and known.graph_pools)
    is_small = any(name.startswith((f"{graph}_data", f"{graph}.data")) for name in names)
    if description.pooling == IN_GRAPH and not is_said and not is_small:
        raise ModelFormatError(
            f"{wanted}: {description.why_in_graph}. Or pass pooling={IN_GRAPH!r}, if {graph} has the output "
            f"{SENTENCE_EMBEDDING}; it was not downloaded"
        )


def check_graph(wanted: Wanted, description: ModelDir, graph: str) -> None:
    """Refuses a graph that cannot be run before the files with its weights are fetched."""
    inputs, outputs = graph_names(description.path / graph)
    if others := unknown_inputs(inputs):
        raise ModelFormatError(
            f"{wanted}: {graph} takes {others}, which no text gives; its weights were not downloaded"
        )
    if description.pooling == IN_GRAPH and SENTENCE_EMBEDDING not in outputs:
        raise ModelFormatError(
            f"{wanted}: {graph} has no output {SENTENCE_EMBEDDING}, and {description.why_in_graph}; its weights were "
            "not downloaded"
        )
    if not {SENTENCE_EMBEDDING, *STATES} & set(outputs):
        raise ModelFormatError(
            f"{wanted}: {graph} gives {sorted(outputs)[:5]} and neither {SENTENCE_EMBEDDING} nor {STATES[0]}; its "
            "weights were not downloaded"
        )


def weights_to_use(wanted: Wanted, snapshot: Path, names: Collection[str]) -> str | None:
    """The file with the weights to use, of `names`, or None. `snapshot` needs config.json and modules.json only."""
    groups = weight_groups(wanted, snapshot, is_ours=GTE_JSON in names)
    return next((name for group in groups for name in group if name in names), None)


def weight_groups(wanted: Wanted, snapshot: Path, is_ours: bool) -> list[list[str]]:
    """The names of weights that may be used, the preferred group first; those of a group are names for the same.

    A group is a variant's graphs. Float32 has weights without a graph too, where an engine runs them: a static model's
    table, or those of the native engine's architectures. For "int8" they are taken before the graph of others, because
    they are quantized as they open.
    """
    folder = static_folder(snapshot)
    if folder is not None:
        table = f"{folder}/{SAFETENSORS}" if folder else SAFETENSORS
        return [[table] if wanted.variant in ("auto", "fp32") else []]
    names = {variant: list(graphs) for variant, graphs in GRAPH_FILES.items()}
    is_native = config_of(snapshot).get("model_type") in NATIVE_MODEL_TYPES
    if is_native:
        names["fp32"] += WEIGHT_FILES
    if wanted.variant == "int8" and wanted.quantize and is_native and not is_ours:
        return [[INT8_WEIGHTS, *names["fp32"]], names["int8"]]
    return [names[variant] for variant in _variants_to_use(wanted.variant, is_ours)]


def files_of_modules(snapshot: Path) -> list[str]:
    """The tokenizer, and the descriptions of the modules that modules.json names."""
    folder = static_folder(snapshot)
    described = [folder for kind, folder in read_modules(snapshot) if kind in ("Pooling", "Dense") and folder]
    return [
        f"{folder}/{TOKENIZER_JSON}" if folder else TOKENIZER_JSON,
        *(f"{module}/{CONFIG_JSON}" for module in described),
    ]


def config_of(snapshot: Path) -> dict[str, Any]:
    """The fields of config.json, which a static model may lack."""
    file = snapshot / CONFIG_JSON
    return read_json(file) if file.is_file() else {}
