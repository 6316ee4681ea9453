"""A model's tokenizer as the Embedder uses it: the tokenizers library, with the C++ tokenizer for many texts."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import Sequence as ProcessorSequence

from gte_sdk.checks import check_count
from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file
from gte_sdk.model_files.published import TOKENIZER_CONFIG_JSON, ModelPath
from gte_sdk.model_files.text_settings import expected_steps, prefix_space, refuse_left_padding, tokenizer_settings
from gte_sdk.runtime.text_pieces import PIECE_CHARACTERS, TextPieces
from gte_sdk.runtime.tokens import (
    SpecialTokens,
    TokenizedTexts,
    read_tokenizer,
    special_tokens_around,
    tokenize,
    tokenizer_errors,
)
from gte_sdk.runtime.word_pieces import WordPieces, normalizer_steps, word_pieces_of

# With at least this many texts it pays to use the C++ tokenizer, which takes 10 ms to create.
WORD_PIECES_TEXTS = 16
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE_TOKENS = ("additional_special_tokens", "extra_special_tokens")


def load_text_tokenizer(description: ModelDir) -> "TextTokenizer":
    """The tokenizer of a model directory, which does to a text what sentence-transformers does to it.

    That is lower case first where sentence_bert_config.json has do_lower_case, and no special tokens in a static model.
    """
    if not description.files and not (description.path / description.tokenizer).is_file():
        raise ModelFormatError(
            f"{description.path / description.tokenizer} is missing; transformers makes it from other files of a "
            "tokenizer: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    tokenizer = read_tokenizer(checked_file(description, description.tokenizer))
    if not description.files and description.token_table is None:
        _obey_settings(tokenizer, description)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if description.lowercase:
        put_lower_case_first(tokenizer)
    if description.token_table is not None:
        tokenizer.post_processor = ProcessorSequence([])  # type: ignore[assignment, unused-ignore]
    return TextTokenizer(tokenizer, description.pools_prompts)


def _obey_settings(tokenizer: Tokenizer, description: ModelDir) -> None:
    """Does to a published tokenizer what transformers does to it, or refuses it.

    Raises ModelFormatError for a tokenizer of which gte-sdk would make other inputs than transformers.
    """
    file = description.path / description.tokenizer
    obey_bert_settings(tokenizer, description.normalization)
    obey_other_settings(tokenizer, description.path)
    if (tokenizer.truncation or {}).get("direction") == "left":
        raise ModelFormatError(f"{file} cuts long texts at their beginning, and gte-sdk at their end; it cannot be run")
    if (tokenizer.padding or {}).get("direction") == "left":
        refuse_left_padding(description.path, description.tokenizer)
    segments: set[int] = set()
    with suppress(ModelFormatError), tokenizer_errors(str(file)):  # whoever embeds a text is told
        segments = set(tokenizer.encode("a").type_ids)
    if segments - {0}:
        raise ModelFormatError(
            f"{file} gives a text's tokens the segments {sorted(segments)}; gte-sdk passes 0 only, so it cannot be run"
        )
    settings = tokenizer_settings(description.path)
    asked = [name for name in ("add_bos_token", "add_eos_token") if settings.get(name) is True]
    added: int = tokenizer.num_special_tokens_to_add(False)
    if added < len(asked):
        raise ModelFormatError(
            f"{description.path / TOKENIZER_CONFIG_JSON} asks for {' and '.join(asked)}, and {file} adds "
            f"{added} tokens to a text: versions of transformers differ in which of them they follow; save "
            "the tokenizer again with the tokens in tokenizer.json"
        )


def obey_bert_settings(tokenizer: Tokenizer, normalization: Mapping[str, Any] | None) -> bool:
    """Gives BERT's normalizer the settings that transformers would give it. Returns whether that changed it."""
    own: Any = tokenizer.normalizer
    if normalization is None or not isinstance(own, BertNormalizer):
        return False
    if all(getattr(own, name) == value for name, value in normalization.items()):
        return False
    tokenizer.normalizer = BertNormalizer(own.clean_text, **normalization)  # type: ignore[assignment, unused-ignore]
    return True


def obey_other_settings(tokenizer: Tokenizer, path: ModelPath) -> bool:
    """Does what else transformers takes from tokenizer_config.json: a first space, and the tokens inside of a text.

    Returns whether that changed the tokenizer. Raises ModelFormatError for settings that transformers' versions differ
    in, and for tokens that are malformed.
    """
    own: Any = tokenizer.pre_tokenizer
    for name, step, is_expected in expected_steps(path) if isinstance(tokenizer.model, Unigram) else ():
        steps = f"{normalizer_steps(tokenizer)} {'' if own is None else own.__getstate__().decode()}"
        if (step in steps) != is_expected:
            raise ModelFormatError(
                f"{path / TOKENIZER_CONFIG_JSON} and tokenizer.json differ in {name}, and versions of transformers in "
                "which of them they follow; save the tokenizer again"
            )
    space = prefix_space(path)
    is_other = isinstance(own, ByteLevel) and space not in (None, own.add_prefix_space)
    if is_other:
        tokenizer.pre_tokenizer = ByteLevel(space, own.trim_offsets, own.use_regex)  # type: ignore[arg-type]
    return _add_tokens(tokenizer, path) or is_other


def _add_tokens(tokenizer: Tokenizer, path: ModelPath) -> bool:
    """Adds the tokens of tokenizer_config.json that tokenizer.json lacks or has with other flags, as transformers does.

    They are what a text may contain by name, such as "<pad>". Returns whether there were any.
    """
    settings = tokenizer_settings(path)
    own = tokenizer.get_added_tokens_decoder().values()
    try:
        listed = sorted((settings.get("added_tokens_decoder") or {}).items(), key=lambda entry: int(entry[0]))
        tokens = [_token_of(fields) for _, fields in listed]
        values = [value for value in map(settings.get, _NAMED_TOKENS) if value is not None]
        for name in _MORE_TOKENS:
            more = settings.get(name) or []
            if not isinstance(more, list | dict):
                raise TypeError(name)
            values += more.values() if isinstance(more, dict) else more
        named = [_token_of(value) for value in values]
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelFormatError(f"{path / TOKENIZER_CONFIG_JSON} has tokens that are none: {error!r}") from error
    known = {repr(token) for token in own}
    others = [token for token in tokens if repr(token) not in known]
    contents = {token.content for token in (*own, *tokens)}
    for token in named:
        if token.content not in contents:
            others.append(token)
            contents.add(token.content)
    with tokenizer_errors(f"{path / TOKENIZER_CONFIG_JSON} has tokens that cannot be added"):
        tokenizer.add_tokens(others)
    return bool(others)


def _token_of(value: Any) -> AddedToken:
    """A token of tokenizer_config.json: its text, which makes it a special one, or its fields."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    fields = {key: flag for key, flag in value.items() if key != "__type"}
    return AddedToken(fields.pop("content"), **fields)


def put_lower_case_first(tokenizer: Tokenizer) -> None:
    """Lets a tokenizer that does not do so itself begin with lower case."""
    if not any(
        step.get("type") == "Lowercase" or step.get("lowercase") is True for step in normalizer_steps(tokenizer)
    ):
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = NormalizerSequence([Lowercase(), *own])  # type: ignore[assignment, unused-ignore]


class TextTokenizer:
    """Keeps the C++ tokenizer, once it is needed. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, takes_prompts: bool = True) -> None:
        """takes_prompts: False for a model that leaves the tokens of a prompt out of its pooling."""
        self.tokenizer = tokenizer
        self._takes_prompts = takes_prompts
        self.special_token_count: int = tokenizer.num_special_tokens_to_add(False)

    @cached_property
    def special_tokens(self) -> SpecialTokens:
        return special_tokens_around(self.tokenizer)

    def tokenize(self, texts: Sequence[str], max_tokens: int, prompt: str, threads: int) -> TokenizedTexts:
        if prompt and not self._takes_prompts:
            raise InputError(
                f"prompt={prompt!r:.80}; the model leaves a prompt's tokens out of its pooling (include_prompt=false), "
                "which gte-sdk does not do: leave the prompt out"
            )
        is_much = len(texts) >= WORD_PIECES_TEXTS or any(len(text) > PIECE_CHARACTERS for text in texts)
        word_pieces = self._word_pieces if is_much else None
        text_pieces = self.text_pieces if is_much else None
        return tokenize(self.tokenizer, texts, max_tokens, prompt, word_pieces, threads, text_pieces)

    @cached_property
    def text_pieces(self) -> TextPieces:
        return TextPieces(self.tokenizer)

    def check_limit(self, max_tokens: int | None, most: int) -> int:
        """`max_tokens`, by default `most`, if a text of that many tokens has room for more than special tokens."""
        if most <= self.special_token_count:
            raise ModelFormatError(
                f"the model reads {most} tokens, {self.special_token_count} of them special; export the model again"
            )
        if max_tokens is None:
            return most
        return check_count("max_tokens", max_tokens, least=self.special_token_count + 1, most=most)

    @cached_property
    def _word_pieces(self) -> WordPieces | None:
        return word_pieces_of(self.tokenizer, self.special_tokens)
