"""Models by their Hub name ("owner/model"): fetched once, kept in the Hub's own cache, pinned to one commit.

The protocol, the cache layout, resume, proxies and the HF_* environment variables are huggingface_hub's; here is only
which files of a repository an Embedder needs, and one clear error.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from gte_sdk.errors import HubError, InputError
from gte_sdk.model_dir import CARD, CONFIG_JSON, GRAPH_FILES, GTE_JSON

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
        from huggingface_hub import constants
    except ImportError as error:
        raise HubError(f"model={model!r} is a Hub name, and that needs: pip install 'gte-sdk[hub]'") from error

    variants = ("fp32", "int8", "fp16") if variant == "auto" else (variant,)
    if unknown := set(variants) - set(GRAPH_FILES):
        raise InputError(f"variant={unknown.pop()!r}; one of {('auto', *GRAPH_FILES)} is supported")
    graph_names = [name for candidate in variants for name in GRAPH_FILES[candidate]]
    if offline or (offline is None and constants.HF_HUB_OFFLINE):
        return _cached_snapshot(model, revision, graph_names)
    return _downloaded_snapshot(model, revision, graph_names)


def _cached_snapshot(model: str, revision: str | None, graph_names: Sequence[str]) -> Path:
    """Reads the cache's own folders. huggingface_hub's downloads ask the Hub for this and that even when offline."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, CONFIG_JSON, revision=revision)
    if not isinstance(config, str):
        raise HubError(
            f"model={model!r} revision={revision!r} is not in the cache; fetch it once with the network on, "
            "without offline=True and HF_HUB_OFFLINE"
        )
    snapshot = Path(config).parent
    if not any((snapshot / name).is_file() for name in graph_names):
        raise HubError(
            f"model={model!r} revision={revision!r} has none of {graph_names} in the cache; "
            "fetch it once with the network on"
        )
    return snapshot


def _downloaded_snapshot(model: str, revision: str | None, graph_names: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(model, revision=revision, allow_patterns=list(_DESCRIPTION_FILES)))
        for name in graph_names:
            try:
                hf_hub_download(model, name, revision=snapshot.name)
                return snapshot
            except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, but it means the network
                raise
            except EntryNotFoundError:
                continue
    except Exception as error:  # HTTP, connection, time-out, disk and validation errors share no base
        raise HubError(
            f"model={model!r} revision={revision!r} could not be fetched: {error}; check the name and the network"
        ) from error
    raise HubError(
        f"model={model!r} revision={revision!r} has none of {graph_names}; "
        "export its checkpoint with: python export/to_onnx.py"
    )


def cached_models() -> list[tuple[str, str, Path]]:
    """Name, commit and folder of each model in the Hub's cache, of each the newest commit."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda each: each.last_modified)
            found.append((repository.repo_id, newest.commit_hash, Path(newest.snapshot_path)))
    return found
