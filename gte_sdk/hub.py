"""Models by their Hub name ("owner/model"): fetched once, kept in the Hub's own cache, pinned to one commit.

The protocol, the cache layout, resume, proxies and the HF_* environment variables are huggingface_hub's; here is only
which files of a repository an Embedder needs, and one clear error.
"""

import re
from pathlib import Path

from gte_sdk.errors import HubError, InputError
from gte_sdk.model_dir import CARD, GRAPH_FILES, GTE_JSON

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DESCRIPTION_FILES = ("*.json", "1_Pooling/*", CARD, GTE_JSON)


def is_hub_name(model: str) -> bool:
    """Whether the text has the form of a Hub name, owner/model."""
    return _HUB_NAME.fullmatch(model) is not None


def fetch_model(model: str, variant: str, revision: str | None, offline: bool | None) -> Path:
    """The local directory of a Hub model with its description and one graph of `variant` ("auto" prefers fp32).

    `offline=True` opens no socket and takes what the cache holds; None leaves that to HF_HUB_OFFLINE. Raises HubError.
    """
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise HubError(f"model={model!r} is a Hub name, and that needs: pip install 'gte-sdk[hub]'") from error

    variants = ("fp32", "int8", "fp16") if variant == "auto" else (variant,)
    if unknown := set(variants) - set(GRAPH_FILES):
        raise InputError(f"variant={unknown.pop()!r}; one of {('auto', *GRAPH_FILES)} is supported")
    local_only = bool(offline)
    try:
        snapshot = Path(
            snapshot_download(
                model, revision=revision, allow_patterns=list(_DESCRIPTION_FILES), local_files_only=local_only
            )
        )
        commit = snapshot.name
        for name in (name for candidate in variants for name in GRAPH_FILES[candidate]):
            try:
                hf_hub_download(model, name, revision=commit, local_files_only=local_only)
                return snapshot
            except LocalEntryNotFoundError:
                if not local_only:
                    raise
            except EntryNotFoundError:
                continue
    except Exception as error:  # HTTP, connection, time-out, disk and validation errors share no base
        remedy = "it is not in the cache; fetch it once with the network on" if local_only else "check name and network"
        raise HubError(f"model={model!r} revision={revision!r} could not be fetched: {error}; {remedy}") from error
    raise HubError(
        f"model={model!r} has no ONNX graph for variant={variant!r}{' in the cache' if local_only else ''}; "
        "export its checkpoint with: python export/to_onnx.py"
    )
