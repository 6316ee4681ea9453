"""Tiny real checkpoints with random weights, one for each architecture that export supports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from export.parity.measure import PARITY_TEXTS, read_corpus
from training.encoders.encoder import Encoder, Pooling, make_random_encoder, make_random_static_encoder
from training.encoders.encoder_files import write_encoder

VOCABULARY = 400
MAX_TOKENS = 48
DIM = 32

_BERT_SHAPE = {
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS,
}
_OFFSET_SHAPE = {**_BERT_SHAPE, "max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 0}
_ROBERTA_SHAPE = {**_OFFSET_SHAPE, "type_vocab_size": 1}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bert": _BERT_SHAPE,
    "roberta": _ROBERTA_SHAPE,
    "xlm-roberta": _ROBERTA_SHAPE,
    "camembert": _ROBERTA_SHAPE,
    "mpnet": _OFFSET_SHAPE,
    "distilbert": {"dim": DIM, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": MAX_TOKENS},
    "electra": {**_BERT_SHAPE, "embedding_size": 16},
    "gte": {**_BERT_SHAPE, "type_vocab_size": 1, "pad_token_id": 0},
    "nomic_bert": {**_BERT_SHAPE, "pad_token_id": 0},
    "eurobert": {**_BERT_SHAPE, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    "modernbert": {
        **_BERT_SHAPE,
        "num_hidden_layers": 4,  # three of them look at a window of 8 tokens only, every third at all
        "local_attention": 8,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
}

CheckpointMaker = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def small_process() -> None:
    torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-piece tokenizer trained on the parity texts, with all of transformers' files."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [text for text in read_corpus(PARITY_TEXTS)[:200] if text.isascii()]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    directory = tmp_path_factory.mktemp("tokenizer")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"]  # what all architectures have
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, model_input_names=inputs, **names
    )
    fast.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function that writes a sentence-transformers directory of an architecture; "static" is the token table.

    `shape` is the configuration of an architecture that is not in CONFIGURATIONS.
    """

    def make(
        architecture: str = "bert",
        pooling: Pooling = "mean",
        dense: nn.Sequential | None = None,
        prompts: dict[str, str] | None = None,
        shape: dict[str, Any] | None = None,
    ) -> Path:
        torch.manual_seed(7)
        directory = tmp_path_factory.mktemp(architecture)
        if architecture == "static":
            static = make_random_static_encoder(VOCABULARY, DIM, [2, 3], max_tokens=MAX_TOKENS)
            write_encoder(static, tokenizer_directory, directory)
            return directory
        configuration = {"model_type": architecture, **(shape or CONFIGURATIONS[architecture])}
        backbone = make_random_encoder(configuration, VOCABULARY, MAX_TOKENS).backbone
        for name, parameter in backbone.named_parameters():
            if parameter.dim() > 1:  # trained weights are larger than a fresh model's: tokens have to tell texts apart
                nn.init.normal_(parameter, std=0.4 if "embeddings" in name else 0.15)
        write_encoder(Encoder(backbone, pooling, MAX_TOKENS, dense, prompts), tokenizer_directory, directory)
        return directory

    return make


@pytest.fixture(scope="session")
def bert_checkpoint(make_checkpoint: CheckpointMaker) -> Path:
    return make_checkpoint("bert")
