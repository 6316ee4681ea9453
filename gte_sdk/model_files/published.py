"""The pooling, prompts and token limit of a published directory, from sentence-transformers' files or the Hub name.

Most Hub repositories have sentence-transformers' files. Two popular families, E5 and BGE, do not say there which
prompts their texts need, and their transformers.js copies have no such files at all. KNOWN_MODELS has their prompts and
pooling, by exact Hub name. What a repository says itself always comes first.
"""

import json
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.bundle import BundlePath

ModelPath: TypeAlias = Path | BundlePath

CONFIG_JSON = "config.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
MODULES_JSON = "modules.json"
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
# RoBERTa and its relatives number positions from padding_idx + 1, so two of them hold no token.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
# Beyond what any model has; transformers writes 1e30 for a tokenizer without a limit.
LARGEST = 2**31 - 1
# How huggingface_hub's cache names the folder of a repository; "--" cannot stand in a Hub name.
_CACHE_FOLDER = re.compile(r"models--([^-].*?)--(.+)")


class KnownModel(NamedTuple):
    hub_names: re.Pattern[str]
    pooling: str
    prompts: Mapping[str, str]


# Sources: the model cards ("Each input text should start with ..."; "Query instruction for retrieval").
KNOWN_MODELS = (
    KnownModel(
        re.compile(
            r"(intfloat|Xenova)/(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?"
            r"|qdrant/multilingual-e5-large-onnx"
        ),
        "mean",
        {"query": "query: ", "passage": "passage: "},
    ),
    KnownModel(
        re.compile(r"(BAAI|Xenova)/bge-(small|base|large)-en(-v1\.5)?"),
        "cls",
        {"query": "Represent this sentence for searching relevant passages: "},
    ),
    KnownModel(
        re.compile(r"(BAAI|Xenova)/bge-(small|base|large)-zh(-v1\.5)?"),
        "cls",
        {"query": "为这个句子生成表示以用于检索相关文章："},
    ),
    KnownModel(re.compile(r"(BAAI|Xenova)/bge-m3"), "cls", {}),
)


# Suggestions for a name without its owner. Each of these models has an ONNX graph.
HUB_EXAMPLES = (
    "thenlper/gte-small",
    "thenlper/gte-base",
    "thenlper/gte-large",
    "intfloat/e5-small-v2",
    "intfloat/multilingual-e5-small",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-base-en-v1.5",
    "sentence-transformers/all-MiniLM-L6-v2",
)


def hub_name_of(path: ModelPath) -> str | None:
    """The Hub name ("owner/model") of a snapshot in huggingface_hub's cache, or of its bundle; else None."""
    if isinstance(path, BundlePath):
        return path.hub_name
    if path.parent.name != "snapshots":
        return None
    folder = _CACHE_FOLDER.fullmatch(path.parent.parent.name)
    return f"{folder[1]}/{folder[2]}" if folder else None


def known_model(path: ModelPath) -> KnownModel | None:
    """The entry of KNOWN_MODELS for a snapshot in the Hub's cache or a bundle of one, or None."""
    name = hub_name_of(path)
    return next((known for known in KNOWN_MODELS if name and known.hub_names.fullmatch(name)), None)


def read_json(path: ModelPath) -> dict[str, Any]:
    """Reads a JSON object. Raises ModelFormatError with the file if it is missing or is not a JSON object."""
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; export or download the model again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not JSON: {error}; export or download the model again") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path} holds a JSON {type(value).__name__} where an object belongs")
    return value


def mapped_bytes(path: ModelPath) -> memoryview:
    """The content of a file, which is mapped and not read. It stays mapped as long as a view of it lives."""
    if not isinstance(path, Path) or path.stat().st_size == 0:
        return memoryview(path.read_bytes())
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_pooling(path: ModelPath) -> str:
    """The pooling mode of a published directory. If neither it nor KNOWN_MODELS names one: "mean", as in GTE."""
    if not (path / POOLING_JSON).is_file():
        if "Pooling" in read_module_types(path):
            raise ModelFormatError(
                f"{path / POOLING_JSON} is missing; {MODULES_JSON} names it: download the model again"
            )
        known = known_model(path)
        return known.pooling if known else "mean"
    config = read_json(path / POOLING_JSON)
    mode = config.get("pooling_mode") or [name for key, name in POOLING_KEYS.items() if config.get(key) is True]
    modes = list(mode) if isinstance(mode, list) else [mode]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ModelFormatError(f"{path / POOLING_JSON} asks for pooling {modes}; one of {POOLING_MODES} is supported")
    if config.get("include_prompt") is False and any(read_prompts(path).values()):
        raise ModelFormatError(
            f"{path / POOLING_JSON} has include_prompt=false, which leaves the prompt's tokens out of the pooling; "
            "only models that pool all tokens are supported"
        )
    return str(modes[0])


def read_module_types(path: ModelPath) -> list[str]:
    """The last word of each module type in modules.json ("Transformer", "Pooling", ...); empty without that file."""
    return [kind for kind, _ in read_modules(path)]


def modules_only_in_graph(path: ModelPath) -> list[str]:
    """Modules that the runtime does not know, such as Dense: only the graph has them, so the graph has to pool too."""
    known = {"Transformer", "StaticEmbedding", "Pooling", "Normalize"}
    return [kind for kind in read_module_types(path) if kind not in known]


def read_modules(path: ModelPath) -> list[tuple[str, str]]:
    """The last word of each module's type in modules.json, and its folder; empty without that file."""
    if not (path / MODULES_JSON).is_file():
        return []
    try:
        modules = json.loads((path / MODULES_JSON).read_text(encoding="utf-8"))
        return [(str(module["type"]).rsplit(".", 1)[-1], str(module.get("path", ""))) for module in modules]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{path / MODULES_JSON} is not a list of modules: {error!r}") from error


def read_prompts(path: ModelPath) -> dict[str, str]:
    """The prompts of config_sentence_transformers.json, else of KNOWN_MODELS. "passage" also counts as "document".

    Prompts that are all empty count as none: sentence-transformers writes them for models that it does not know.
    """
    prompts: dict[str, str] = {}
    if (path / SENTENCE_TRANSFORMERS_JSON).is_file():
        prompts = read_json(path / SENTENCE_TRANSFORMERS_JSON).get("prompts") or {}
        if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
            raise ModelFormatError(f"{path / SENTENCE_TRANSFORMERS_JSON} has prompts that are not texts: {prompts!r}")
    known = known_model(path)
    if known and not any(prompts.values()):
        prompts = dict(known.prompts)
    if "passage" in prompts:
        prompts.setdefault("document", prompts["passage"])
    return prompts


def read_max_tokens(path: ModelPath) -> int:
    """The smallest limit in the directory: that of sentence-transformers, of the tokenizer or of the position table."""
    config = read_json(path / CONFIG_JSON)
    limits = []
    if isinstance(positions := config.get("max_position_embeddings"), int):
        limits.append(positions - 2 if config.get("model_type") in _OFFSET_POSITIONS else positions)
    for name, key in ((SENTENCE_BERT_JSON, "max_seq_length"), (TOKENIZER_CONFIG_JSON, "model_max_length")):
        if (path / name).is_file() and isinstance(limit := read_json(path / name).get(key), int):
            limits.append(limit)
    limits = [limit for limit in limits if 0 < limit <= LARGEST]
    if not limits:
        raise ModelFormatError(
            f"{path / CONFIG_JSON} has no max_position_embeddings; set max_seq_length in {SENTENCE_BERT_JSON}"
        )
    return min(limits)
