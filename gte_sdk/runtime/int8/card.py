"""The model card, README.md: what licence a source's card names, and the card of a model that was converted to int8."""

import re
from typing import Any, NamedTuple

from gte_sdk.model_files.directory import CARD, GTE_JSON, ModelDir
from gte_sdk.model_files.published import ModelPath, hub_name_of, read_json

UNKNOWN_LICENCE = "NOASSERTION"
_LICENCE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)
_FRONT_MATTER_BYTES = 2**16


class Source(NamedTuple):
    """Where the weights of a converted model come from, as far as its files say."""

    name: str
    """A Hub name, or the name of a directory; never a path of this machine."""
    revision: str | None
    """The commit of a Hub model."""
    licence: str
    """An SPDX expression, or UNKNOWN_LICENCE."""


def describe_source(description: ModelDir) -> Source:
    path = description.path
    own_licence = read_json(path / GTE_JSON).get("licence") if description.files else None
    licence = own_licence if isinstance(own_licence, str) else guess_licence(path)
    hub_name = hub_name_of(path)
    return Source(hub_name or description.name, path.name if hub_name and path.name else None, licence)


def guess_licence(source: ModelPath) -> str:
    """The licence in the front matter of the source's card as an SPDX expression, or UNKNOWN_LICENCE."""
    card = source / CARD
    front_matter = []
    if card.is_file():
        with card.open("rb") as file:
            front_matter = file.read(_FRONT_MATTER_BYTES).decode("utf-8", errors="replace").split("---")[1:2]
    found = _LICENCE.search(front_matter[0]) if front_matter else None
    if found is None or found[1].lower() in ("other", "unknown"):
        return UNKNOWN_LICENCE
    return {"apache-2.0": "Apache-2.0", "mit": "MIT"}.get(found[1].lower(), found[1])


def format_int8_card(description: ModelDir, source: Source, report: dict[str, Any]) -> str:
    """report: the content of parity.json."""
    cosine, is_known = report["precisions"]["int8"]["cosine"], source.licence != UNKNOWN_LICENCE
    revision = f", revision {source.revision}" if source.revision else ", of which the revision is not known"
    licence = (
        f"Licence: {source.licence}, as the source says."
        if is_known
        else "The source names no licence, so the licence of these weights is not known: ask its authors."
    )
    prompts = [f"- {name}: `{prompt}`" for name, prompt in description.prompts.items()]
    lines = [
        "---",
        f"license: {source.licence.lower() if is_known else 'unknown'}",
        "library_name: gte-sdk",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-similarity, feature-extraction, int8, gte-sdk]",
        *([f"base_model: {source.name}"] if "/" in source.name else []),
        "---",
        "",
        f"# {source.name.rsplit('/', 1)[-1]}, int8",
        "",
        f"The weights of {source.name}, quantized to int8 for the native engine of gte-sdk: {description.dim} "
        f"dimensions, unit length, at most {description.max_tokens} tokens, {description.pooling} pooling. Other "
        "libraries do not read them.",
        "",
        "```python",
        "import gte_sdk",
        "",
        'embedder = gte_sdk.Embedder("the path of this directory")',
        'vectors = embedder.embed(["a text", "another"])',
        "```",
        "",
        *(["Prompts, put before a text by `embed_query` and `embed_documents`:", "", *prompts, ""] if prompts else []),
        "## Parity",
        "",
        f"Cosine of int8 vectors to float32 vectors over {report['texts']} mixed texts that took no part in the "
        f"calibration: mean {cosine['mean']:.4f}, least {cosine['minimum']:.4f}. Quality on a task was not measured. "
        "`parity.json` has the report.",
        "",
        "## Provenance and licence",
        "",
        f"Weights: {source.name}{revision}. {licence} What the model was trained on, and for what it is fit, is in the "
        "source's card as far as it is known.",
        "",
        "Made by `gte convert`. `gte.json` has the SHA-256 of every file.",
        "",
    ]
    return "\n".join(lines)
