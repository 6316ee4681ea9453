"""The source of an export: finds its files and loads the encoder."""

from pathlib import Path

from safetensors import SafetensorError

from export.directory.output import ExportError
from export.graphs.optimum_graph import check_optimum
from gte_sdk.errors import GteError, HubError, ModelFormatError
from gte_sdk.model_files.directory import CARD
from gte_sdk.model_files.hub.hub_errors import EXPORTED_ARCHITECTURES, explain_failure
from gte_sdk.model_files.published import CONFIG_JSON, POOLING_MODES, read_module_types, read_pooling
from training.encoders.configuration import read_configuration
from training.encoders.encoder import AnyEncoder, Pooling
from training.encoders.encoder_files import MODEL, load_encoder, resolve_directory

ARCHITECTURES = EXPORTED_ARCHITECTURES


def find_source(source: str) -> Path:
    """The directory of a local source, or of a Hub name, which is fetched with its card.

    For a training run or one of its checkpoints, it is the model inside.
    """
    directory = Path(source).expanduser()
    if directory.is_dir():
        inside = directory / MODEL
        return inside if not (directory / CONFIG_JSON).exists() and (inside / CONFIG_JSON).exists() else directory
    fetched = resolve_directory(source)
    _fetch_card(source, fetched.name)
    return fetched


def load_source(
    directory: Path, max_tokens: int | None, pooling: Pooling | None = None, by_optimum: bool = False
) -> AnyEncoder:
    """The encoder of a supported architecture. Raises ExportError or ModelFormatError for any other directory.

    `pooling` is that of a directory that does not say it.
    """
    check_architecture(directory, by_optimum)
    pooling = choose_pooling(directory, pooling)
    try:
        # BERT of transformers 4 cannot change its attention after it is loaded.
        return load_encoder(directory, max_tokens, attention="eager", pooling=pooling)
    except GteError:
        raise
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ExportError(f"{directory} cannot be read: {type(error).__name__}: {error}") from error


def choose_pooling(directory: Path, asked: Pooling | None) -> Pooling:
    """The pooling that the source names, else the one asked for. Raises ExportError if neither or both are another."""
    own = "mean" if _is_static(directory) else read_pooling(directory)
    if own is None and asked is None:
        raise ExportError(
            f"{directory} does not say how its vectors are pooled; look it up in the model's card, and pass "
            f"--pooling with one of {', '.join(POOLING_MODES)}"
        )
    if own is not None and asked not in (None, own):
        raise ExportError(f"--pooling {asked}; {directory} asks for {own}: leave --pooling out")
    return own or asked  # type: ignore[return-value]


def check_architecture(directory: Path, by_optimum: bool = False) -> None:
    """Raises ModelFormatError for an architecture that the exporter does not know."""
    is_static = _is_static(directory)
    model_type = "static" if is_static else str(read_configuration(directory).get("model_type"))
    if by_optimum:
        check_optimum(model_type)
    elif not is_static and model_type not in ARCHITECTURES:
        raise ModelFormatError(
            f"{directory}: the architecture {model_type!r} is not supported; supported are {', '.join(ARCHITECTURES)} "
            "and the static encoder; optimum may know it: pass --exporter optimum"
        )


def _is_static(directory: Path) -> bool:
    return read_module_types(directory)[:1] == ["StaticEmbedding"]


def _fetch_card(name: str, commit: str) -> None:
    """Fetches the card, which names the licence. A repository without one can be exported too."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(name, CARD, revision=commit)
    except EntryNotFoundError:
        return
    except Exception as error:  # HTTP, connection, time-out, disk and validation errors share no base
        raise HubError(f"{CARD} of {name} {explain_failure(error, name)}") from error
