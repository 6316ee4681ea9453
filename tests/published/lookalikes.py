"""What the look-alikes of known models are, and what becomes of them: the data of the tests and of the page.

A look-alike has the files, the configuration and the kind of tokenizer of a published repository, and random weights.
"""

from gte_sdk.model_files.known_models import KnownModel

# By the first name of a row; all others look like BERT. GTE's and Nomic's own architectures differ from it inside of
# the graph only, which is not what these tests are about.
_ARCHITECTURES = {
    "gte-multilingual-base": "xlm-roberta",
    "gte-modernbert-base": "modernbert",
    "gte-Qwen2-1.5B-instruct": "qwen3",
    "bge-m3": "xlm-roberta",
    "multilingual-e5-large-instruct": "xlm-roberta",
    "snowflake-arctic-embed-m-v2.0": "xlm-roberta",
    "granite-embedding-107m-multilingual": "xlm-roberta",
    "granite-embedding-small-english-r2": "modernbert",
    "modernbert-embed-base": "modernbert",
    "embeddinggemma-300m": "qwen3",
    "Qwen3-Embedding-0.6B": "qwen3",
}
# By the first name of a row; the encoders of all others are of the native engine's family.
_NOT_NATIVE = (
    "gte-Qwen2-1.5B-instruct",
    "snowflake-arctic-embed-m-long",
    "gtr-t5-base",
    "sentence-t5-base",
    "nomic-embed-text-v1",
    "nomic-embed-text-v2-moe",
    "jina-embeddings-v2-small-en",
    "embeddinggemma-300m",
    "Qwen3-Embedding-0.6B",
)


def architecture_of(row: KnownModel) -> str:
    """The architecture of a row's look-alike."""
    return _ARCHITECTURES.get(row.names[0], "bert")


def outcome_of(row: KnownModel) -> str:
    """What becomes of a conversion with a graph, a tokenizer and config.json, and nothing else."""
    if row.refused:
        return "refused"
    if row.dense and not row.graph_pools:
        return "only with its dense layers"
    return "loads, if its graph pools" if row.graph_pools else "loads"


def engine_of(row: KnownModel) -> str:
    """The engine that runs the models of a row on a CPU; the native one leaves dense layers to ONNX Runtime."""
    if row.refused:
        return ""
    return "ONNX Runtime" if row.names[0] in _NOT_NATIVE or row.dense else "native"


def variants_of(row: KnownModel) -> str:
    """The variants that a row's models can have on that engine."""
    return {"native": "fp32, int8", "ONNX Runtime": "of its graphs", "": ""}[engine_of(row)]
