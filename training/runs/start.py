"""What a run starts from: the encoder and the tokenizer that a recipe names, loaded or made from scratch.

The result depends only on the recipe, its seed and the sources, so a resumed run starts from the same weights.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from gte_sdk.atomic_file import replace_whole
from gte_sdk.runtime.tokens import load_tokenizer, pad_token_id, special_tokens_around
from training.data.pairs import Source
from training.data.tokenizer import extend_tokenizer, make_tokenizer
from training.encoders.embed import embed_token_ids
from training.encoders.encoder import (
    AnyEncoder,
    Encoder,
    StaticEncoder,
    find_special_token_ids,
    make_random_encoder,
    make_random_static_encoder,
)
from training.encoders.encoder_files import load_encoder, resolve_directory
from training.recipes.recipe import Architecture, EncoderRecipe, RecipeError


def prepare_tokenizer(recipe: EncoderRecipe, sources: Sequence[Source], directory: Path) -> Path:
    """The directory of the run's tokenizer. A tokenizer that the recipe does not name, or extends, is written to
    `directory`."""
    named = resolve_directory(recipe.tokenizer or recipe.start) if recipe.tokenizer or recipe.start else None
    if named and not recipe.added_words and not recipe.split_case:
        return named
    if not (directory / "tokenizer.json").is_file():
        if named:
            base = load_tokenizer(named / "tokenizer.json")
            tokenizer = extend_tokenizer(base, sources, recipe.added_words, recipe.split_case)
        else:
            tokenizer = make_tokenizer(sources, recipe.architecture.vocabulary if recipe.architecture else 30522)
        directory.mkdir(parents=True, exist_ok=True)
        names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        # transformers 5 rebuilds a BertTokenizer from its vocabulary and drops the rest of tokenizer.json.
        kind = "PreTrainedTokenizerFast" if named else "BertTokenizer"
        config = {"tokenizer_class": kind, "model_max_length": recipe.max_tokens, "mask_token": "[MASK]"}
        (directory / "tokenizer_config.json").write_text(json.dumps({**config, **names}, indent=2) + "\n")
        with replace_whole(directory / "tokenizer.json") as file:
            file.write(tokenizer.to_str(pretty=True).encode())
    return directory


def make_start_encoder(recipe: EncoderRecipe, tokenizer: Tokenizer, seed: int, attention: str = "sdpa") -> AnyEncoder:
    """The encoder before the first step. `attention` is the implementation that it will train with."""
    # transformers 4 cannot switch to eager later. prepare_model reports a kind that the backbone does not have.
    attention_at_start = "eager" if attention == "eager" and recipe.kind == "transformer" else None
    torch.manual_seed(seed)
    make = _load_start_encoder if recipe.start else _make_random_start
    encoder = make(recipe, tokenizer, attention_at_start)
    if recipe.dropout >= 0:
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
            for name in ("dropout_prob", "attention_dropout"):  # numbers that fused attention reads
                if isinstance(getattr(module, name, None), int | float):
                    setattr(module, name, recipe.dropout)
    if recipe.freeze_token_embeddings:
        token_embeddings(encoder).weight.requires_grad_(False)
    return encoder


@contextmanager
def freeze_layers(encoder: AnyEncoder, count: int) -> Iterator[None]:
    """The `count` lowest layers and the embeddings below them get no gradients inside; 0: all is as it was."""
    modules = [*_find_embedding_modules(encoder), *find_layers(encoder)[:count]] if count else []
    frozen = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    yield
    for parameter in frozen:
        parameter.requires_grad_(True)


def find_layers(encoder: AnyEncoder) -> list[nn.Module]:
    """The layers of the backbone, the lowest first: its longest list of modules. A static encoder has none."""
    if isinstance(encoder, StaticEncoder):
        return []
    lists = [module for module in encoder.backbone.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def _find_embedding_modules(encoder: AnyEncoder) -> list[nn.Module]:
    """What of the backbone comes before its layers: token, position and segment tables and their norm."""
    backbone = encoder if isinstance(encoder, StaticEncoder) else encoder.backbone
    return [module for name, module in backbone.named_children() if name.startswith("embedding")]


def token_embeddings(encoder: AnyEncoder) -> nn.Embedding:
    if isinstance(encoder, StaticEncoder):
        return encoder.embedding
    embeddings: nn.Embedding = encoder.backbone.get_input_embeddings()  # type: ignore[operator]
    return embeddings


def distil_static_encoder(
    encoder: Encoder,
    own_tokenizer: Tokenizer,
    tokenizer: Tokenizer,
    dim: int,
    max_tokens: int,
    keep_space: bool = False,
) -> StaticEncoder:
    """A static encoder of `tokenizer`, from a transformer's vectors of single tokens (model2vec's method).

    A token's vector is the transformer's vector of [CLS] token [SEP] less the mean of all of them, projected on their
    `dim` principal components, or cut to its first `dim` dimensions (`keep_space`). A word that `own_tokenizer`, the
    transformer's, does not have is read in pieces. A token's weight is log(1 + its number), because word-piece
    vocabularies are sorted by frequency (Zipf). A word that the transformer does not have weighs as much as the last of
    its vocabulary.
    """
    before, after = special_tokens_around(own_tokenizer)
    own_vocabulary = own_tokenizer.get_vocab()
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    known = [own_vocabulary.get(token) for token, _ in tokens]
    ids = [
        own_tokenizer.encode(token).ids if number is None else [*before, number, *after]
        for (token, _), number in zip(tokens, known, strict=True)
    ]
    vectors_VE = embed_token_ids(encoder, ids, pad_token_id(own_tokenizer))
    if dim > vectors_VE.shape[1]:
        raise ValueError(f"dim={dim} exceeds the {vectors_VE.shape[1]} dimensions of the encoder to start from")
    ranks = [len(own_vocabulary) if number is None else number for number in known]
    weights_V = torch.log1p(torch.tensor(ranks, dtype=torch.float32))
    centred_VE = vectors_VE.double() - vectors_VE.double().mean(dim=0)
    table_VD = (centred_VE if keep_space else _turn_to_principal_components(centred_VE))[:, :dim].float()
    special_ids = find_special_token_ids(tokenizer)
    return StaticEncoder(table_VD, special_ids, weights_V / weights_V.mean(), max_tokens)


def _load_start_encoder(recipe: EncoderRecipe, tokenizer: Tokenizer, attention: str | None) -> AnyEncoder:
    encoder = load_encoder(recipe.start, None if recipe.kind == "static" else recipe.max_tokens, attention)
    if recipe.kind == "static" and isinstance(encoder, Encoder):
        own_tokenizer = load_tokenizer(resolve_directory(recipe.start) / "tokenizer.json")
        return distil_static_encoder(
            encoder, own_tokenizer, tokenizer, recipe.dim, recipe.max_tokens, recipe.keep_space
        )
    if recipe.kind == "transformer" and isinstance(encoder, StaticEncoder):
        raise RecipeError(f"encoder.start = {recipe.start!r} is a static encoder, but encoder.kind is transformer")
    if isinstance(encoder, StaticEncoder) and (recipe.added_words or recipe.split_case or recipe.keep_space):
        raise RecipeError(
            f"encoder.start = {recipe.start!r} is a static encoder; added_words, split_case and keep_space need a "
            "transformer"
        )
    return encoder


def _make_random_start(recipe: EncoderRecipe, tokenizer: Tokenizer, attention: str | None) -> AnyEncoder:
    vocabulary_size = tokenizer.get_vocab_size()
    if recipe.kind == "static":
        special_ids = find_special_token_ids(tokenizer)
        return make_random_static_encoder(vocabulary_size, recipe.dim, special_ids, recipe.max_tokens)
    architecture = recipe.architecture
    assert architecture is not None, "load_recipe checks it"
    configuration = describe_architecture(architecture, pad_token_id(tokenizer))
    return make_random_encoder(configuration, vocabulary_size, recipe.max_tokens, attention)


def describe_architecture(architecture: Architecture, pad_id: int) -> dict[str, Any]:
    """The fields of transformers' configuration."""
    return {
        "model_type": "bert",
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden,
        "num_attention_heads": architecture.heads,
        "intermediate_size": architecture.feed_forward,
        "max_position_embeddings": architecture.positions,
        "pad_token_id": pad_id,
    }


def _turn_to_principal_components(centred_VE: Tensor) -> Tensor:
    """The rows in the axes of their principal components, the largest first."""
    _, directions_EE = torch.linalg.eigh(centred_VE.T @ centred_VE)  # eigenvalues ascending
    turned_VE: Tensor = centred_VE @ directions_EE.flip(1)
    return turned_VE


def load_start(
    recipe: EncoderRecipe, tokenizer_directory: Path, seed: int, attention: str = "sdpa"
) -> tuple[Tokenizer, AnyEncoder]:
    """The tokenizer and the encoder of a run before the first step."""
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    return tokenizer, make_start_encoder(recipe, tokenizer, seed, attention)
