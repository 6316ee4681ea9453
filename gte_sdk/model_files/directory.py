"""The model directory: file names, fields, checks and fingerprint. Export writes it, the runtime reads it.

The layout is that of the ecosystem (sentence-transformers' modules, the Hub's onnx/ folder), plus our own gte.json.
Reading does not need gte.json, so a plain Hub directory works. With gte.json, every file is compared with its hash
before it is read. Nothing in a model directory is ever executed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.bundle import BundlePath, open_bundle
from gte_sdk.model_files.graph_file import WEIGHT_FILES, external_data_names
from gte_sdk.model_files.modules import SAFETENSORS, modules_only_in_graph, read_dense, read_pooled, static_folder
from gte_sdk.model_files.published import (
    LARGEST,
    MODULES_JSON,
    POOLING_MODES,
    SENTENCE_TRANSFORMERS_JSON,
    ModelFacts,
    ModelPath,
    hub_name_of,
    merged_prompts,
    pools_prompts,
    read_int8_limits,
    read_json,
    read_matryoshka_dims,
    read_prompts,
    read_similarity,
    read_truncate_dim,
    read_width,
)
from gte_sdk.model_files.text_settings import (
    SENTENCE_BERT_FILES,
    bert_normalization,
    check_text_settings,
    read_max_tokens,
    reads_lower_case,
    sentence_bert_file,
)

FORMAT_VERSION = 1

GTE_JSON = "gte.json"
TOKENIZER_JSON = "tokenizer.json"
SPECIAL_TOKENS_JSON = "special_tokens_map.json"
PARITY_JSON = "parity.json"
GOLDEN_JSON = "golden.json"
CARD = "README.md"
# int8 weights for the native engine (gte_sdk/runtime/int8/weights_file.py).
INT8_WEIGHTS = "model_int8.safetensors"

# The first name that exists is used. The later ones are other names for the same graph in Hub repositories.
GRAPH_FILES: Mapping[str, tuple[str, ...]] = {
    "fp32": ("onnx/model.onnx", "model.onnx"),
    "fp16": ("onnx/model_fp16.onnx",),
    "int8": (
        "onnx/model_quantized.onnx",
        "model_quantized.onnx",
        "onnx/model_int8.onnx",
        "onnx/model_quint8_avx2.onnx",
        "onnx/model_qint8_avx512_vnni.onnx",
        "onnx/model_qint8_avx512.onnx",
        "onnx/model_qint8_arm64.onnx",
        INT8_WEIGHTS,
    ),
}

NO_FACTS = ModelFacts()

_BUNDLED = Path(__file__).parent.parent / "models"


class FileRecord(NamedTuple):
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelDir:
    """The checked description of a model directory."""

    path: ModelPath
    name: str
    dim: int | None
    """The dimensions of the sentence embedding. None if only the graph says it."""
    max_tokens: int
    """The most tokens of a text that the model reads, special tokens included."""
    pooling: str
    """One of POOLING_MODES, used only for a graph without a sentence_embedding output, or IN_GRAPH, which needs it."""
    normalize: bool
    """Whether the graph itself gives rows of unit length."""
    prompts: Mapping[str, str]
    """The text to put before an input, by kind: "query", "document" and any other that the model names."""
    files: Mapping[str, FileRecord]
    """The recorded files, by POSIX path inside the directory. Empty without gte.json."""
    fingerprint: str | None
    """Identifies the vector space. None without gte.json, see `fingerprint_of_files`."""
    matryoshka_dims: tuple[int, ...] = ()
    """The dimensions that vectors may be cut to, if the model was trained for it (Matryoshka, arXiv 2205.13147)."""
    int8_limits: Mapping[int, float] = field(default_factory=dict)
    """By number of dimensions, the magnitude that int8 vectors write as 127 (gte_sdk/embedding/vector_types.py)."""
    dense: tuple[str, ...] = ()
    """The folders of the dense layers behind the pooling, for a graph without a sentence_embedding output."""
    why_in_graph: str = ""
    """Of IN_GRAPH: why nothing else will do, and the remedy."""
    pool_states: bool = False
    """Whether the caller named the pooling, which then goes before a sentence_embedding of the graph."""
    token_table: str | None = None
    """Of a static model: the file with the vectors of its tokens, whose mean is the vector of a text."""
    tokenizer: str = TOKENIZER_JSON
    """The tokenizer's file, by its path inside the directory."""
    lowercase: bool = False
    """Whether texts are written in lower case before the tokenizer's own normalization."""
    normalization: Mapping[str, Any] | None = None
    """Settings of BertNormalizer that go before those of tokenizer.json, see `bert_normalization`."""
    pools_prompts: bool = True
    """Whether the tokens of a prompt are pooled with those of a text."""
    truncate_dim: int | None = None
    """One of matryoshka_dims, to which the model's own description cuts its vectors."""
    similarity: str | None = None
    """How the model compares its vectors, if not by their cosine, which unit length would then change."""


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(entry.parent.name for entry in _BUNDLED.glob(f"*/{GTE_JSON}"))


def bundled_model_path(name: str) -> Path:
    return _BUNDLED / name


def read_model_dir(path: ModelPath, facts: ModelFacts = NO_FACTS) -> ModelDir:
    """Reads and checks the description of the model in `path`, a directory or a bundle.

    facts: what the caller says of a model whose files do not say it. Raises ModelFormatError with the file and the
    remedy where something is missing, malformed or of a newer format, InputError for facts that contradict gte.json.
    """
    if isinstance(path, Path) and path.is_file():
        path = open_bundle(path)
    if isinstance(path, Path) and not path.is_dir():
        raise ModelFormatError(
            f"{path} is not a model directory; give a bundled name ({', '.join(bundled_models())}), "
            "a directory, a bundle, or a Hub name like 'owner/model'"
        )
    if (path / GTE_JSON).exists():
        return _with_facts(_read_own(path), facts)
    static = static_folder(path)
    return _read_foreign(path, facts) if static is None else _read_static(path, static, facts)


def checked_file(description: ModelDir, name: str) -> ModelPath:
    """The path of a file of the directory, once its size and SHA-256 are compared with those in gte.json."""
    path = description.path / name
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; export or download the model again")
    record = description.files.get(name)
    if record is None:
        if description.files:
            raise ModelFormatError(f"{path} is not recorded in {GTE_JSON}; export the model again")
        return path
    size = path.stat().st_size
    if size != record.bytes:
        raise ModelFormatError(
            f"{path} has {size} bytes where {GTE_JSON} records {record.bytes}; "
            "it is truncated or was changed: export or download the model again"
        )
    digest = sha256_of_file(path)
    if digest != record.sha256:
        raise ModelFormatError(
            f"{path} has SHA-256 {digest} where {GTE_JSON} records {record.sha256}; "
            "it was changed: export or download the model again"
        )
    return path


def read_modules_only_in_graph(description: ModelDir) -> list[str]:
    """As `modules_only_in_graph`, of a modules.json that has its recorded hash."""
    if description.files and (description.path / MODULES_JSON).exists():
        checked_file(description, MODULES_JSON)
    return modules_only_in_graph(description.path)


def available_variants(description: ModelDir) -> dict[str, str]:
    """The variants in the directory: "fp32", "fp16" or "int8" to the path of the graph, weights or table in it."""
    if description.token_table is not None:
        return {"fp32": description.token_table} if (description.path / description.token_table).is_file() else {}
    return {variant: names[0] for variant in GRAPH_FILES if (names := variant_files(description, variant))}


def variant_files(description: ModelDir, variant: str) -> list[str]:
    """The files in the directory that hold a variant: its graphs under their known names, then weights without one."""
    names = (*GRAPH_FILES[variant], *(WEIGHT_FILES if variant == "fp32" else ()))
    return [name for name in names if (description.path / name).is_file()]


def fingerprint_of_weights(weights_sha256: str, tokenizer_sha256: str, pooling: str) -> str:
    """The fingerprint of a vector space: weights, tokenizer and pooling. All variants of one export share it."""
    identity = {"weights": weights_sha256, "tokenizer": tokenizer_sha256, "pooling": pooling}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def sha256_of_file(path: ModelPath) -> str:
    if isinstance(path, BundlePath):
        return path.sha256
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of_files(
    description: ModelDir, graph_name: str, sha256: Callable[[ModelPath], str] = sha256_of_file
) -> str:
    """The recorded fingerprint, or one made from the graph, or table, and the dense layers that are really used.

    sha256: gives that of a file; user_cache.py has one that remembers.
    """
    if description.fingerprint is not None:
        return description.fingerprint
    path = description.path
    dense = (f"{folder}/{SAFETENSORS}" for folder in description.dense)
    others = external_data_names(path, graph_name) if description.token_table is None else []
    weights = "".join(sha256(path / name) for name in (graph_name, *others, *dense))
    return fingerprint_of_weights(weights, sha256(path / description.tokenizer), description.pooling)


def write_gte_json(
    path: Path,
    *,
    name: str,
    dim: int,
    max_tokens: int,
    pooling: str,
    prompts: Mapping[str, str],
    fingerprint: str,
    licence: str,
    provenance: Mapping[str, Any],
    matryoshka_dims: Sequence[int] = (),
    int8_limits: Mapping[str, float] | None = None,
) -> ModelDir:
    """Records every file that is in the directory `path` (call it last) and returns the description, read back.

    `licence` is an SPDX expression; `provenance` says where the weights come from (source, command, versions).
    """
    names = sorted(
        entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file() and entry.name != GTE_JSON
    )
    files = {name: {"sha256": sha256_of_file(path / name), "bytes": (path / name).stat().st_size} for name in names}
    fields = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "dim": dim,
        "max_tokens": max_tokens,
        "pooling": pooling,
        "normalize": True,
        "prompts": dict(prompts),
        "fingerprint": fingerprint,
        "licence": licence,
        "provenance": dict(provenance),
        "matryoshka_dims": list(matryoshka_dims),
        **({} if int8_limits is None else {"int8_limits": dict(int8_limits)}),
        "files": files,
    }
    (path / GTE_JSON).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_model_dir(path)


def _read_own(path: ModelPath) -> ModelDir:
    file = path / GTE_JSON
    fields = read_json(file)
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{file} has format version {version!r}; this gte-sdk reads {FORMAT_VERSION}: "
            "upgrade gte-sdk or export the model again"
        )

    def checked(name: str, kind: type) -> Any:
        value = fields.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ModelFormatError(f"{file} has {name}={value!r} where a {kind.__name__} belongs")
        return value

    for name in ("dim", "max_tokens"):
        if not 1 <= checked(name, int) <= LARGEST:
            raise ModelFormatError(f"{file} has {name}={fields[name]!r:.40}; it must be from 1 to {LARGEST}")
    if checked("pooling", str) not in POOLING_MODES:
        raise ModelFormatError(f"{file} has pooling={fields['pooling']!r}; one of {POOLING_MODES} is supported")
    prompts = checked("prompts", dict)
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelFormatError(f"{file} has prompts that are not texts: {prompts!r}")
    description = ModelDir(
        path=path,
        name=checked("name", str),
        dim=checked("dim", int),
        max_tokens=checked("max_tokens", int),
        pooling=checked("pooling", str),
        normalize=checked("normalize", bool),
        prompts=prompts,
        files=dict(_file_records(file, checked("files", dict).items())),
        fingerprint=checked("fingerprint", str),
        matryoshka_dims=read_matryoshka_dims(file, fields["dim"]),
        int8_limits=read_int8_limits(file, fields),
    )
    settings = next((name for name in SENTENCE_BERT_FILES if name in description.files), None)
    if settings is None:
        return description
    return replace(description, lowercase=reads_lower_case(checked_file(description, settings)))


def _file_records(file: ModelPath, items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, FileRecord]]:
    for name, record in items:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            raise ModelFormatError(f"{file} records {name!r:.200}, which is not inside the model directory")
        if len(name) > 1024 or any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in inside.parts):
            raise ModelFormatError(f"{file} records {name!r:.200}, which no file system takes as a name")
        try:
            yield name, FileRecord(str(record["sha256"]), int(record["bytes"]))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ModelFormatError(f"{file} has a malformed record of {name!r}: {record!r}") from error


def _with_facts(description: ModelDir, facts: ModelFacts) -> ModelDir:
    """The description of an own export with the caller's prompts. Raises InputError for another pooling."""
    if facts.pooling not in (None, description.pooling):
        raise InputError(
            f"pooling={facts.pooling!r}; {description.path / GTE_JSON} records {description.pooling!r}, and the graph "
            "contains it: leave pooling out"
        )
    return replace(description, prompts=merged_prompts(description.prompts, facts))


def _read_foreign(path: ModelPath, facts: ModelFacts) -> ModelDir:
    pooled = read_pooled(path, facts.pooling)
    check_text_settings(path)
    width = read_dense(path, pooled.dense[-1]).out_features if pooled.dense else read_width(path)
    sentence_bert = sentence_bert_file(path)
    truncate_dim = read_truncate_dim(path, width)
    matryoshka_dims = read_matryoshka_dims(path / SENTENCE_TRANSFORMERS_JSON, width or LARGEST)
    if truncate_dim is not None:
        matryoshka_dims = tuple(sorted({truncate_dim, *matryoshka_dims}, reverse=True))
    return ModelDir(
        path=path,
        name=hub_name_of(path) or path.name,
        dim=width,
        max_tokens=read_max_tokens(path, facts.max_tokens),
        pooling=pooled.pooling,
        normalize=False,
        prompts=merged_prompts(read_prompts(path), facts),
        files={},
        fingerprint=None,
        matryoshka_dims=matryoshka_dims,
        dense=pooled.dense,
        why_in_graph=pooled.why_in_graph,
        pool_states=facts.pooling in POOLING_MODES,
        lowercase=sentence_bert is not None and reads_lower_case(sentence_bert),
        normalization=bert_normalization(path),
        pools_prompts=pools_prompts(path),
        truncate_dim=truncate_dim,
        similarity=read_similarity(path),
    )


def _read_static(path: ModelPath, folder: str, facts: ModelFacts) -> ModelDir:
    """A static model as sentence-transformers and model2vec publish them: a table of vectors, without a limit."""
    if facts.pooling not in (None, "mean"):
        raise InputError(f"pooling={facts.pooling!r}; {path} is a table of token vectors, of which the mean is taken")
    inside = f"{folder}/" if folder else ""
    return ModelDir(
        path=path,
        name=hub_name_of(path) or path.name,
        dim=None,
        max_tokens=LARGEST,
        pooling="mean",
        normalize=False,
        prompts=merged_prompts(read_prompts(path), facts),
        files={},
        fingerprint=None,
        matryoshka_dims=read_matryoshka_dims(path / SENTENCE_TRANSFORMERS_JSON, LARGEST),
        token_table=f"{inside}{SAFETENSORS}",
        tokenizer=f"{inside}{TOKENIZER_JSON}",
    )
