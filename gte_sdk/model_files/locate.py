"""From the name of a model to the directory or bundle that holds it."""

import difflib
from os import PathLike
from pathlib import Path

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import bundled_model_path, bundled_models
from gte_sdk.model_files.hub import fetch_model, is_hub_name
from gte_sdk.model_files.published import HUB_EXAMPLES


def locate_model(model: str | PathLike[str], variant: str, revision: str | None, offline: bool | None) -> Path:
    """The local directory or bundle of a bundled name, a directory, a bundle, or a Hub name."""
    name = str(model)
    if name in bundled_models():
        return bundled_model_path(name)
    path = Path(model)
    if path.is_dir() or path.is_file():
        return path
    if isinstance(model, str) and is_hub_name(name):
        return fetch_model(name, variant, revision, offline)
    raise ModelFormatError(
        f"model={name!r} is neither a bundled model ({', '.join(bundled_models())}), nor a directory or "
        f"bundle, nor a Hub name like 'owner/model'{_suggestion(name)}"
    )


def _suggestion(name: str) -> str:
    """What a name that leads nowhere may have meant: a bundled model, or a Hub name without its owner."""
    by_last_word = {known.rsplit("/", 1)[-1].lower(): known for known in HUB_EXAMPLES}
    by_last_word.update({bundled: bundled for bundled in bundled_models()})
    close = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), by_last_word, n=1)
    return f"; did you mean {by_last_word[close[0]]!r}?" if close else ""


def storable_name(model: str | PathLike[str]) -> str:
    """A model's name as text that means the same in every folder: that of a file or folder becomes absolute."""
    is_name = isinstance(model, str) and (model in bundled_models() or not Path(model).exists())
    return str(model) if is_name else str(Path(model).absolute())
