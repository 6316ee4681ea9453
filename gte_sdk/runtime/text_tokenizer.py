"""A model's tokenizer as the Embedder uses it: the tokenizers library, with the C++ tokenizer for many texts."""

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.processors import Sequence as ProcessorSequence

from gte_sdk.checks import check_count
from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.directory import ModelDir, checked_file
from gte_sdk.runtime.text_pieces import PIECE_CHARACTERS, TextPieces
from gte_sdk.runtime.tokens import SpecialTokens, TokenizedTexts, load_tokenizer, special_tokens_around, tokenize
from gte_sdk.runtime.word_pieces import WordPieces, normalizer_steps, word_pieces_of

# With at least this many texts it pays to use the C++ tokenizer, which takes 10 ms to create.
WORD_PIECES_TEXTS = 16


def load_text_tokenizer(description: ModelDir) -> "TextTokenizer":
    """The tokenizer of a model directory, which does to a text what sentence-transformers does to it.

    That is lower case first where sentence_bert_config.json has do_lower_case, and no special tokens in a static model.
    """
    tokenizer = load_tokenizer(checked_file(description, description.tokenizer))
    if description.lowercase:
        put_lower_case_first(tokenizer)
    if description.token_table is not None:
        tokenizer.post_processor = ProcessorSequence([])  # type: ignore[assignment, unused-ignore]
    return TextTokenizer(tokenizer)


def put_lower_case_first(tokenizer: Tokenizer) -> None:
    """Lets a tokenizer that does not do so itself begin with lower case."""
    if not any(
        step.get("type") == "Lowercase" or step.get("lowercase") is True for step in normalizer_steps(tokenizer)
    ):
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = NormalizerSequence([Lowercase(), *own])  # type: ignore[assignment, unused-ignore]


class TextTokenizer:
    """Keeps the C++ tokenizer, once it is needed. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special_token_count: int = tokenizer.num_special_tokens_to_add(False)

    @cached_property
    def special_tokens(self) -> SpecialTokens:
        return special_tokens_around(self.tokenizer)

    def tokenize(self, texts: Sequence[str], max_tokens: int, prompt: str, threads: int) -> TokenizedTexts:
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
