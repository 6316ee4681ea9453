"""Reads and writes an encoder as a directory in the layout of sentence-transformers.

A written directory loads in sentence-transformers and in transformers. Reading takes configuration and safetensors
only: no pickle and no remote code. A module that cannot be rebuilt exactly is an error; none is skipped.
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gte_sdk.errors import HubError, ModelFormatError
from gte_sdk.model_files.directory import SPECIAL_TOKENS_JSON, TOKENIZER_JSON
from gte_sdk.model_files.hub.hub_errors import explain_failure
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    MODULES_JSON,
    PLAIN,
    POOLING_JSON,
    POOLING_KEYS,
    SENTENCE_BERT_JSON,
    SENTENCE_TRANSFORMERS_JSON,
    TOKENIZER_CONFIG_JSON,
    read_json,
    read_matryoshka_dims,
    read_modules,
    read_pooling,
    read_prompts,
)
from gte_sdk.model_files.text_settings import (
    bert_normalization,
    check_text_settings,
    read_max_tokens,
    reads_lower_case,
    sentence_bert_file,
)
from gte_sdk.runtime.text_tokenizer import obey_bert_settings, obey_other_settings, put_lower_case_first
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.configuration import build_configuration
from training.encoders.encoder import (
    SPECIAL_TOKEN_WEIGHT,
    AnyEncoder,
    Encoder,
    Pooling,
    StaticEncoder,
    find_special_token_ids,
)

STATIC_MODEL_TYPE = "gte_static"
# The folder of the encoder in a training run and in each of its checkpoints.
MODEL = "model"
TOKENIZER_FILES = (
    TOKENIZER_JSON,
    TOKENIZER_CONFIG_JSON,
    SPECIAL_TOKENS_JSON,
    "vocab.txt",
)
_READ_PATTERNS = ["*.json", "*.safetensors", "vocab.txt", "*/config.json", "*/model.safetensors"]
_MODULE_ORDER = re.compile(r"(Transformer( Pooling)?( Dense)*|StaticEmbedding)( Normalize)?")
# The class of the encoder alone, in architectures that decode as well.
_ENCODER_HALVES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
# Constants that older versions of transformers saved with the weights.
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
}


def resolve_directory(directory_or_hub_name: str | Path) -> Path:
    """The directory itself if it exists, otherwise the Hub's snapshot of that name, in the Hugging Face cache.

    A value that looks like a path is never sent to the Hub; it raises ModelFormatError. Raises HubError if the Hub does
    not deliver.
    """
    path = Path(directory_or_hub_name).expanduser()
    if path.is_dir():
        return path
    name = str(directory_or_hub_name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelFormatError(f"{name} is not a directory; give one, or a Hub name such as thenlper/gte-small")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_READ_PATTERNS))
    except Exception as error:  # HTTP, connection, time-out, disk and validation errors share no base
        raise HubError(f"encoder {name} {explain_failure(error, name)}") from error


def load_encoder(
    directory_or_hub_name: str | Path,
    max_tokens: int | None = None,
    attention: str | None = None,
    pooling: Pooling = "mean",
) -> AnyEncoder:
    """An encoder from a Hugging Face or sentence-transformers directory, or from the Hub by name.

    1_Pooling/config.json or the table of known models gives the pooling, `pooling` that of a directory without either.
    Vectors always have unit length, even if modules.json has no Normalize: the cosine is the same either way. Weights
    are float32. `max_tokens` overrides the directory's limit. `attention` is the backbone's implementation, such as
    "eager"; None lets transformers choose.

    Raises ModelFormatError for a directory without safetensors weights, or with a pooling or module that is not
    supported.
    """
    directory = resolve_directory(directory_or_hub_name)
    check_text_settings(directory)
    max_tokens = max_tokens or read_max_tokens(directory)
    prompts = read_prompts(directory)
    modules = read_modules(directory)
    kinds = [kind for kind, _ in modules]
    if unknown := set(kinds) - {"Transformer", "StaticEmbedding", "Pooling", "Dense", "Normalize"}:
        raise ModelFormatError(
            f"{directory / MODULES_JSON} has a module {unknown.pop()}; Transformer, StaticEmbedding, "
            "Pooling, Dense and Normalize are supported"
        )
    if kinds and not _MODULE_ORDER.fullmatch(" ".join(kinds)):
        raise ModelFormatError(
            f"{directory / MODULES_JSON} has the modules {', '.join(kinds)} in this order; supported are "
            "Transformer, Pooling, any number of Dense, Normalize, and StaticEmbedding, Normalize"
        )
    if kinds[:1] == ["StaticEmbedding"]:
        return _set_matryoshka_dims(_read_static(directory, max_tokens, prompts), directory)
    dense = [layer for kind, path in modules if kind == "Dense" for layer in _read_dense(directory / path)]
    pooling = read_pooling(directory) or pooling  # type: ignore[assignment]
    layers = nn.Sequential(*dense) if dense else None
    backbone = _read_backbone(directory, attention)
    return _set_matryoshka_dims(Encoder(backbone, pooling, max_tokens, layers, prompts), directory)


def _set_matryoshka_dims(encoder: AnyEncoder, directory: Path) -> AnyEncoder:
    file = directory / SENTENCE_TRANSFORMERS_JSON
    encoder.matryoshka_dims = read_matryoshka_dims(file, encoder.dim)
    return encoder


def write_encoder(encoder: AnyEncoder, tokenizer_directory: Path, directory: Path) -> None:
    """Writes the encoder and a copy of the tokenizer's files into `directory`, which is created if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer_directory / name).is_file():
            shutil.copyfile(tokenizer_directory / name, directory / name)
    tokenizer_json = directory / TOKENIZER_JSON
    if tokenizer_json.is_file():
        # Without the truncation and padding that whoever saved it last used: StaticEmbedding would obey them.
        tokenizer = {**_read_tokenizer(tokenizer_directory), "truncation": None, "padding": None}
        compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
        tokenizer_json.write_text(compact + "\n", encoding="utf-8")
    tokenizer_config = directory / TOKENIZER_CONFIG_JSON
    if tokenizer_config.is_file():
        _write_json(tokenizer_config, {**read_json(tokenizer_config), "model_max_length": encoder.max_tokens})
    if isinstance(encoder, StaticEncoder):
        kinds = _write_static(encoder, directory)
    else:
        kinds = _write_transformer(encoder, directory)
    modules = []
    for index, (kind, path) in enumerate([*kinds, ("Normalize", f"{len(kinds)}_Normalize")]):
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
        (directory / path).mkdir(exist_ok=True)
    _write_json(directory / MODULES_JSON, modules)
    _write_json(directory / SENTENCE_BERT_JSON, {"max_seq_length": encoder.max_tokens, "do_lower_case": False})
    _write_json(
        directory / SENTENCE_TRANSFORMERS_JSON,
        {
            "__version__": {},
            "prompts": encoder.prompts,
            "default_prompt_name": PLAIN if PLAIN in encoder.prompts else None,
            "similarity_fn_name": "cosine",
            "matryoshka_dims": list(encoder.matryoshka_dims),  # our own key; sentence-transformers ignores it
        },
    )


def _read_tokenizer(directory: Path) -> dict[str, Any]:
    """The content of tokenizer.json, as the other settings of the directory change it."""
    settings = sentence_bert_file(directory)
    lowercase = settings is not None and reads_lower_case(settings)
    tokenizer = load_tokenizer(directory / TOKENIZER_JSON)
    is_other = False
    if (directory / CONFIG_JSON).is_file():
        is_other = obey_bert_settings(tokenizer, bert_normalization(directory))
        is_other |= obey_other_settings(tokenizer, directory)
    if not (lowercase or is_other):
        return read_json(directory / TOKENIZER_JSON)
    if lowercase:
        put_lower_case_first(tokenizer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def _read_backbone(path: Path, attention: str | None) -> nn.Module:
    import transformers
    from transformers.utils import logging

    configuration = build_configuration(path)
    model_class = getattr(transformers, _ENCODER_HALVES.get(configuration.model_type, "AutoModel"))

    if not any(path.glob("*.safetensors")):
        raise ModelFormatError(
            f"{path} has no model.safetensors; convert the weights with save_pretrained, see docs/training.md "
            "(pickled weights are not read)"
        )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # our own error reports missing weights
    try:
        backbone, info = model_class.from_pretrained(
            path,
            config=configuration,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))  # the pooler is not used
    if missing or info["mismatched_keys"]:
        wrong = [*missing, *map(str, info["mismatched_keys"])]
        raise ModelFormatError(f"{path}: its weights lack {len(wrong)} tensors of its config.json, first {wrong[0]}")
    if unused := _unused_tensors(backbone, info["unexpected_keys"]):
        raise ModelFormatError(
            f"{path}: {type(backbone).__name__} of transformers has no use for {len(unused)} tensors of the weights, "
            f"first {unused[0]}, so it computes another model than theirs"
        )
    loaded: nn.Module = backbone
    return loaded


def _unused_tensors(backbone: Any, unexpected: Iterable[str]) -> list[str]:
    """The tensors inside the backbone's own modules that it does not use. Heads for other tasks are beside them."""
    modules = {name for name, _ in backbone.named_children()} - {"pooler"}
    names = [name.removeprefix(f"{backbone.base_model_prefix}.") for name in unexpected]
    return sorted(name for name in names if name.split(".")[0] in modules and not name.endswith(_BUFFERS))


def _read_static(path: Path, max_tokens: int, prompts: dict[str, str]) -> StaticEncoder:
    weights_file = path / "model.safetensors"
    if not weights_file.is_file():
        raise ModelFormatError(f"{weights_file} is missing; a static encoder keeps its token table there")
    weights = load_file(weights_file)
    table_VD = weights.get("embedding.weight", weights.get("embeddings"))
    if table_VD is None:
        raise ModelFormatError(f"{weights_file} has no tensor embedding.weight but {', '.join(sorted(weights))}")
    special_ids = find_special_token_ids(load_tokenizer(path / TOKENIZER_JSON))
    config_file = path / CONFIG_JSON
    special_scale = read_json(config_file).get("special_token_weight") if config_file.is_file() else None
    if special_scale is not None:  # the table was written by us, with the special rows scaled down
        table_VD[special_ids] /= special_scale
    return StaticEncoder(table_VD, special_ids, max_tokens=max_tokens, prompts=prompts)


def _read_dense(path: Path) -> list[nn.Module]:
    config = read_json(path / "config.json")
    if not (path / "model.safetensors").is_file():
        raise ModelFormatError(f"{path / 'model.safetensors'} is missing; the Dense layer keeps its weights there")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise ModelFormatError(f"{path}: a Dense layer with {activation} (or a residual) is not supported")
    for key in ("module_input_name", "module_output_name"):
        if (name := config.get(key)) not in (None, "sentence_embedding"):
            raise ModelFormatError(f"{path}: a Dense layer with {key}={name!r} is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = load_file(path / "model.safetensors")
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    return [linear, _ACTIVATIONS[activation]()]


def _write_transformer(encoder: Encoder, directory: Path) -> list[tuple[str, str]]:
    encoder.backbone.save_pretrained(directory)  # type: ignore[operator]
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    (directory / "1_Pooling").mkdir(exist_ok=True)
    _write_json(
        directory / POOLING_JSON,
        {
            "word_embedding_dimension": int(encoder.backbone.config.hidden_size),  # type: ignore[union-attr, arg-type]
            **{key: mode == encoder.pooling for key, mode in POOLING_KEYS.items()},
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
    """Folds the token weights into the table: when read again they are 1, and the vectors are the same."""
    save_file({"embedding.weight": encoder.fold_table().cpu().contiguous()}, directory / "model.safetensors")
    config = {"model_type": STATIC_MODEL_TYPE, "hidden_size": encoder.dim, "special_token_weight": SPECIAL_TOKEN_WEIGHT}
    _write_json(directory / "config.json", config)
    return [("StaticEmbedding", "")]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
