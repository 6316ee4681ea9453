"""What went wrong with a Hub model, in one sentence with the value and the remedy.

huggingface_hub raises its own errors, those of its HTTP client (requests, httpx, by version) and plain OSErrors, some
of them wrapped into "not found in the cache"; here they are told apart by what the user can do about them.
"""

import errno
import re
from collections.abc import Sequence
from typing import NamedTuple

from gte_sdk.errors import HubError
from gte_sdk.model_files.directory import GRAPH_FILES

# Formats whose loading runs code that the file brings along.
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
# The user and password that the addresses in HF_ENDPOINT and HTTPS_PROXY may hold, which must not be printed.
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO}


class Wanted(NamedTuple):
    """A model as the user named it."""

    model: str
    revision: str | None
    variant: str

    def __str__(self) -> str:
        return f"model={self.model!r} revision={self.revision!r}"

    @property
    def download_command(self) -> str:
        """What fetches this model into the cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        variant = f" --variant {self.variant}" if self.variant != "auto" else ""
        return f"gte download {self.model}{revision}{variant}"

    @property
    def export_advice(self) -> str:
        """What makes a model directory of a repository without one."""
        return (
            f"from a checkout of gte-sdk, make it with: python export/to_onnx.py {self.model} --output DIR, "
            "and give DIR as the model"
        )


def no_graph(wanted: Wanted, names: Sequence[str]) -> HubError:
    """The error for a repository with the files `names`, none of which is the graph that is wanted."""
    graphs = [name for name in names if name.endswith(".onnx")]
    offered = {variant for variant, known in GRAPH_FILES.items() if set(known) & set(graphs)}
    if offered:
        return HubError(
            f"{wanted} has none of {list(GRAPH_FILES[wanted.variant])}, the graphs of variant={wanted.variant!r}; "
            f"it has variant {' and '.join(map(repr, sorted(offered)))}"
        )
    if graphs:
        return HubError(
            f"{wanted} has ONNX graphs under names that are not known ({', '.join(graphs[:5])}); {wanted.export_advice}"
        )
    if any(name.endswith(".safetensors") for name in names):
        return HubError(f"{wanted} has safetensors weights and no ONNX graph; {wanted.export_advice}")
    if pickles := [name for name in names if name.endswith(_PICKLE_SUFFIXES)]:
        return HubError(
            f"{wanted} has its weights as {pickles[0]} only, a pickle, which is refused because loading it runs the "
            "code inside; choose a repository or revision with ONNX or safetensors files"
        )
    return HubError(f"{wanted} has neither an ONNX graph nor weights; check the name")


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no answer, or none that says anything of the model (5xx, too many requests)."""
    from huggingface_hub.errors import HFValidationError

    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return not isinstance(error, HFValidationError)


def to_hub_error(wanted: Wanted, error: BaseException) -> HubError:
    """The HubError that says what `error`, raised by huggingface_hub, means for a model."""
    return HubError(f"{wanted} {explain_failure(error, wanted.model)}")


def explain_failure(error: BaseException, repository: str) -> str:
    """What `error`, raised by huggingface_hub, means: the rest of a sentence that begins with what was wanted.

    `repository` is owner/name; for a data set it is datasets/owner/name, as in its address.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{repository}"
    status = _status(error)
    if isinstance(error, GatedRepoError):
        what = f"is gated; accept its terms at {page} and set HF_TOKEN to a token of that account"
    elif isinstance(error, RepositoryNotFoundError):
        what = f"is not on {constants.ENDPOINT}, or is private; check the name, or set HF_TOKEN if it is private"
    elif isinstance(error, RevisionNotFoundError):
        what = f"has no such branch, tag or commit; {page}/commits/main lists the commits"
    elif isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        what = f"names a file that the repository does not have; {page}/tree/main lists its files"
    elif isinstance(error, HFValidationError):
        what = f"is no valid Hub name: {_first_line(error)}"
    elif isinstance(error, OfflineModeIsEnabled):
        what = "cannot be fetched while HF_HUB_OFFLINE is set; unset it"
    elif status == 401:
        what = "was refused, as the token is not valid; set HF_TOKEN to a valid one, or unset it for a public model"
    elif status == 403:
        what = f"was refused with status 403; give the token in HF_TOKEN read access to {page}"
    elif status == 429:
        what = "was refused with status 429, too many requests; wait some minutes, or set HF_TOKEN for a higher limit"
    elif status is not None:
        what = f"could not be fetched from {constants.ENDPOINT}: status {status}; try again later, or check HF_ENDPOINT"
    elif isinstance(error, OSError) and (error.errno in _DISK_ERRORS or error.filename is not None):
        what = f"could not be stored in {constants.HF_HUB_CACHE}: {_first_line(error)}; free space or set HF_HUB_CACHE"
    elif "Timeout" in type(error).__name__:
        what = (
            f"could not be fetched from {constants.ENDPOINT}: no answer in time ({type(error).__name__}); check "
            "network and HTTPS_PROXY, or raise HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT"
        )
    else:
        what = (
            f"could not be fetched from {constants.ENDPOINT}: {_first_line(error)}; "
            "check network, HTTPS_PROXY and HF_ENDPOINT"
        )
    return _CREDENTIALS.sub("//", what)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer that was an error."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
