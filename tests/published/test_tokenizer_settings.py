"""What a published tokenizer reads of a text, against transformers: the same ids, or a refusal before the weights."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from gte_sdk import ModelFormatError
from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.model_files.published import ModelFacts
from gte_sdk.runtime.text_tokenizer import load_text_tokenizer
from training.encoders.encoder_files import _read_tokenizer

from .conftest import tiny_tokenizer

LIMIT = 24
TEXTS = [
    "read a file", " the red", "", "the [PAD] file", "[PAD]", "read <pad> the <mask> file", "a [MASK] b [D] c",
    "RED [D]",
    "\u00c9t\u00e9, fast.", "red " * 40,
]  # fmt: skip
Write = Callable[[Path], dict[str, Any]]
"""Writes tokenizer.json into a folder, and gives the fields of tokenizer_config.json."""


def word_pieces(truncation: bool = False, **fields: Any) -> Write:
    def write(path: Path) -> dict[str, Any]:
        tokenizer: Tokenizer = tiny_tokenizer().backend_tokenizer
        if truncation:  # of whoever saved it last; the model's own limit counts
            tokenizer.enable_truncation(5)
            tokenizer.enable_padding(length=16, pad_id=1, pad_token="[UNK]", pad_to_multiple_of=8)
        tokenizer.save(str(path / "tokenizer.json"))
        return {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", **fields}

    return write


def byte_level(first_space: bool, **fields: Any) -> Write:
    def write(path: Path) -> dict[str, Any]:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "\u0120r", "re", "ed"]
        vocabulary = {piece: place for place, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(vocabulary, [("\u0120", "r"), ("r", "e"), ("e", "d")]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(first_space)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=first_space)
        tokenizer.add_special_tokens([*special[:4], AddedToken("<mask>", lstrip=True, special=True)])
        tokenizer.save(str(path / "tokenizer.json"))
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        return {"tokenizer_class": "RobertaTokenizer", **names, **fields}

    return write


def with_segments(path: Path) -> dict[str, Any]:
    """As Funnel and XLNet have them, whose first or last token is a segment of its own."""
    tokenizer: Tokenizer = tiny_tokenizer().backend_tokenizer
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS]:2 $A:0 [SEP]:0", special_tokens=special)
    tokenizer.save(str(path / "tokenizer.json"))
    return {"tokenizer_class": "FunnelTokenizer"}


def sentence_pieces(*steps: str, **fields: Any) -> Write:
    def write(path: Path) -> dict[str, Any]:
        scores = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("\u2581", -2.0)]
        scores += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
        tokenizer = Tokenizer(models.Unigram(scores, 1, False))
        known: dict[str, list[Any]] = {
            "accents": [normalizers.NFKD(), normalizers.StripAccents()],
            "lower": [normalizers.Lowercase()],
        }
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        tokenizer.normalizer = normalizers.Sequence([*quotes, *(each for step in steps for each in known[step])])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("\u2581", "always")]
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.add_special_tokens(["<pad>", "<unk>", "[CLS]", "[SEP]"])
        tokenizer.save(str(path / "tokenizer.json"))
        return {"tokenizer_class": "AlbertTokenizer", "mask_token": "[MASK]", **fields}

    return write


def publish(path: Path, write: Write) -> Path:
    fields = {**write(path), "model_max_length": LIMIT}
    (path / "tokenizer_config.json").write_text(json.dumps(fields))
    config = {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": LIMIT}
    (path / "config.json").write_text(json.dumps(config))
    return path


def load(path: Path) -> Any:
    return load_text_tokenizer(read_model_dir(path, ModelFacts(pooling="mean")))


MASK = {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}


@pytest.mark.parametrize(
    "write",
    [
        word_pieces(),
        word_pieces(truncation=True),
        word_pieces(added_tokens_decoder={"4": {**MASK, "special": True}}),
        word_pieces(mask_token={"__type": "AddedToken", **MASK, "lstrip": False}),
        word_pieces(mask_token="<mask>"),
        word_pieces(pad_token="<pad>"),
        word_pieces(additional_special_tokens=["[D]"]),
        byte_level(False),
        byte_level(True),
        byte_level(False, add_prefix_space=True),
        byte_level(True, add_prefix_space=True),
        byte_level(True, tokenizer_class="RobertaTokenizerFast", add_prefix_space=False),
        sentence_pieces("accents", "lower"),
        sentence_pieces("lower", keep_accents=True),
        sentence_pieces("accents", do_lower_case=False),
    ],
    ids=[
        "plain", "sections", "flags", "no flags", "other mask", "other padding", "more", "bytes", "obeys false",
        "obeys true", "first space", "fast", "albert", "accents", "cased",
    ],
)  # fmt: skip
def test_the_ids_are_those_of_transformers(tmp_path: Path, write: Write) -> None:
    path = publish(tmp_path, write)
    theirs = AutoTokenizer.from_pretrained(path)(TEXTS, truncation=True, max_length=LIMIT)["input_ids"]
    assert load(path).tokenize(TEXTS, LIMIT, "", 1).ids == theirs
    # An export writes a tokenizer.json that needs no settings beside it.
    exported = Tokenizer.from_str(json.dumps({**_read_tokenizer(path), "truncation": None, "padding": None}))
    ids = [encoding.ids[: LIMIT - 1] for encoding in exported.encode_batch(TEXTS)]
    assert ids == [each[: LIMIT - 1] for each in theirs]


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (word_pieces(split_special_tokens=True), "split_special_tokens=true"),
        (word_pieces(added_tokens_decoder={"4": {"text": "[MASK]"}}), "has tokens that are none: KeyError"),
        (word_pieces(additional_special_tokens="[D]"), "has tokens that are none: TypeError"),
        (with_segments, "gives a text's tokens the segments [0, 2]"),
        (sentence_pieces("accents"), "differ in do_lower_case"),
        (sentence_pieces("lower"), "differ in keep_accents"),
        (sentence_pieces(tokenizer_class="DebertaV2Tokenizer", split_by_punct=True), "differ in split_by_punct"),
    ],
)
def test_settings_that_are_not_obeyed_are_refused(tmp_path: Path, write: Write, why: str) -> None:
    path = publish(tmp_path, write)
    with pytest.raises(ModelFormatError, match=re.escape(why)):
        load(path)
