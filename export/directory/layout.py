"""The files of a model directory beside its graphs: configuration, tokenizer, sentence-transformers' modules, gte.json.

`training.encoders.encoder_files` writes the layout. Here it is prepared for publication: without weights, which are in
the graphs, without paths of this machine, and with one token limit for every reader.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gte_sdk.atomic_file import replace_whole
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import GTE_JSON, SPECIAL_TOKENS_JSON, TOKENIZER_JSON, sha256_of_file
from gte_sdk.model_files.published import CONFIG_JSON, MODULES_JSON, POOLING_JSON, TOKENIZER_CONFIG_JSON, read_json
from training.encoders.configuration import read_configuration
from training.encoders.encoder import AnyEncoder, StaticEncoder
from training.encoders.encoder_files import write_encoder

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def write_layout(encoder: AnyEncoder, source: Path, directory: Path) -> None:
    """Writes everything but the graphs, parity.json, card and gte.json. `source` has the tokenizer's files."""
    if not (source / TOKENIZER_JSON).is_file():
        raise ModelFormatError(f"{source / TOKENIZER_JSON} is missing; save the fast tokenizer with save_pretrained")
    write_encoder(encoder, source, directory)
    for weights in directory.glob("*.safetensors*"):
        weights.unlink()
    if isinstance(encoder, StaticEncoder):
        _describe_static(encoder, directory)
    else:
        # The source's own fields, because older versions of transformers cannot always read what this one writes.
        config = read_configuration(source)
        config.pop("_name_or_path", None)
        write_json(directory / CONFIG_JSON, config)
    _write_tokenizer(directory, encoder.max_tokens)


def hash_weights(encoder: AnyEncoder) -> str:
    """SHA-256 over the shapes and values of all weights, whatever their names and order."""
    digests = sorted(
        hashlib.sha256(f"{tuple(tensor.shape)}".encode() + tensor.detach().float().numpy().tobytes()).digest()
        for tensor in encoder.parameters()
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def name_source(source: str, source_name: str | None) -> str:
    """The source's name in the card and in gte.json: a Hub name as it is, only the last part of a directory."""
    if source_name:
        return source_name
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def write_json(path: Path, value: Any) -> None:
    with replace_whole(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def update_gte_json(
    directory: Path, fields: Mapping[str, Any] | None = None, record: Sequence[str] = (), forget: Sequence[str] = ()
) -> None:
    """Changes the gte.json of a model directory: sets `fields`, and records or forgets the hashes of some files."""
    description = {**read_json(directory / GTE_JSON), **(fields or {})}
    files = {name: entry for name, entry in description["files"].items() if name not in forget}
    for name in record:
        files[name] = {"sha256": sha256_of_file(directory / name), "bytes": (directory / name).stat().st_size}
    write_json(directory / GTE_JSON, {**description, "files": dict(sorted(files.items()))})


def measure_size(directory: Path) -> int:
    """Bytes of all files below the directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _describe_static(encoder: StaticEncoder, directory: Path) -> None:
    """Describes a token table as a BERT without layers and with mean pooling, which other ONNX readers can open.

    The graph gives last_hidden_state as theirs do, and its mean is our vector. transformers has no type for a table,
    and sentence-transformers' StaticEmbedding reads no ONNX, so none of them could open a type of our own.
    """
    config = {
        "model_type": "bert",
        "num_hidden_layers": 0,
        "hidden_size": encoder.dim,
        "vocab_size": encoder.embedding.num_embeddings,
        "max_position_embeddings": encoder.max_tokens,
    }
    write_json(directory / CONFIG_JSON, config)
    pooling = {"word_embedding_dimension": encoder.dim, "pooling_mode_mean_tokens": True, "include_prompt": True}
    (directory / "1_Normalize").rmdir()
    modules = []
    for index, (kind, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))):
        (directory / path).mkdir(exist_ok=True)
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
    write_json(directory / POOLING_JSON, pooling)
    write_json(directory / MODULES_JSON, modules)


def _write_tokenizer(directory: Path, max_tokens: int) -> None:
    """Writes the files that transformers reads beside tokenizer.json, with the token limit where readers look."""
    (directory / "vocab.txt").unlink(missing_ok=True)  # tokenizer.json has it

    file = directory / TOKENIZER_CONFIG_JSON
    config: dict[str, Any] = read_json(file) if file.is_file() else {"tokenizer_class": "PreTrainedTokenizerFast"}
    config["model_max_length"] = max_tokens
    config.pop("name_or_path", None)
    write_json(file, config)
    if not (directory / SPECIAL_TOKENS_JSON).is_file():
        write_json(directory / SPECIAL_TOKENS_JSON, {key: config[key] for key in _SPECIAL_TOKENS if key in config})
