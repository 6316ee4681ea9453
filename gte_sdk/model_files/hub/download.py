"""Models by their Hub name ("owner/model"): downloaded once, kept in the Hub's own cache, pinned to one commit.

huggingface_hub has the protocol, the cache layout, resuming, proxies and the HF_* environment variables. This module
only chooses the files that an Embedder needs, checks that they are intact, and raises one clear error (hub_errors.py).
A file is compared with its hash each time it is used, and fetched again if it differs. A commit in the cache is used
without a request. A branch or tag costs one request, to find its current commit. The small files come first: a model
that cannot be run, or of which too little is known, is refused before its weights are fetched.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gte_sdk.errors import HubError, InputError, ModelFormatError
from gte_sdk.model_files.directory import (
    CARD,
    GOLDEN_JSON,
    GRAPH_FILES,
    GTE_JSON,
    NO_FACTS,
    PARITY_JSON,
    SPECIAL_TOKENS_JSON,
    TOKENIZER_JSON,
    read_model_dir,
    sha256_of_file,
)
from gte_sdk.model_files.graph_file import external_data_names
from gte_sdk.model_files.hub.hub_errors import Wanted, is_unreachable, no_tokenizer, no_weights, to_hub_error
from gte_sdk.model_files.hub.needed_files import (
    check_graph,
    check_pooling,
    config_of,
    files_of_modules,
    weight_groups,
    weights_to_use,
)
from gte_sdk.model_files.modules import SAFETENSORS
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    IN_GRAPH,
    MODULES_JSON,
    POOLING_JSON,
    SENTENCE_BERT_JSON,
    SENTENCE_TRANSFORMERS_JSON,
    TOKENIZER_CONFIG_JSON,
    ModelFacts,
)
from gte_sdk.model_files.text_settings import SENTENCE_BERT_FILES
from gte_sdk.model_files.user_cache import remembered_sha256

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# One of these is in every repository of a model.
_FIRST = (CONFIG_JSON, MODULES_JSON)
# Without these a model is still read, and differently: no prompts, or the wrong pooling.
_DECISIVE = (MODULES_JSON, POOLING_JSON, SENTENCE_TRANSFORMERS_JSON)
_DESCRIPTION = (
    CONFIG_JSON,
    TOKENIZER_JSON,
    *_DECISIVE,
    SENTENCE_BERT_JSON,
    TOKENIZER_CONFIG_JSON,
    SPECIAL_TOKENS_JSON,
    GTE_JSON,
    PARITY_JSON,
    GOLDEN_JSON,
    CARD,
)


class _Cached(NamedTuple):
    """What the cache knows about one file."""

    path: Path | None
    """Its path, if it is in the cache."""
    known_missing: bool
    """Whether the Hub said that the repository has no such file."""


def is_hub_name(model: str) -> bool:
    """Whether the text has the form of a Hub name, owner/model."""
    return _HUB_NAME.fullmatch(model) is not None


def fetch_model(
    model: str,
    variant: str,
    revision: str | None,
    offline: bool | None,
    facts: ModelFacts = NO_FACTS,
    quantize: bool = True,
) -> Path:
    """The local directory of a Hub model, with its description and its weights: one graph of `variant`, or a table.

    variant: "auto" prefers the int8 graph of a repository with gte.json, which records its loss, else the fp32 graph.
    offline: True opens no socket and uses the cache. None lets HF_HUB_OFFLINE decide, and uses the cache with a
        warning if the Hub cannot be reached. False requires the Hub.
    facts: what the caller says of a model whose files do not say it.
    quantize: for "int8", take float32 weights, which are quantized as they open, before another one's int8 graph.
    Raises HubError, and ModelFormatError for a model that cannot be run as far as its small files say.
    """
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is public in both majors
    except ImportError as error:
        raise HubError(f"model={model!r} is a Hub name, and that needs: pip install 'gte-sdk[hub]'") from error

    if variant not in ("auto", *GRAPH_FILES):
        raise InputError(f"variant={variant!r}; one of {('auto', *GRAPH_FILES)} is supported")
    constants.HF_HUB_DISABLE_TELEMETRY = True  # or it asks the Hub for a list of agents, to report which one runs it
    wanted = Wanted(model, revision, variant, quantize)
    try:
        validate_repo_id(model)
    except ValueError as error:
        raise to_hub_error(wanted, error) from error
    if offline or (offline is None and constants.HF_HUB_OFFLINE):
        return _cached_snapshot(wanted)
    if _is_commit(revision) and (snapshot := _cached_if_whole(wanted, must_be_certain=True)):
        return snapshot
    try:
        info = HfApi().model_info(model, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True)
    except Exception as error:  # HTTP, connection, time-out and validation errors share no base
        if offline is None and is_unreachable(error) and (snapshot := _cached_if_whole(wanted)):
            warnings.warn(
                f"{wanted}: the Hub cannot be reached ({type(error).__name__}), so the cached commit "
                f"{snapshot.name} is used; offline=True or a commit as revision says that this is meant",
                stacklevel=4,
            )
            return snapshot
        raise to_hub_error(wanted, error) from error
    return _downloaded_snapshot(wanted, info, facts)


def cached_models() -> list[tuple[str, str, Path]]:
    """Name, commit and folder of each model in the Hub's cache, with its newest commit."""
    try:
        from huggingface_hub import constants, scan_cache_dir
    except ImportError:
        return []
    if not Path(constants.HF_HUB_CACHE).is_dir():
        return []
    found = []
    for repository in sorted(scan_cache_dir().repos, key=lambda each: each.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda each: each.last_modified)
            found.append((repository.repo_id, newest.commit_hash, Path(newest.snapshot_path)))
    return found


def _cached_snapshot(wanted: Wanted, must_be_certain: bool = False) -> Path:
    """The snapshot in the cache, without a request. Downloads through huggingface_hub would ask the Hub.

    If other programs filled the cache, it may not know which files the repository lacks. That is a warning, or a
    HubError with `must_be_certain`. The same holds for a graph of another variant than "auto" prefers.
    """
    cached = {name: _cached(wanted.model, name, wanted.revision) for name in _DESCRIPTION}
    snapshot = next((path.parent for name in _FIRST if (path := cached[name].path)), None)
    if snapshot is None:
        raise HubError(
            f"{wanted} is not in the cache; fetch it once with the network on, without offline=True and "
            f"HF_HUB_OFFLINE: {wanted.download_command}"
        )
    groups = weight_groups(wanted, snapshot, is_ours=cached[GTE_JSON].path is not None)
    weights = weights_to_use(wanted, snapshot, _names_inside(snapshot))
    older = [name for name in SENTENCE_BERT_FILES[1:] if (snapshot / name).is_file()]
    names = [name for name in _DESCRIPTION if cached[name].path] + older + files_of_modules(snapshot)
    if weights is None:
        missing = [f"any of {[name for group in groups for name in group]}"]
    else:
        names += [weights, *external_data_names(snapshot, weights)]
        missing = [name for name in names if not (snapshot / name).is_file() and name.rsplit("/", 1)[-1] != CONFIG_JSON]
    if weights is None or missing:
        raise HubError(
            f"{wanted} is in the cache without {missing[0]}; fetch it once with the network on: "
            f"{wanted.download_command}"
        )
    if must_be_certain and weights not in groups[0]:
        raise HubError(f"{wanted}: the cache has {weights}, and the repository may have a graph to be preferred")
    unknown = [name for name in _DECISIVE if cached[name] == _Cached(None, False)]
    if unknown and not _has_listing(wanted.model, snapshot.name):
        uncertain = (
            f"{wanted}: the cache does not say whether the repository has {unknown}, so prompts and pooling may be "
            f"others than its own; fetch it once with the network on: {wanted.download_command}"
        )
        if must_be_certain:
            raise HubError(uncertain)
        warnings.warn(uncertain, stacklevel=5)
    for name in names:
        if not (snapshot / name).is_file():
            continue  # read_model_dir says what is missing of a description
        if _is_damaged(snapshot / name, None, wanted):
            raise HubError(
                f"{wanted}: {snapshot / name} is damaged in the cache; fetch it again with the network on: "
                f"{wanted.download_command}"
            )
    return snapshot


def _cached_if_whole(wanted: Wanted, must_be_certain: bool = False) -> Path | None:
    try:
        return _cached_snapshot(wanted, must_be_certain)
    except HubError:
        return None


def _downloaded_snapshot(wanted: Wanted, info: Any, facts: ModelFacts) -> Path:
    """Fetches the missing and damaged files of one commit. info: the Hub's description of it."""
    from huggingface_hub import hf_hub_download

    commit = str(info.sha)
    digests: Mapping[str, str | None] = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings or ()
    }
    first = next((name for name in _FIRST if name in digests), None)
    if first is None:
        raise no_weights(wanted, sorted(digests), {})

    def fetch(*names: str) -> None:
        for name in names:
            _fetch_file(wanted, name, commit, digests.get(name))

    try:
        if not _is_commit(wanted.revision) and _commit_of(wanted) != commit:
            # Requested by branch or tag, so that the cache learns its commit.
            hf_hub_download(wanted.model, first, revision=wanted.revision)
        fetch(*_FIRST)
        path = _cached(wanted.model, first, commit).path
        assert path is not None
        snapshot = path.parent
        weights = weights_to_use(wanted, snapshot, digests)
        if weights is None:
            raise no_weights(wanted, sorted(digests), config_of(snapshot))
        tokenizer, *modules = files_of_modules(snapshot)
        if tokenizer not in digests:
            raise no_tokenizer(wanted, tokenizer)
        older = [name for name in SENTENCE_BERT_FILES[1:] if name in digests]
        fetch(*(name for name in _DESCRIPTION if name != TOKENIZER_JSON), *older, *modules)
        description = read_model_dir(snapshot, facts)
        dense = [f"{folder}/{SAFETENSORS}" for folder in description.dense]
        if lacking := [name for name in dense if name not in digests]:
            raise HubError(
                f"{wanted} has no {lacking[0]}, the weights of a layer behind its pooling; take another copy, or pass "
                f"pooling={IN_GRAPH!r} if {weights} contains the layer"
            )
        check_pooling(wanted, description, weights, digests, facts)
        fetch(TOKENIZER_JSON, tokenizer, *dense, weights)
        if data := external_data_names(snapshot, weights):
            if weights.endswith(".onnx"):
                check_graph(wanted, description, weights)
            if lacking := [name for name in data if name not in digests]:
                raise HubError(f"{wanted} has no {lacking[0]}, where {weights} has weights; take another copy")
            fetch(*data)
    except (HubError, ModelFormatError, InputError):
        raise
    except Exception as error:  # HTTP, connection, time-out and disk errors share no base
        raise to_hub_error(wanted, error) from error
    return snapshot


def _fetch_file(wanted: Wanted, name: str, commit: str, digest: str | None) -> None:
    """Puts one file into the cache, or the fact that the repository has no such file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    path, known_missing = _cached(wanted.model, name, commit)
    if known_missing:
        return
    try:
        if path is None:
            path = _download(wanted.model, name, commit)
        elif _is_damaged(path, digest, wanted):
            warnings.warn(f"{wanted}: {path} is damaged, and is fetched again", stacklevel=7)
        else:
            return
        if _is_damaged(path, digest, wanted):
            path = _download(wanted.model, name, commit, again=True)
    except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, but it means the network
        raise
    except EntryNotFoundError:
        return
    if _is_damaged(path, digest, wanted):
        raise HubError(
            f"{wanted}: {name} arrives with another content than the Hub lists; check proxy and mirror, or try again "
            "later"
        )


def _download(model: str, name: str, commit: str, again: bool = False) -> Path:
    """Fetches one file. A connection that was cut goes on where it ended; huggingface_hub does that itself from 1.0 on.

    again: fetches all of it although it is in the cache.
    """
    from huggingface_hub import hf_hub_download

    attempts = 5  # as in huggingface_hub 1.x
    while True:
        attempts -= 1
        try:
            return Path(hf_hub_download(model, name, revision=commit, force_download=again))
        except Exception as error:  # those of HTTP libraries share no base
            if type(error).__name__ != "ChunkedEncodingError" or not attempts:
                raise


def _is_damaged(path: Path, digest: str | None, wanted: Wanted) -> bool:
    """Whether a cached file differs from its hash: the Hub's `digest`, else the name of the blob that it links to.

    SHA-256 for large files, git's SHA-1 of a blob for small ones; mirrors also use the plain SHA-1. Weights that are
    quantized as they open are read once, so their hash is remembered (user_cache.py).
    """
    if digest is None and path.is_symlink():
        digest = os.path.basename(os.readlink(path))  # noqa: PTH115, PTH119 one step: a shared blob is a link too
    if digest is not None and re.fullmatch(r"[0-9a-f]{64}", digest):
        return (remembered_sha256 if wanted.variant == "int8" else sha256_of_file)(path) != digest
    if digest is not None and _is_commit(digest):
        blob, plain = hashlib.sha1(b"blob %d\0" % path.stat().st_size), hashlib.sha1()
        with path.open("rb") as file:
            while block := file.read(2**20):
                blob.update(block)
                plain.update(block)
        return digest not in (blob.hexdigest(), plain.hexdigest())
    return False


def _cached(model: str, name: str, revision: str | None) -> _Cached:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, name, revision=revision)
    return _Cached(Path(found), False) if isinstance(found, str) else _Cached(None, found is not None)


def _commit_of(wanted: Wanted) -> str | None:
    """The commit of the branch or tag, as far as the cache knows."""
    paths = (_cached(wanted.model, name, wanted.revision).path for name in _FIRST)
    return next((path.parent.name for path in paths if path), None)


def _has_listing(model: str, commit: str) -> bool:
    """Whether the cache has the list of a commit's files, so that other files do not exist."""
    try:
        from huggingface_hub import get_cached_repo_tree  # of huggingface_hub 1.0 and newer
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return False
    try:
        files = {file.path for file in get_cached_repo_tree(model, revision=commit)}
    except CachedRepoTreeNotFoundError:
        return False
    return not any(name in files for name in _DECISIVE if _cached(model, name, commit).path is None)


def _names_inside(snapshot: Path) -> list[str]:
    return [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]


def _is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None
