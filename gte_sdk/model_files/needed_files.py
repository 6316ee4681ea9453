"""Which files of a Hub repository a model needs, and what is refused before the large ones are fetched.

The small files say what the model is; then its weights are one graph, a static model's table, or the safetensors file
of an architecture that an engine runs without a graph. hub.py fetches what is chosen here.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import GRAPH_FILES, TOKENIZER_JSON, ModelDir
from gte_sdk.model_files.graph_file import SENTENCE_EMBEDDING, STATES, graph_names, unknown_inputs
from gte_sdk.model_files.hub_errors import Wanted
from gte_sdk.model_files.modules import SAFETENSORS, static_folder
from gte_sdk.model_files.published import CONFIG_JSON, IN_GRAPH, ModelFacts, known_of, read_json, read_modules

# Architectures that the native engine runs from model.safetensors, where a repository has no graph.
SAFETENSORS_ARCHITECTURES: tuple[str, ...] = ()


def variants_to_use(variant: str, is_ours: bool) -> tuple[str, ...]:
    """The variants that may be used, the preferred one first."""
    if variant != "auto":
        return (variant,)
    return ("int8", "fp32", "fp16") if is_ours else ("fp32", "int8", "fp16")


def check_pooling(wanted: Wanted, description: ModelDir, graph: str, names: Collection[str], facts: ModelFacts) -> None:
    """Refuses a graph of which nobody says that it pools, before it is fetched.

    A graph with its weights in other files is small, so it is fetched and looked at first (check_graph).
    """
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


def weights_to_use(snapshot: Path, names: Collection[str], variants: tuple[str, ...]) -> str | None:
    """The file with the weights to use, of `names`, or None. `snapshot` needs config.json and modules.json only."""
    graphs = [] if static_folder(snapshot) is not None else [name for kind in variants for name in GRAPH_FILES[kind]]
    without = weights_without_graph(snapshot) if "fp32" in variants else []
    return next((name for name in (*graphs, *without) if name in names), None)


def weights_without_graph(snapshot: Path) -> list[str]:
    """The weights that an engine runs without a graph: a static model's table, or those of some architectures."""
    folder = static_folder(snapshot)
    if folder is not None:
        return [f"{folder}/{SAFETENSORS}" if folder else SAFETENSORS]
    return [SAFETENSORS] if config_of(snapshot).get("model_type") in SAFETENSORS_ARCHITECTURES else []


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
