"""What a published directory says of itself in sentence-transformers' files: pooling, prompts and token limit.

Where it says nothing, the table of known models does (known_models.py), and where that says nothing either, the caller
has to (ModelFacts). Nothing is guessed: many conversions leave these files out, and a wrong pooling gives vectors that
look right and are not.
"""

import json
import mmap
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.bundle import BundlePath
from gte_sdk.model_files.known_models import KnownModel, known_model

ModelPath: TypeAlias = Path | BundlePath

CONFIG_JSON = "config.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
MODULES_JSON = "modules.json"
ADAPTER_CONFIG_JSON = "adapter_config.json"
"""Of peft: weights beside it are added to the model's own."""
SENTENCE_BERT_JSON = "sentence_bert_config.json"
SENTENCE_TRANSFORMERS_JSON = "config_sentence_transformers.json"
POOLING_JSON = "1_Pooling/config.json"

POOLING_MODES = ("mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens")
POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
IN_GRAPH = "graph"
"""In the place of a pooling mode: the graph pools itself, and gives sentence_embedding."""
PLAIN = "plain"
"""The kind of texts that are neither queries nor documents."""
_SAME_KIND = {"query": ("search_query",), "document": ("passage", "corpus", "search_document")}
# Of these the first one counts: DistilBERT's hidden_dim is the width of its feed-forward layers.
_WIDTH_NAMES = ("hidden_size", "dim", "n_embd", "d_model", "hidden_dim")
# What of a model is parsed as a whole, at several times its bytes of memory. Real descriptions and headers of weights
# have up to a few MB, and tokenizers of multilingual models some 35 MB.
MAX_JSON_BYTES = 16 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
# The bytes of a file's name that file systems allow.
LONGEST_NAME = 255
# Beyond what any model has; transformers writes 1e30 for a tokenizer without a limit.
LARGEST = 2**31 - 1
# How huggingface_hub's cache names the folder of a repository; "--" cannot stand in a Hub name.
_CACHE_FOLDER = re.compile(r"models--([^-].*?)--(.+)")


class ModelFacts(NamedTuple):
    """What the caller says of a model, for what its files do not say."""

    pooling: str | None = None
    """One of POOLING_MODES or IN_GRAPH."""
    prompts: Mapping[str, str] | None = None
    """By kind; they replace the model's own of the same kinds."""
    max_tokens: int | None = None


def hub_name_of(path: ModelPath) -> str | None:
    """The Hub name ("owner/model") of a snapshot in huggingface_hub's cache, or of its bundle; else None."""
    if isinstance(path, BundlePath):
        return path.hub_name
    if path.parent.name != "snapshots":
        return None
    folder = _CACHE_FOLDER.fullmatch(path.parent.parent.name)
    return f"{folder[1]}/{folder[2]}" if folder else None


def known_of(path: ModelPath) -> KnownModel | None:
    """What the table of known models has for the model in `path`, or None."""
    return known_model(published_name(path))


def published_name(path: ModelPath) -> str | None:
    """The name that a model is published by: that of its repository, as the cache or a bundle of it says it.

    Of a directory that describes nothing itself, the name in config.json, where transformers writes what it was made
    from. A directory that does describe itself may be a fine-tuned model, which that name would not fit.
    """
    name = hub_name_of(path)
    if known_model(name) or (path / MODULES_JSON).is_file() or not (path / CONFIG_JSON).is_file():
        return name
    made_from = read_json(path / CONFIG_JSON).get("_name_or_path")
    return made_from if isinstance(made_from, str) else name


def read_json(path: ModelPath) -> dict[str, Any]:
    """Reads a JSON object. Raises ModelFormatError with the file if it is missing or is not a JSON object."""
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; export or download the model again")
    try:
        value = json.loads(read_text(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not JSON: {error}; export or download the model again") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path} holds a JSON {type(value).__name__} where an object belongs")
    return value


def read_text(path: ModelPath, most_bytes: int) -> str:
    """The content of a file as UTF-8. Raises ModelFormatError, before more is read, if it has more than `most_bytes`.

    Raises UnicodeDecodeError for other bytes.
    """
    if (size := path.stat().st_size) > most_bytes:
        raise ModelFormatError(
            f"{path} has {size} bytes, and at most {most_bytes} are read; export or download the model again"
        )
    with path.open("rb") as file:
        return file.read(size).decode("utf-8")


def mapped_bytes(path: ModelPath) -> memoryview:
    """The content of a file, which is mapped and not read. It stays mapped as long as a view of it lives."""
    if isinstance(path, BundlePath):
        return path.mapped_bytes()
    if path.stat().st_size == 0:
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_pooling(path: ModelPath) -> str | None:
    """The pooling mode of a published directory, from its files or the table of known models. None: nobody says."""
    modules = read_modules(path)
    folder = next((folder for kind, folder in modules if kind == "Pooling"), None)
    file = path / (f"{folder}/{CONFIG_JSON}" if folder else POOLING_JSON)
    if not file.is_file() or (modules and folder is None):
        if folder is not None:
            raise ModelFormatError(f"{file} is missing; {MODULES_JSON} names it: download the model again")
        known = known_of(path)
        return known.pooling if known else None
    config = read_json(file)
    mode = config.get("pooling_mode") or [name for key, name in POOLING_KEYS.items() if config.get(key) is True]
    modes = list(mode) if isinstance(mode, list) else [mode]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ModelFormatError(f"{file} asks for pooling {modes}; one of {POOLING_MODES} is supported")
    if config.get("include_prompt") is False and any(read_prompts(path).values()):
        raise ModelFormatError(
            f"{file} has include_prompt=false, which leaves the prompt's tokens out of the pooling; "
            "only models that pool all tokens are supported"
        )
    return str(modes[0])


def pools_prompts(path: ModelPath) -> bool:
    """Whether the tokens of a prompt are pooled with those of a text, which all models do but INSTRUCTOR's kind."""
    folder = next((folder for kind, folder in read_modules(path) if kind == "Pooling"), None)
    file = path / (f"{folder}/{CONFIG_JSON}" if folder else POOLING_JSON)
    return not file.is_file() or read_json(file).get("include_prompt") is not False


def read_similarity(path: ModelPath) -> str | None:
    """How a model without a unit length of its own compares its vectors, if not by their cosine; else None."""
    file = path / SENTENCE_TRANSFORMERS_JSON
    name = read_json(file).get("similarity_fn_name") if file.is_file() else None
    is_unit = "Normalize" in read_module_types(path)
    return None if name in (None, "cosine") or is_unit else str(name)


def read_truncate_dim(path: ModelPath, dim: int | None) -> int | None:
    """The dimensions to which sentence-transformers cuts the vectors, as config_sentence_transformers.json says it."""
    file = path / SENTENCE_TRANSFORMERS_JSON
    cut = read_json(file).get("truncate_dim") if file.is_file() else None
    if cut is not None and not is_size(cut):
        raise ModelFormatError(f"{file} has truncate_dim={cut!r:.40}; it is a whole number from 1")
    return None if cut is None or (dim is not None and cut >= dim) else cut


def read_module_types(path: ModelPath) -> list[str]:
    """The last word of each module type in modules.json ("Transformer", "Pooling", ...); empty without that file."""
    return [kind for kind, _ in read_modules(path)]


def read_modules(path: ModelPath) -> list[tuple[str, str]]:
    """The last word of each module's type in modules.json, and its folder, "" for the root; empty without that file.

    The type of a module that is not sentence-transformers' own, such as "custom_st.Transformer", stays whole.
    """
    file = path / MODULES_JSON
    if not file.is_file():
        return []
    try:
        modules = json.loads(read_text(file, MAX_JSON_BYTES))
        named = [(_kind_of(str(each["type"])), PurePosixPath(str(each.get("path", "")))) for each in modules]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{file} is not a list of modules: {error!r}") from error
    if outside := [folder for _, folder in named if not is_inside(folder)]:
        raise ModelFormatError(
            f"{file} has a module in {str(outside[0])!r:.200}, which is not inside the model directory"
        )
    return [(kind, "" if folder == PurePosixPath(".") else str(folder)) for kind, folder in named]


def _kind_of(module: str) -> str:
    return module.rsplit(".", 1)[-1] if module.startswith("sentence_transformers.") else module


def is_inside(name: PurePosixPath) -> bool:
    """Whether a relative path stays where it starts, on every system, and is one that a file can have."""
    return not name.is_absolute() and not any(
        part == ".." or "\\" in part or len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in name.parts
    )


def read_prompts(path: ModelPath) -> dict[str, str]:
    """The prompts of config_sentence_transformers.json, else of the table of known models.

    "query" and "document" stand for other names of the same: search_query, passage, corpus, search_document. "plain" is
    the prompt that default_prompt_name names, for texts that are neither. Prompts that are all empty count as none:
    sentence-transformers writes them for models that it does not know.
    """
    file = path / SENTENCE_TRANSFORMERS_JSON
    fields = read_json(file) if file.is_file() else {}
    prompts = fields.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelFormatError(f"{file} has prompts that are not texts: {prompts!r}")
    default = fields.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFormatError(f"{file} has default_prompt_name={default!r} and no prompt of that name: {prompts!r}")
    known = known_of(path)
    if known and not any(prompts.values()):
        prompts = dict(known.prompts)
    else:
        prompts = {**prompts, **({} if default is None else {PLAIN: prompts[default]})}
    return with_kinds(prompts)


def with_kinds(prompts: Mapping[str, str]) -> dict[str, str]:
    """The prompts, under "query" and "document" too where they have other names for these."""
    named = dict(prompts)
    for kind, names in _SAME_KIND.items():
        if kind not in named and (found := next((name for name in names if name in named), None)):
            named[kind] = named[found]
    return named


def merged_prompts(own: Mapping[str, str], facts: ModelFacts) -> dict[str, str]:
    """A model's prompts with those of the caller. Raises InputError for prompts that are not texts."""
    is_mapping = facts.prompts is None or isinstance(facts.prompts, Mapping)
    given = dict(facts.prompts or {}) if is_mapping else {}
    if not is_mapping or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise InputError(f"prompts={facts.prompts!r}; it maps kinds such as 'query' and 'document' to texts")
    return {**own, **with_kinds(given)}


def read_width(path: ModelPath) -> int | None:
    """The width of a model's states, by the names that architectures have for it. None: only the graph says it."""
    config = read_json(path / CONFIG_JSON)
    text_config = config.get("text_config")
    fields = {**text_config, **config} if isinstance(text_config, dict) else config
    name = next((name for name in _WIDTH_NAMES if name in fields), None)
    width = fields[name] if name else None
    if name and not is_size(width):
        raise ModelFormatError(f"{path / CONFIG_JSON} has {name}={width!r:.40} where an int from 1 belongs")
    return width


def is_size(value: object) -> TypeGuard[int]:
    """Whether the value is a number of tokens or dimensions that a model can have."""
    return type(value) is int and 0 < value <= LARGEST


def read_int8_limits(file: ModelPath, fields: Mapping[str, Any]) -> dict[int, float]:
    """`int8_limits` of gte.json by number of dimensions. Empty for an export that is older than this field."""
    limits = fields.get("int8_limits", {})
    if not isinstance(limits, dict) or not all(
        width.isdecimal() and isinstance(limit, float) and 0 < limit <= 1 for width, limit in limits.items()
    ):
        raise ModelFormatError(f"{file} has int8_limits={limits!r}; it maps widths to numbers above 0 and at most 1")
    return {int(width): limit for width, limit in limits.items()}


def read_matryoshka_dims(path: ModelPath, dim: int) -> tuple[int, ...]:
    """The numbers in `matryoshka_dims` of gte.json or config_sentence_transformers.json, if any."""
    dims = read_json(path).get("matryoshka_dims", []) if path.is_file() else []
    if not isinstance(dims, list) or not all(type(width) is int and 1 <= width <= dim for width in dims):
        raise ModelFormatError(f"{path} has matryoshka_dims={dims!r}; it is a list of whole numbers from 1 to {dim}")
    return tuple(sorted(dims, reverse=True))
