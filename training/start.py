"""What a run starts from: the encoder and the tokenizer that a recipe names, loaded, or made from nothing.

Everything here depends on the recipe, its seed and the sources only, so a resumed run starts from the same weights.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from gte_sdk.tokens import load_tokenizer, pad_token_id
from training.embed import embed_token_ids
from training.encoder import (
    AnyEncoder,
    Encoder,
    StaticEncoder,
    random_encoder,
    random_static_encoder,
    special_token_ids,
)
from training.encoder_files import load_encoder, resolve_directory
from training.pairs import Source
from training.recipe import EncoderRecipe

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENIZER_PAIRS = 20_000


def start_tokenizer(recipe: EncoderRecipe, sources: Sequence[Source], directory: Path) -> Path:
    """The directory of the run's tokenizer; where the recipe names none, one is made in `directory`."""
    if recipe.tokenizer or recipe.start:
        return resolve_directory(recipe.tokenizer or recipe.start)
    vocabulary = recipe.architecture.vocabulary if recipe.architecture else 30522
    if not (directory / "tokenizer.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        config = {"tokenizer_class": "BertTokenizer", "model_max_length": recipe.max_tokens, "mask_token": "[MASK]"}
        (directory / "tokenizer_config.json").write_text(json.dumps({**config, **names}, indent=2) + "\n")
        partial = directory / "tokenizer.partial"
        _made_tokenizer(sources, vocabulary).save(str(partial))
        partial.replace(directory / "tokenizer.json")
    return directory


def start_encoder(recipe: EncoderRecipe, tokenizer: Tokenizer, seed: int, attention: str = "sdpa") -> AnyEncoder:
    """The encoder before the first step. `attention` is the one that it will train with."""
    # transformers 4 cannot change it later. Of the others, which some backbones have not, prepare_model speaks.
    attention_at_start = "eager" if attention == "eager" and recipe.kind == "transformer" else None
    torch.manual_seed(seed)
    make = _loaded_encoder if recipe.start else _random_encoder
    encoder = make(recipe, tokenizer, attention_at_start)
    if recipe.dropout >= 0:
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
            for name in ("dropout_prob", "attention_dropout"):  # a number where fused attention drops out itself
                if isinstance(getattr(module, name, None), int | float):
                    setattr(module, name, recipe.dropout)
    if recipe.freeze_token_embeddings:
        token_embeddings(encoder).weight.requires_grad_(False)
    return encoder


def token_embeddings(encoder: AnyEncoder) -> nn.Embedding:
    if isinstance(encoder, StaticEncoder):
        return encoder.embedding
    embeddings: nn.Embedding = encoder.backbone.get_input_embeddings()  # type: ignore[operator]
    return embeddings


def static_from_transformer(encoder: Encoder, tokenizer: Tokenizer, dim: int, max_tokens: int) -> StaticEncoder:
    """A static encoder from what a transformer says of each token alone (model2vec's recipe).

    Each token's vector is the transformer's of [CLS] token [SEP], projected on the `dim` principal components of them
    all. Its weight is log(1 + its number), because word-piece vocabularies are sorted by frequency (Zipf).
    """
    first, *_, last = tokenizer.encode("").ids
    token_count = tokenizer.get_vocab_size()
    vectors_VE = embed_token_ids(
        encoder, [[first, token, last] for token in range(token_count)], pad_token_id(tokenizer)
    )
    if dim > vectors_VE.shape[1]:
        raise ValueError(f"dim={dim} exceeds the {vectors_VE.shape[1]} dimensions of the encoder to start from")
    weights_V = torch.log1p(torch.arange(token_count, dtype=torch.float32))
    return StaticEncoder(
        _principal_components(vectors_VE, dim), special_token_ids(tokenizer), weights_V / weights_V.mean(), max_tokens
    )


def _loaded_encoder(recipe: EncoderRecipe, tokenizer: Tokenizer, attention: str | None) -> AnyEncoder:
    encoder = load_encoder(recipe.start, None if recipe.kind == "static" else recipe.max_tokens, attention)
    if recipe.kind == "static" and isinstance(encoder, Encoder):
        return static_from_transformer(encoder, tokenizer, recipe.dim, recipe.max_tokens)
    if recipe.kind == "transformer" and isinstance(encoder, StaticEncoder):
        raise ValueError(f"encoder.start = {recipe.start!r} is a static encoder, but encoder.kind is transformer")
    return encoder


def _random_encoder(recipe: EncoderRecipe, tokenizer: Tokenizer, attention: str | None) -> AnyEncoder:
    vocabulary_size = tokenizer.get_vocab_size()
    if recipe.kind == "static":
        return random_static_encoder(vocabulary_size, recipe.dim, special_token_ids(tokenizer), recipe.max_tokens)
    architecture = recipe.architecture
    assert architecture is not None, "load_recipe checks it"
    configuration = {
        "model_type": "bert",
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden,
        "num_attention_heads": architecture.heads,
        "intermediate_size": architecture.feed_forward,
        "max_position_embeddings": architecture.positions,
        "pad_token_id": pad_token_id(tokenizer),
    }
    return random_encoder(configuration, vocabulary_size, recipe.max_tokens, attention)


def _principal_components(vectors_VE: Tensor, dim: int) -> Tensor:
    centred_VE = vectors_VE.double() - vectors_VE.double().mean(dim=0)
    _, directions_EE = torch.linalg.eigh(centred_VE.T @ centred_VE)  # eigenvalues ascending
    components_VD: Tensor = centred_VE @ directions_EE.flip(1)[:, :dim]
    return components_VD.float()


def _made_tokenizer(sources: Sequence[Source], vocabulary: int) -> Tokenizer:
    """An uncased word-piece tokenizer of BERT's kind over up to TOKENIZER_PAIRS pairs of each source.

    Every character, the most frequent words, and for the words left over the pieces that save most tokens. The trainers
    of `tokenizers` are not used because their result differs from run to run.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for source in sources:
        for index in range(min(len(source), TOKENIZER_PAIRS)):
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


def _most_common(counts: Counter[str], limit: int) -> list[str]:
    """At most `limit` keys, equal counts in alphabetical order."""
    return sorted(counts, key=lambda key: (-counts[key], key))[: max(0, limit)]


def load_start(
    recipe: EncoderRecipe, tokenizer_directory: Path, seed: int, attention: str = "sdpa"
) -> tuple[Tokenizer, AnyEncoder]:
    """Tokenizer and encoder of a run."""
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    return tokenizer, start_encoder(recipe, tokenizer, seed, attention)
