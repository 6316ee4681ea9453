"""A model's tokenizer as the Embedder uses it: the tokenizers library, with the C++ tokenizer for many texts."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.processors import Sequence as ProcessorSequence

from gte_sdk.checks import check_count
from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file
from gte_sdk.model_files.published import TOKENIZER_CONFIG_JSON
from gte_sdk.model_files.text_settings import refuse_left_padding, tokenizer_settings
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


def load_text_tokenizer(description: ModelDir) -> "TextTokenizer":
    """The tokenizer of a model directory, which does to a text what sentence-transformers does to it.

    That is lower case first where sentence_bert_config.json has do_lower_case, and no special tokens in a static model.
    """
    file = checked_file(description, description.tokenizer)
    tokenizer = read_tokenizer(file)
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
    if (tokenizer.truncation or {}).get("direction") == "left":
        raise ModelFormatError(f"{file} cuts long texts at their beginning, and gte-sdk at their end; it cannot be run")
    if (tokenizer.padding or {}).get("direction") == "left":
        refuse_left_padding(description.path, description.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()  # to a length that the file names
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
