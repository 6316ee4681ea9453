"""Tiny transformers with random weights, saved as transformers saves them and traced into graphs without a pooling."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast
from transformers.utils import logging

from export.graphs.trace import write_graph
from training.encoders.encoder import Encoder

DIM = 32
WORDS = [
    "the",
    "a",
    "red",
    "green",
    "fast",
    "cafe",
    "read",
    "file",
    "python",
    "query",
    "passage",
    "search",
    "RED",
    "Cafe",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SHAPE = {
    "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "pad_token_id": 0,
}  # fmt: skip
_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bert": {**_SHAPE, "max_position_embeddings": 512},
    "xlm-roberta": {**_SHAPE, "max_position_embeddings": 513, "type_vocab_size": 1},  # one of them for padding
    "modernbert": {
        **_SHAPE, "max_position_embeddings": 512, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
        "eos_token_id": 3, "local_attention": 16,
    },
    "roberta": {**_SHAPE, "max_position_embeddings": 513, "type_vocab_size": 1},
    "camembert": {**_SHAPE, "max_position_embeddings": 513, "type_vocab_size": 1},
    "mpnet": {**_SHAPE, "max_position_embeddings": 514},  # its code takes the padding to be 1
    "distilbert": {
        "dim": DIM, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "pad_token_id": 0, "max_position_embeddings": 512,
    },
    "electra": {**_SHAPE, "max_position_embeddings": 512, "embedding_size": 16},
    "albert": {**_SHAPE, "max_position_embeddings": 512, "embedding_size": 16, "bos_token_id": 2, "eos_token_id": 3},
    "deberta-v2": {
        **_SHAPE, "max_position_embeddings": 512, "type_vocab_size": 0, "relative_attention": True,
        "position_buckets": 8, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
    },
    "nomic_bert": {**_SHAPE, "max_position_embeddings": 512},
    "qwen3": {**_SHAPE, "max_position_embeddings": 512, "num_key_value_heads": 2, "head_dim": 8},
}  # fmt: skip


_TRACED_FROM_VERSION_5 = ("qwen3", "deberta-v2")


class Transformer(NamedTuple):
    directory: Path
    """config.json, model.safetensors and the tokenizer."""
    graph: Path
    """With the output last_hidden_state only, as conversions of transformers write it."""


@pytest.fixture(autouse=True, scope="session")
def small_process() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def tiny_tokenizer(cased: bool = True) -> PreTrainedTokenizerFast:
    pieces = [
        *SPECIAL,
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=tokenizer, model_max_length=512, model_input_names=["input_ids", "attention_mask"], **names
    )


@pytest.fixture(scope="session")
def make_transformer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Transformer]:
    """A function that makes the transformer of an architecture, once."""
    made: dict[str, Transformer] = {}

    def make(architecture: str) -> Transformer:
        is_old = transformers.__version__.startswith("4.") and architecture in _TRACED_FROM_VERSION_5
        if is_old or architecture not in transformers.CONFIG_MAPPING:
            pytest.skip(f"transformers {transformers.__version__} has no class for it, or none that is traced")
        if architecture not in made:
            torch.manual_seed(5)
            directory = tmp_path_factory.mktemp(architecture)
            tokenizer = tiny_tokenizer()
            fields = {**_CONFIGURATIONS[architecture], "vocab_size": len(tokenizer)}
            configuration = AutoConfig.for_model(architecture, **fields)
            backbone = AutoModel.from_config(configuration).eval()  # type: ignore[no-untyped-call]
            for parameter in backbone.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.2)
            backbone.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            graph = directory / "graph.onnx"
            write_graph(Encoder(backbone, "mean", 512), graph)
            keep_output(graph, "last_hidden_state")
            made[architecture] = Transformer(directory, graph)
        return made[architecture]

    return make


def keep_output(graph: Path, name: str) -> None:
    model = onnx.load(str(graph))
    for output in [output for output in model.graph.output if output.name != name]:
        model.graph.output.remove(output)
    onnx.save(model, str(graph))


def write_conversion(transformer: Transformer, directory: Path) -> Path:
    """A graph, its tokenizer and config.json, as the scripts of transformers.js and optimum write a conversion."""
    (directory / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(transformer.directory / name, directory / name)
    shutil.copy(transformer.graph, directory / "onnx" / "model.onnx")
    return directory
