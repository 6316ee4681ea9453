"""From the name of a model to the directory or bundle that holds it."""

import difflib
from os import PathLike
from pathlib import Path

from gte_sdk.checks import check_path
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import NO_FACTS, bundled_model_path, bundled_models
from gte_sdk.model_files.hub.download import fetch_model, is_hub_name
from gte_sdk.model_files.known_models import original_names
from gte_sdk.model_files.published import ModelFacts


def locate_model(
    model: str | PathLike[str],
    variant: str,
    revision: str | None,
    offline: bool | None,
    facts: ModelFacts = NO_FACTS,
    quantize: bool = True,
) -> Path:
    """The local directory or bundle for a bundled name, a directory, a bundle or a Hub name.

    facts: what the caller says of the model; a Hub model of which too little is known is not downloaded.
    quantize: as in `fetch_model`.
    Raises ModelFormatError for anything else, and HubError for a Hub model that cannot be fetched.
    """
    path = check_path("model", model)
    name = str(model)
    if name in bundled_models():
        return bundled_model_path(name)
    if path.is_dir() or path.is_file():
        return path
    if isinstance(model, str) and is_hub_name(name):
        return fetch_model(name, variant, revision, offline, facts, quantize)
    raise ModelFormatError(
        f"model={name!r} is neither a bundled model ({', '.join(bundled_models())}), nor a directory or "
        f"bundle, nor a Hub name like 'owner/model'{_suggestion(name)}"
    )


def _suggestion(name: str) -> str:
    """The model that a wrong name may mean: a bundled model, or a Hub name without its owner."""
    by_last_word = {known.rsplit("/", 1)[-1].lower(): known for known in original_names()}
    by_last_word.update({bundled: bundled for bundled in bundled_models()})
    close = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), by_last_word, n=1)
    return f"; did you mean {by_last_word[close[0]]!r}?" if close else ""


def storable_name(model: str | PathLike[str]) -> str:
    """A model's name as a text that is valid from every working directory: paths become absolute."""
    path = check_path("model", model)
    is_name = isinstance(model, str) and (model in bundled_models() or not path.exists())
    return str(model) if is_name else str(path.absolute())
