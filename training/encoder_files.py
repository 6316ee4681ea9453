"""An encoder as a directory: the sentence-transformers layout, read and written.

Written directories load in sentence-transformers and in transformers as they are. Reading takes configuration and
safetensors only: no pickle, no remote code; a module that we cannot rebuild exactly is an error, never skipped.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gte_sdk.errors import ModelFormatError
from gte_sdk.tokens import load_tokenizer
from training.encoder import (
    POOLING_MODES,
    SPECIAL_TOKEN_WEIGHT,
    AnyEncoder,
    Encoder,
    Pooling,
    StaticEncoder,
    special_token_ids,
)

STATIC_MODEL_TYPE = "gte_static"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_READ_PATTERNS = ["*.json", "*.safetensors", "vocab.txt", "*/config.json", "*/model.safetensors"]
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
}


def resolve_directory(directory_or_hub_name: str | Path) -> Path:
    """The directory itself where it exists, otherwise the Hub's snapshot of that name (in the Hugging Face cache).

    A value that looks like a path is never asked for on the Hub.
    """
    path = Path(directory_or_hub_name).expanduser()
    if path.is_dir():
        return path
    name = str(directory_or_hub_name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelFormatError(f"{name} is no directory; give one, or a Hub name such as thenlper/gte-small")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=_READ_PATTERNS))


def read_encoder(directory: Path, max_tokens: int | None = None) -> AnyEncoder:
    """The encoder in a directory; see training.encoder.load_encoder."""
    sentence_config = _read_json(directory / "sentence_bert_config.json") or {}
    max_tokens = max_tokens or sentence_config.get("max_seq_length")
    prompts = (_read_json(directory / "config_sentence_transformers.json") or {}).get("prompts") or {}
    modules = _read_modules(directory)
    if modules and modules[0][0] == "StaticEmbedding":
        return _read_static(directory / modules[0][1], max_tokens, prompts)
    pooling: Pooling = "mean"
    dense: list[nn.Module] = []
    backbone_path = directory
    for kind, path in modules:
        if kind == "Transformer":
            backbone_path = directory / path
        elif kind == "Pooling":
            pooling = _read_pooling(directory / path / "config.json")
        elif kind == "Dense":
            dense += _read_dense(directory / path)
        elif kind != "Normalize":
            raise ModelFormatError(
                f"{directory / 'modules.json'} has a module {kind}; Transformer, StaticEmbedding, Pooling, Dense and "
                "Normalize are supported"
            )
    return Encoder(
        _read_backbone(backbone_path), pooling, max_tokens, nn.Sequential(*dense) if dense else None, prompts
    )


def write_encoder(encoder: AnyEncoder, tokenizer_directory: Path, directory: Path) -> None:
    """Writes the encoder and copies the tokenizer's files into `directory`, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer_directory / name).is_file():
            shutil.copyfile(tokenizer_directory / name, directory / name)
    if isinstance(encoder, StaticEncoder):
        kinds = _write_static(encoder, directory)
    else:
        kinds = _write_transformer(encoder, directory)
    modules = []
    for index, (kind, path) in enumerate([*kinds, ("Normalize", f"{len(kinds)}_Normalize")]):
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
        (directory / path).mkdir(exist_ok=True)
    _write_json(directory / "modules.json", modules)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": encoder.max_tokens, "do_lower_case": False})
    _write_json(
        directory / "config_sentence_transformers.json",
        {"__version__": {}, "prompts": encoder.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _read_backbone(path: Path) -> nn.Module:
    from transformers import AutoModel

    if not (path / "config.json").is_file():
        raise ModelFormatError(f"{path / 'config.json'} is missing; a transformers model directory has one")
    if not any(path.glob("*.safetensors")):
        raise ModelFormatError(
            f"{path} has no model.safetensors; convert the weights with save_pretrained (pickled weights are not read)"
        )
    backbone: nn.Module = AutoModel.from_pretrained(
        path, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, attn_implementation="sdpa"
    )
    return backbone


def _read_static(path: Path, max_tokens: int | None, prompts: dict[str, str]) -> StaticEncoder:
    weights_file = path / "model.safetensors"
    if not weights_file.is_file():
        raise ModelFormatError(f"{weights_file} is missing; a static encoder keeps its token table there")
    weights = load_file(weights_file)
    table_VD = weights.get("embedding.weight", weights.get("embeddings"))
    if table_VD is None:
        raise ModelFormatError(f"{weights_file} has no tensor embedding.weight but {', '.join(sorted(weights))}")
    special_ids = special_token_ids(load_tokenizer(path / "tokenizer.json"))
    special_scale = (_read_json(path / "config.json") or {}).get("special_token_weight")
    if special_scale is not None:  # the table was written by us, with the special rows scaled down
        table_VD[special_ids] /= special_scale
    return StaticEncoder(table_VD, special_ids, max_tokens=max_tokens or 512, prompts=prompts)


def _read_modules(directory: Path) -> list[tuple[str, str]]:
    """(kind, path) of each module, the kind being the class name at the end of `type`."""
    return [
        (str(entry["type"]).rsplit(".", 1)[-1], entry["path"]) for entry in _read_json(directory / "modules.json") or []
    ]


def _read_pooling(path: Path) -> Pooling:
    config = _read_json(path)
    if config is None:
        raise ModelFormatError(f"{path} is missing, though modules.json names it")
    named = {"cls_token": "cls", "mean_tokens": "mean"}
    flags = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "mode" in key]
    modes = config.get("pooling_mode") or [named.get(flag, flag) for flag in flags]
    if isinstance(modes, list):
        modes = modes[0] if len(modes) == 1 else "+".join(modes)
    if modes not in POOLING_MODES:
        raise ModelFormatError(f"{path} pools by {modes}; supported are {', '.join(POOLING_MODES)}")
    pooling: Pooling = modes
    return pooling


def _read_dense(path: Path) -> list[nn.Module]:
    config = _read_json(path / "config.json")
    if config is None or not (path / "model.safetensors").is_file():
        raise ModelFormatError(f"{path} needs config.json and model.safetensors, as modules.json names it")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise ModelFormatError(f"{path}: a Dense layer with {activation} (or a residual) is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = load_file(path / "model.safetensors")
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    return [linear, _ACTIVATIONS[activation]()]


def _write_transformer(encoder: Encoder, directory: Path) -> list[tuple[str, str]]:
    encoder.backbone.save_pretrained(directory)  # type: ignore[operator]
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    names = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    (directory / "1_Pooling").mkdir(exist_ok=True)
    _write_json(
        directory / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": int(encoder.backbone.config.hidden_size),  # type: ignore[union-attr, arg-type]
            **{f"pooling_mode_{name}": mode == encoder.pooling for mode, name in names.items()},
            "include_prompt": True,
        },
    )
    layers = list(encoder.dense or ())
    for linear, activation in zip(layers[::2], layers[1::2], strict=True):
        assert isinstance(linear, nn.Linear)
        path = f"{len(kinds)}_Dense"
        kinds.append(("Dense", path))
        (directory / path).mkdir(exist_ok=True)
        config = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
        }
        _write_json(directory / path / "config.json", config)
        tensors = {f"linear.{name}": tensor.contiguous() for name, tensor in linear.state_dict().items()}
        save_file(tensors, directory / path / "model.safetensors")
    return kinds


def _write_static(encoder: StaticEncoder, directory: Path) -> list[tuple[str, str]]:
    """The token weights are folded into the table: read again they are one, and the vectors are the same."""
    save_file({"embedding.weight": encoder.folded_table().cpu().contiguous()}, directory / "model.safetensors")
    config = {"model_type": STATIC_MODEL_TYPE, "hidden_size": encoder.dim, "special_token_weight": SPECIAL_TOKEN_WEIGHT}
    _write_json(directory / "config.json", config)
    return [("StaticEmbedding", "")]


def _read_json(path: Path) -> Any:
    """The parsed file, or None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
