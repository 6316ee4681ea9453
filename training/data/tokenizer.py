"""Word-piece tokenizers from training texts: a new one, or an existing one with more words."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from gte_sdk.runtime.word_pieces import SPLIT_CASE
from training.data.pairs import Source
from training.recipes.recipe import RecipeError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MADE_OF_PAIRS = 20_000  # of each source, at most
EXTENDED_BY_PAIRS, TEXT_CHARACTERS = 5_000, 4_000
_UNUSED = re.compile(r"\[unused\d+\]")
_WORD = re.compile(r"[a-z][a-z0-9]+")


def make_tokenizer(sources: Sequence[Source], vocabulary: int) -> Tokenizer:
    """An uncased word-piece tokenizer of BERT's kind over up to MADE_OF_PAIRS pairs of each source.

    It has every character, the most frequent words, and the pieces that save most tokens in all other words. The
    trainers of `tokenizers` are not used because their results differ from run to run.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for source in sources:
        for index in range(min(len(source), MADE_OF_PAIRS)):
            for text in source[index][:2]:
                normal = tokenizer.normalizer.normalize_str(text)
                words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    characters = sorted({character for word in words for character in word})
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)])
    tokens.update(dict.fromkeys(_most_common(words, (vocabulary - len(tokens)) * 3 // 4)))
    saved: Counter[str] = Counter()
    for word, count in words.items():
        if word not in tokens:
            for start in range(len(word)):
                for end in range(start + 2, min(len(word), start + 8) + 1):
                    saved[f"{'##' if start else ''}{word[start:end]}"] += count * (end - start - 1)
    tokens.update(dict.fromkeys(_most_common(saved, vocabulary - len(tokens))))
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer.model = models.WordPiece(numbers, unk_token="[UNK]")
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")]
    )
    return tokenizer


def extend_tokenizer(tokenizer: Tokenizer, sources: Sequence[Source], words: int, split_case: bool) -> Tokenizer:
    """The uncased word-piece tokenizer with the `words` most common words of the sources that it does not have yet.

    New words first take the places of BERT's [unused] tokens; every other token keeps its id. `split_case` cuts
    identifiers into words: createdAt becomes created At.
    """
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "WordPiece" or not (state["normalizer"] or {}).get("lowercase"):
        kinds = f"{state['model']['type']} with the normalizer {(state['normalizer'] or {}).get('type')}"
        raise RecipeError(f"encoder.added_words and split_case are for an uncased BERT tokenizer; this is {kinds}")
    if split_case:
        state["normalizer"] = {"type": "Sequence", "normalizers": [SPLIT_CASE, state["normalizer"]]}
    vocabulary: dict[str, int] = state["model"]["vocab"]
    normalizer = Tokenizer.from_str(json.dumps(state)).normalizer
    added = _common_words(sources, normalizer, vocabulary, words) if words else []
    tokens = {number: token for token, number in vocabulary.items()}
    free = sorted(number for number, token in tokens.items() if _UNUSED.fullmatch(token))
    tokens.update(zip(itertools.chain(free, itertools.count(len(vocabulary))), added, strict=False))
    state["model"]["vocab"] = {token: number for number, token in sorted(tokens.items())}
    return Tokenizer.from_str(json.dumps(state))


def _common_words(
    sources: Sequence[Source], normalizer: normalizers.Normalizer, known: Container[str], limit: int
) -> list[str]:
    """Words that are not `known`, by the sum over sources of the square root of their counts: common to many first."""
    scores: Counter[str] = Counter()
    for source in sources:
        counts: Counter[str] = Counter()
        for index in range(min(len(source), EXTENDED_BY_PAIRS)):
            for text in source[index][:2]:
                counts.update(_WORD.findall(normalizer.normalize_str(text[:TEXT_CHARACTERS])))
        for word, count in counts.items():
            if word not in known:
                scores[word] += count**0.5
    return _most_common(scores, limit)


def _most_common(counts: Counter[str], limit: int) -> list[str]:
    """At most `limit` keys, equal counts in alphabetical order."""
    return sorted(counts, key=lambda key: (-counts[key], key))[: max(0, limit)]
