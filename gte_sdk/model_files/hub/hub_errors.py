"""What went wrong with a Hub model, in one sentence with the value and the remedy.

huggingface_hub raises its own errors, those of its HTTP client (requests, httpx, by version) and plain OSErrors, some
of them wrapped into "not found in the cache"; here they are told apart by what the user can do about them.
"""

import errno
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gte_sdk.errors import HubError
from gte_sdk.model_files.directory import GRAPH_FILES

# What export/to_onnx.py traces. The last ones are published with code of their own, which it knows.
_WITH_CODE = ("gte", "nomic_bert", "eurobert")
EXPORTED_ARCHITECTURES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra", "modernbert"),
    *_WITH_CODE,
)
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
    quantize: bool = True
    """Whether float32 weights will do for variant="int8", because they are quantized as they open."""

    def __str__(self) -> str:
        return f"model={self.model!r} revision={self.revision!r}"

    @property
    def download_command(self) -> str:
        """What fetches this model into the cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        variant = f" --variant {self.variant}" if self.variant != "auto" else ""
        return f"gte download {self.model}{revision}{variant}"


def no_weights(wanted: Wanted, names: Sequence[str], config: Mapping[str, Any]) -> HubError:
    """The error for a repository with the files `names`, none of which has weights that can be run.

    config: its config.json, whose architecture decides what can be advised.
    """
    graphs = [name for name in names if name.endswith(".onnx")]
    offered = {variant for variant, known in GRAPH_FILES.items() if set(known) & set(graphs)}
    advice = _export_advice(wanted, names, config)
    if offered:
        return HubError(
            f"{wanted} has none of {list(GRAPH_FILES[wanted.variant])}, the graphs of variant={wanted.variant!r}; "
            f"it has variant {' and '.join(map(repr, sorted(offered)))}"
        )
    if graphs:
        return HubError(f"{wanted} has ONNX graphs under names that are not known ({', '.join(graphs[:5])}); {advice}")
    if any(name.endswith(".safetensors") for name in names):
        return HubError(f"{wanted} has safetensors weights and no ONNX graph; {advice}")
    if pickles := [name for name in names if name.endswith(_PICKLE_SUFFIXES)]:
        return HubError(
            f"{wanted} has its weights as {pickles[0]} only, a pickle, which is refused because loading it runs the "
            "code inside; choose a repository or revision with ONNX or safetensors files"
        )
    return HubError(f"{wanted} has neither an ONNX graph nor weights; check the name")


def no_tokenizer(wanted: Wanted, name: str) -> HubError:
    """The error for a repository without the file of the fast tokenizer."""
    return HubError(
        f"{wanted} has no {name}; transformers makes one from other files of a tokenizer: "
        f"AutoTokenizer.from_pretrained({wanted.model!r}).save_pretrained(DIR)"
    )


def _export_advice(wanted: Wanted, names: Sequence[str], config: Mapping[str, Any]) -> str:
    """What makes a model directory of a repository without a graph, if our export takes it."""
    graphs = f"choose a repository with one of {list(GRAPH_FILES['fp32'])}"
    if not any(name.endswith(".safetensors") for name in names):
        return f"gte-sdk's export takes only safetensors weights: {graphs}"
    architecture = "gte" if config.get("model_type") == "new" else config.get("model_type")
    has_other_code = "auto_map" in config and architecture not in _WITH_CODE
    has_other_positions = config.get("position_embedding_type", "absolute") not in ("absolute", "rope")
    if architecture not in EXPORTED_ARCHITECTURES or has_other_code or has_other_positions:
        return (
            f"gte-sdk's export does not take the architecture {config.get('model_type')!r} with that config: {graphs}"
        )
    return (
        f"from a checkout of gte-sdk, make it with: python export/to_onnx.py {wanted.model} --output DIR, and give DIR "
        "as the model"
    )


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
    elif "Timeout" in type(error).__name__ or "Read timed out" in str(error):
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
