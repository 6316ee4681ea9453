"""How much of a text a published model reads, and how: settings beside its tokenizer.json.

sentence-transformers has its own file, whose name depends on its age and the architecture; transformers has
tokenizer_config.json. A setting that changes the tokens of a text is obeyed or refused.
"""

from collections.abc import Mapping
from typing import Any

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    LARGEST,
    SENTENCE_BERT_JSON,
    TOKENIZER_CONFIG_JSON,
    ModelPath,
    is_size,
    known_of,
    read_json,
)

# sentence-transformers takes the first of these that exists.
SENTENCE_BERT_FILES = (
    SENTENCE_BERT_JSON,
    *(
        f"sentence_{kind}_config.json"
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
# Its arguments for the classes of transformers, by their newer and older names, and those that leave the vectors alone.
_ARGUMENTS = ("model_kwargs", "model_args", "config_kwargs", "config_args", "processor_kwargs", "tokenizer_args")
_HARMLESS = (
    "torch_dtype", "dtype", "attn_implementation", "low_cpu_mem_usage", "add_pooling_layer", "use_safetensors",
    "device_map", "trust_remote_code", "use_memory_efficient_attention", "unpad_inputs", "use_fast", "padding_side",
    "model_max_length",
)  # fmt: skip
_TOKENIZER_ARGUMENTS = _ARGUMENTS[4:]
_TASK, _STATES = "feature-extraction", "last_hidden_state"
_OTHER_OUTPUTS = ("transformer_task", "modality_config", "module_output_name")
# transformers' classes with the settings of BERT's tokenizer, without "Tokenizer" and "Fast", or their model types.
_BERT_TOKENIZERS = ("bert", "distilbert", "mpnet", "electra", "mobilebert", "convbert", "squeezebert", "layoutlm")
# Those of byte-level BPE, which go before tokenizer.json with their own add_prefix_space.
_BYTE_LEVEL_TOKENIZERS = ("roberta", "longformer", "deberta", "gpt2", "bart", "led")
# Of SentencePiece: settings, what transformers takes for a missing one, and the step that tokenizer.json then has, or
# not ("-"). Version 5 of transformers follows the settings, and version 4 the file.
_STEPS: Mapping[str, tuple[tuple[str, bool, str], ...]] = {
    "albert": (("do_lower_case", True, "Lowercase"), ("keep_accents", False, "-StripAccents")),
    "debertav2": (("do_lower_case", False, "Lowercase"), ("split_by_punct", False, "Punctuation")),
}
# What sentence-transformers does to some texts only, and late interaction and decoders to theirs.
_OTHER_READING = ("processing_kwargs", "query_length", "document_length", "query_expansion")
_POSITION_KEYS = ("max_position_embeddings", "n_positions")
# The positions of these are angles, also where config.json leaves their base at its default.
_ROTARY_POSITIONS = ("modernbert", "gte", "new")
# RoBERTa and its relatives number positions from the one behind that of padding, which is 1 if config.json is silent.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


def sentence_bert_file(path: ModelPath) -> ModelPath | None:
    """The file with sentence-transformers' own settings of the transformer, or None."""
    return next((path / name for name in SENTENCE_BERT_FILES if (path / name).is_file()), None)


def reads_lower_case(sentence_bert: ModelPath) -> bool:
    """Whether sentence-transformers' own settings say that texts are put into lower case before all else."""
    return read_json(sentence_bert).get("do_lower_case") is True


def first_position(config: Mapping[str, Any]) -> int:
    """The row of the position table for the first token of a text. transformers' code of MPNet knows one padding."""
    kind, padding = config.get("model_type"), config.get("pad_token_id", 1)
    if kind not in _OFFSET_POSITIONS:
        return 0
    return padding + 1 if kind != "mpnet" and type(padding) is int and 0 <= padding <= LARGEST else 2


def read_max_tokens(path: ModelPath, asked: int | None = None) -> int:
    """The most tokens that sentence-transformers would read of a text.

    Its own file says it, else the table of known models, else the smaller of config.json's and the tokenizer's limit. A
    table of positions ends where it ends. If nothing says it, it is `asked`. Raises ModelFormatError without that.
    """
    config = read_json(path / CONFIG_JSON)
    file = sentence_bert_file(path)
    settings = read_json(file) if file else {}
    arguments = [settings.get(name) or {} for name in _TOKENIZER_ARGUMENTS]
    own = next((each["model_max_length"] for each in arguments if "model_max_length" in each), None)
    own = settings.get("max_seq_length") if own is None else own
    if own is not None and (type(own) is not int or own < 1):
        raise ModelFormatError(f"{file} says that the model reads {own!r:.80} tokens of a text; write a number above 0")
    of_tokenizer = tokenizer_settings(path).get("model_max_length")
    positions = _position_count(config)
    known = known_of(path)
    limits = [own] if is_size(own) else [known.max_tokens] if known else [positions, of_tokenizer]
    if positions is not None and _has_position_table(config):
        limits.append(positions - first_position(config))
    limit = min((limit for limit in limits if is_size(limit)), default=asked)
    if limit is None:
        raise ModelFormatError(
            f"{path / CONFIG_JSON} has no max_position_embeddings, and {SENTENCE_BERT_JSON} no max_seq_length: nothing "
            "says how many tokens the model reads; pass max_tokens= (--max-tokens), as the model card says"
        )
    return limit


def check_text_settings(path: ModelPath) -> None:
    """Refuses settings of a published directory that change what is read of a text and that gte-sdk does not obey."""
    file = sentence_bert_file(path)
    settings = read_json(file) if file else {}
    for name in _ARGUMENTS:
        arguments = settings.get(name) or {}
        if not isinstance(arguments, dict) or set(arguments) - set(_HARMLESS):
            raise ModelFormatError(
                f"{file} has {name}={arguments!r:.200}, which may change the vectors; it cannot be run: take a model "
                "whose config.json says it"
            )
    if asked := [name for name in _OTHER_READING if settings.get(name)]:
        raise ModelFormatError(
            f"{file} has {asked[0]}={settings[asked[0]]!r:.200}, which changes what is read of a text, and which "
            "gte-sdk does not obey; it cannot be run"
        )
    text = settings.get("modality_config", {"text": {}})
    how = text.get("text") if isinstance(text, dict) else None
    if (
        not isinstance(how, dict)
        or how.get("method", "forward") != "forward"
        or how.get("method_output_name", _STATES) != _STATES
        or settings.get("transformer_task", _TASK) != _TASK
        or settings.get("module_output_name", "token_embeddings") != "token_embeddings"
    ):
        said = {name: settings[name] for name in _OTHER_OUTPUTS if name in settings}
        raise ModelFormatError(
            f"{file} takes something else from the transformer than the states of a text's tokens, {said!r:.300}; it "
            "cannot be run"
        )
    tokenizer = tokenizer_settings(path)
    if tokenizer.get("truncation_side", "right") != "right":
        raise ModelFormatError(
            f"{path / TOKENIZER_CONFIG_JSON} has truncation_side={tokenizer['truncation_side']!r}: the model reads the "
            "ends of long texts, and gte-sdk their beginnings; it cannot be run"
        )
    if tokenizer.get("split_special_tokens") is True:
        raise ModelFormatError(
            f"{path / TOKENIZER_CONFIG_JSON} has split_special_tokens=true: names of special tokens inside of a text "
            "are read as words, and by gte-sdk as these tokens; it cannot be run"
        )
    sides = [tokenizer, *(settings.get(name) or {} for name in _TOKENIZER_ARGUMENTS)]
    if any(each.get("padding_side") == "left" for each in sides):
        refuse_left_padding(path, TOKENIZER_CONFIG_JSON)


def refuse_left_padding(path: ModelPath, name: str) -> None:
    """Refuses padding on the left, which the file `name` asks for, where it changes the positions of a text's tokens.

    Positions that are angles or distances do not change by it, so that padding on the right gives the same vectors.
    """
    config = read_json(path / CONFIG_JSON)
    if _position_count(config) is not None and _has_position_table(config):
        raise ModelFormatError(
            f"{path / name} pads on the left a model whose positions are rows of a table, so that its vectors depend "
            "on the other texts of a batch; it cannot be run"
        )


def tokenizer_settings(path: ModelPath) -> dict[str, Any]:
    """The fields of tokenizer_config.json; none without that file."""
    file = path / TOKENIZER_CONFIG_JSON
    return read_json(file) if file.is_file() else {}


def bert_normalization(path: ModelPath) -> dict[str, Any] | None:
    """The settings of BertNormalizer that transformers takes from tokenizer_config.json and not from tokenizer.json.

    It does so for the tokenizers of BERT's family, where the settings default to those of lower case. None for others.
    """
    settings = tokenizer_settings(path)
    if _tokenizer_kind(path) not in _BERT_TOKENIZERS:
        return None
    return {
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        "strip_accents": settings.get("strip_accents"),
        "lowercase": settings.get("do_lower_case", True),
    }


def prefix_space(path: ModelPath) -> bool | None:
    """Whether transformers puts a space before a text, for its classes of byte-level BPE. None for others."""
    if _tokenizer_kind(path) not in _BYTE_LEVEL_TOKENIZERS:
        return None
    return tokenizer_settings(path).get("add_prefix_space") is True


def expected_steps(path: ModelPath) -> list[tuple[str, str, bool]]:
    """Setting, step, and whether tokenizer.json must have the step, where versions of transformers differ."""
    settings = tokenizer_settings(path)
    return [
        (name, step.removeprefix("-"), (settings.get(name, default) is True) != step.startswith("-"))
        for name, default, step in _STEPS.get(_tokenizer_kind(path), ())
    ]


def _tokenizer_kind(path: ModelPath) -> str:
    """transformers' class of the tokenizer, without "Tokenizer" and "Fast", or the model type: "bert", "debertav2"."""
    kind = tokenizer_settings(path).get("tokenizer_class") or read_json(path / CONFIG_JSON).get("model_type")
    return str(kind).removesuffix("Fast").removesuffix("Tokenizer").lower().replace("-", "")


def _position_count(config: Mapping[str, Any]) -> int | None:
    return next((config[key] for key in _POSITION_KEYS if is_size(config.get(key))), None)


def _has_position_table(config: Mapping[str, Any]) -> bool:
    """Whether positions are rows of a table, not angles or distances, which have no end."""
    other = config.get("model_type") in _ROTARY_POSITIONS or any("rope" in key or "rotary" in key for key in config)
    return config.get("position_embedding_type", "absolute") == "absolute" and not other
