"""What is known of published models whose repositories do not say it: pooling, prompts and length, by base name.

Many people convert a model and leave out the files that say how its token states become a vector. The base name is what
the conversions share: "onnx-community/gte-multilingual-base", "Xenova/bge-m3", "somebody/e5-small-v2-ONNX". What a
repository says itself comes first (published.py). Each row has its source: the model card or the files of the model's
own repository. A model whose facts could not be read there is not in the table.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# What conversions put behind a model's name: the format, a number type, a level of optimization.
_CONVERTED = re.compile(
    r"[-_.](onnx|ort|transformers[-_.]?js|optimum|int8|uint8|q8|q4|q|o[1-4]|quantized|quantised|fp16|fp32)$",
    re.IGNORECASE,
)
_BGE_QUERY = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH_QUERY = {"query": "为这个句子生成表示以用于检索相关文章："}
_E5 = {"query": "query: ", "passage": "passage: "}
_NOMIC = {"query": "search_query: ", "document": "search_document: "}
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
_GEMMA = {"query": "task: search result | query: ", "document": "title: none | text: "}


class KnownModel(NamedTuple):
    """Models of one family, which are used alike."""

    owner: str
    """Whose repository the facts are from."""
    names: tuple[str, ...]
    """Base names, as the owner spells them."""
    dims: tuple[int, ...]
    """The dimensions of the vectors, in the order of the names."""
    pooling: str
    max_tokens: int
    """What sentence-transformers reads of a text, special tokens included."""
    languages: str
    licence: str
    source: str
    """Where in the owner's repositories the facts are."""
    prompts: Mapping[str, str] = {}
    dense: bool = False
    """Whether dense layers follow the pooling, which then must be in the repository or in the graph."""
    graph_pools: bool = False
    """Whether the graphs of its conversions have the output sentence_embedding."""
    refused: str = ""
    """Why gte-sdk cannot run it, if so."""
    remark: str = ""


_OWN_FILES = "1_Pooling/config.json, sentence_bert_config.json"
_OWN_PROMPTS = f"{_OWN_FILES}, config_sentence_transformers.json"
_CARD = f"model card, {_OWN_FILES}"

KNOWN_MODELS = (
    KnownModel(
        "thenlper", ("gte-small", "gte-base", "gte-large"), (384, 768, 1024), "mean", 512, "English", "MIT", _CARD
    ),
    KnownModel(
        "thenlper", ("gte-small-zh", "gte-base-zh", "gte-large-zh"), (512, 768, 1024), "cls", 512, "Chinese", "MIT",
        _CARD,
    ),
    KnownModel(
        "Alibaba-NLP", ("gte-base-en-v1.5", "gte-large-en-v1.5"), (768, 1024), "cls", 8192, "English", "Apache-2.0",
        _CARD,
    ),
    KnownModel("Alibaba-NLP", ("gte-multilingual-base",), (768,), "cls", 8192, "over 70", "Apache-2.0", _CARD),
    KnownModel("Alibaba-NLP", ("gte-modernbert-base",), (768,), "cls", 8192, "English", "Apache-2.0", _CARD),
    KnownModel(
        "Alibaba-NLP", ("gte-Qwen2-1.5B-instruct", "gte-Qwen2-7B-instruct"), (1536, 3584), "lasttoken", 32768,
        "multilingual", "Apache-2.0", _CARD, {"query": f"{_WEB_SEARCH} "},
    ),
    KnownModel(
        "BAAI",
        (
            "bge-small-en", "bge-base-en", "bge-large-en", "bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5",
        ),
        (384, 768, 1024, 384, 768, 1024), "cls", 512, "English", "MIT", _CARD, _BGE_QUERY,
    ),
    KnownModel(
        "BAAI",
        (
            "bge-small-zh", "bge-base-zh", "bge-large-zh", "bge-small-zh-v1.5", "bge-base-zh-v1.5", "bge-large-zh-v1.5",
        ),
        (512, 768, 1024, 512, 768, 1024), "cls", 512, "Chinese", "MIT", _CARD, _BGE_ZH_QUERY,
    ),
    KnownModel(
        "BAAI", ("bge-m3",), (1024,), "cls", 8192, "over 100", "MIT", _CARD,
        remark="the dense vectors only, not the sparse and multi-vector ones",
    ),
    KnownModel(
        "intfloat",
        (
            "e5-small", "e5-base", "e5-large", "e5-small-v2", "e5-base-v2", "e5-large-v2", "e5-small-unsupervised",
            "e5-base-unsupervised", "e5-large-unsupervised",
        ),
        (384, 768, 1024) * 3, "mean", 512, "English", "MIT", _CARD, _E5,
    ),
    KnownModel(
        "intfloat", ("multilingual-e5-small", "multilingual-e5-base", "multilingual-e5-large"), (384, 768, 1024),
        "mean", 512, "about 100", "MIT", _CARD, _E5,
    ),
    KnownModel(
        "intfloat", ("multilingual-e5-large-instruct",), (1024,), "mean", 512, "about 100", "MIT", _CARD,
        {"query": f"{_WEB_SEARCH} "}, remark="the prompt says the task; prompts= says another one",
    ),
    KnownModel(
        "Snowflake",
        (
            "snowflake-arctic-embed-xs", "snowflake-arctic-embed-s", "snowflake-arctic-embed-m",
            "snowflake-arctic-embed-l", "snowflake-arctic-embed-m-v1.5",
        ),
        (384, 384, 768, 1024, 768), "cls", 512, "English", "Apache-2.0", _OWN_PROMPTS, _BGE_QUERY,
    ),
    KnownModel(
        "Snowflake", ("snowflake-arctic-embed-m-long",), (768,), "cls", 8192, "English", "Apache-2.0", _OWN_PROMPTS,
        _BGE_QUERY, remark="its card: 2,048 tokens, and 8,192 with scaled rotary positions, which the graph must have",
    ),
    KnownModel(
        "Snowflake", ("snowflake-arctic-embed-m-v2.0", "snowflake-arctic-embed-l-v2.0"), (768, 1024), "cls", 8192,
        "over 70", "Apache-2.0", _OWN_PROMPTS, {"query": "query: "},
    ),
    KnownModel(
        "ibm-granite", ("granite-embedding-30m-english", "granite-embedding-125m-english"), (384, 768), "cls", 512,
        "English", "Apache-2.0", _CARD,
    ),
    KnownModel(
        "ibm-granite", ("granite-embedding-107m-multilingual", "granite-embedding-278m-multilingual"), (384, 768),
        "cls", 512, "12", "Apache-2.0", _CARD,
    ),
    KnownModel(
        "ibm-granite", ("granite-embedding-small-english-r2", "granite-embedding-english-r2"), (384, 768), "cls", 8192,
        "English", "Apache-2.0", _CARD,
    ),
    KnownModel(
        "mixedbread-ai", ("mxbai-embed-large-v1",), (1024,), "cls", 512, "English", "Apache-2.0", _OWN_PROMPTS,
        _BGE_QUERY,
    ),
    KnownModel(
        "mixedbread-ai", ("mxbai-embed-xsmall-v1",), (384,), "mean", 4096, "English", "Apache-2.0",
        "angle_config.json, config.json",
    ),
    KnownModel("WhereIsAI", ("UAE-Large-V1",), (1024,), "cls", 512, "English", "MIT", _CARD, _BGE_QUERY),
    KnownModel(
        "sentence-transformers", ("multi-qa-mpnet-base-dot-v1",), (768,), "cls", 512, "English", "not stated", _CARD,
        remark="made for the dot product of vectors of any length; with unit length its ranks may differ",
    ),
    KnownModel(
        "sentence-transformers",
        ("multi-qa-MiniLM-L6-cos-v1", "multi-qa-distilbert-cos-v1"), (384, 768), "mean", 512, "English", "not stated",
        _CARD,
    ),
    KnownModel(
        "sentence-transformers", ("all-MiniLM-L6-v2",), (384,), "mean", 256, "English", "Apache-2.0", _CARD
    ),
    KnownModel(
        "sentence-transformers", ("all-MiniLM-L12-v2",), (384,), "mean", 128, "English", "Apache-2.0", _CARD
    ),
    KnownModel("sentence-transformers", ("all-mpnet-base-v2",), (768,), "mean", 384, "English", "Apache-2.0", _CARD),
    KnownModel(
        "sentence-transformers",
        ("paraphrase-multilingual-MiniLM-L12-v2", "paraphrase-multilingual-mpnet-base-v2"), (384, 768), "mean", 128,
        "over 50", "Apache-2.0", _CARD,
    ),
    KnownModel(
        "sentence-transformers", ("LaBSE",), (768,), "cls", 256, "109", "Apache-2.0",
        f"{_OWN_FILES}, 2_Dense/config.json", dense=True,
    ),
    KnownModel(
        "sentence-transformers", ("distiluse-base-multilingual-cased-v1", "distiluse-base-multilingual-cased-v2"),
        (512, 512), "mean", 128, "over 50", "Apache-2.0", f"{_OWN_FILES}, 2_Dense/config.json", dense=True,
    ),
    KnownModel(
        "sentence-transformers", ("gtr-t5-base", "gtr-t5-large", "gtr-t5-xl"), (768, 768, 768), "mean", 512, "English",
        "Apache-2.0", f"{_OWN_FILES}, 2_Dense/config.json", dense=True,
    ),
    KnownModel(
        "sentence-transformers", ("sentence-t5-base", "sentence-t5-large", "sentence-t5-xl"), (768, 768, 768), "mean",
        256, "English", "Apache-2.0", f"{_OWN_FILES}, 2_Dense/config.json", dense=True,
    ),
    KnownModel(
        "nomic-ai", ("nomic-embed-text-v1", "nomic-embed-text-v1.5"), (768, 768), "mean", 8192, "English", "Apache-2.0",
        _CARD, _NOMIC, remark="shorter vectors of v1.5 take a layer norm first, which gte-sdk does not do",
    ),
    KnownModel(
        "nomic-ai", ("nomic-embed-text-v2-moe",), (768,), "mean", 512, "about 100", "Apache-2.0", _OWN_PROMPTS, _NOMIC
    ),
    KnownModel(
        "nomic-ai", ("modernbert-embed-base",), (768,), "mean", 8192, "English", "Apache-2.0", _CARD, _NOMIC
    ),
    KnownModel(
        "jinaai",
        (
            "jina-embeddings-v2-small-en", "jina-embeddings-v2-base-en", "jina-embeddings-v2-base-de",
            "jina-embeddings-v2-base-es", "jina-embeddings-v2-base-zh", "jina-embeddings-v2-base-code",
        ),
        (512, 768, 768, 768, 768, 768), "mean", 8192, "English, with German, Spanish, Chinese or code", "Apache-2.0",
        _CARD,
    ),
    KnownModel(
        "jinaai", ("jina-embeddings-v3",), (1024,), "mean", 8192, "about 100", "CC-BY-NC-4.0", "model card",
        refused="its graph takes a task_id, which chooses a LoRA adapter, and gte-sdk passes texts only",
    ),
    KnownModel(
        "google", ("embeddinggemma-300m",), (768,), "mean", 2048, "over 100", "Gemma", _OWN_PROMPTS, _GEMMA, dense=True,
        graph_pools=True,
    ),
    KnownModel(
        "Qwen", ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B"), (1024, 2560, 4096), "lasttoken",
        32768, "over 100", "Apache-2.0", _OWN_PROMPTS, {"query": _WEB_SEARCH},
    ),
)  # fmt: skip
_BY_BASE_NAME = {name.lower(): (known, f"{known.owner}/{name}") for known in KNOWN_MODELS for name in known.names}


def known_model(name: str | None) -> KnownModel | None:
    """The row for a model's name, whoever owns or converted it, or None.

    name: a Hub name, a base name, or the path that a conversion was made from.
    """
    found = _BY_BASE_NAME.get(_base_name(name or ""))
    return found[0] if found else None


def original_name(name: str) -> str | None:
    """The Hub name of the known model that `name` is a copy or conversion of, or None."""
    found = _BY_BASE_NAME.get(_base_name(name))
    return found[1] if found else None


def original_names() -> list[str]:
    """The Hub names of all known models, as their owners publish them."""
    return [original for _, original in _BY_BASE_NAME.values()]


def _base_name(name: str) -> str:
    base = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
    while base not in _BY_BASE_NAME and _CONVERTED.search(base):
        base = _CONVERTED.sub("", base)
    return base
