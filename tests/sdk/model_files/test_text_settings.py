"""Settings beside tokenizer.json that change what is read of a text are obeyed or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from gte_sdk import Embedder, InputError, ModelFormatError
from gte_sdk.model_files.text_settings import SENTENCE_BERT_FILES

from ..tiny_models import tiny_vector, write_json, write_tiny_model

TEXT = "red green blue fast slow"


def add(file: Path, **fields: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    write_json(file, {**content, **fields})


@pytest.mark.parametrize("name", SENTENCE_BERT_FILES)
def test_the_names_of_sentence_transformers_own_file(tmp_path: Path, name: str) -> None:
    write_tiny_model(tmp_path)
    (tmp_path / "sentence_bert_config.json").unlink(missing_ok=True)
    write_json(tmp_path / name, {"max_seq_length": 4, "do_lower_case": True})
    model = Embedder(tmp_path, truncation="ignore")
    assert model.max_tokens == 4
    np.testing.assert_allclose(model.embed("RED green blue"), tiny_vector("red green"), atol=1e-6)


@pytest.mark.parametrize("name", ["processor_kwargs", "tokenizer_args"])
def test_a_limit_among_the_arguments_of_the_tokenizer_goes_first(tmp_path: Path, name: str) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "sentence_bert_config.json", max_seq_length=6, **{name: {"model_max_length": 4}})
    assert Embedder(tmp_path).max_tokens == 4


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"config_args": {"num_hidden_layers": 1}}, "has config_args=.* which may change the vectors"),
        ({"model_kwargs": {"attn_implementation": "eager", "quantization_config": {}}}, "has model_kwargs="),
        ({"tokenizer_args": ["truncation_side"]}, "has tokenizer_args="),
        ({"processor_kwargs": {"padding_side": "left"}}, "pads on the left a model whose positions are rows"),
        ({"transformer_task": "fill-mask"}, "something else from the transformer"),
        ({"modality_config": {"text": {"method": "get_text_features"}}}, "something else from the transformer"),
        ({"modality_config": {"image": {}}}, "something else from the transformer"),
        ({"module_output_name": "sentence_embedding"}, "something else from the transformer"),
    ],
)
def test_settings_of_the_transformer_that_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "sentence_bert_config.json", model_args={"torch_dtype": "float32"})
    assert Embedder(tmp_path).dim
    add(tmp_path / "sentence_bert_config.json", **settings)
    with pytest.raises(ModelFormatError, match=reason):
        Embedder(tmp_path)


def test_sides_of_the_tokenizer(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "tokenizer_config.json", truncation_side="left")
    with pytest.raises(ModelFormatError, match="the model reads the ends of long texts"):
        Embedder(tmp_path)
    add(tmp_path / "tokenizer_config.json", truncation_side="right", padding_side="left")
    with pytest.raises(ModelFormatError, match="pads on the left a model whose positions are rows of a table"):
        Embedder(tmp_path)
    add(tmp_path / "config.json", rope_theta=1e4)  # no table of positions
    np.testing.assert_allclose(Embedder(tmp_path).embed(TEXT), tiny_vector(TEXT), atol=1e-6)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    write_json(tmp_path / "tokenizer.json", {**tokenizer, "truncation": cut})
    with pytest.raises(ModelFormatError, match="cuts long texts at their beginning"):
        Embedder(tmp_path)
    write_json(tmp_path / "tokenizer.json", {**tokenizer, "truncation": {**cut, "direction": "Right"}})
    np.testing.assert_allclose(Embedder(tmp_path).embed(TEXT), tiny_vector(TEXT), atol=1e-6)


@pytest.mark.parametrize(("kind", "is_lower"), [("BertTokenizer", True), ("PreTrainedTokenizerFast", False)])
def test_bert_takes_lower_case_from_tokenizer_config(tmp_path: Path, kind: str, is_lower: bool) -> None:
    write_tiny_model(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    add(tmp_path / "tokenizer_config.json", tokenizer_class=kind)
    expected = tiny_vector("red" if is_lower else "RED")
    model = Embedder(tmp_path)
    np.testing.assert_allclose(model.embed("RED"), expected, atol=1e-6)
    np.testing.assert_allclose(model.embed(["RED"] * 40)[-1], expected, atol=1e-6)
    add(tmp_path / "tokenizer_config.json", do_lower_case=False)
    np.testing.assert_allclose(Embedder(tmp_path).embed("RED"), tiny_vector("RED"), atol=1e-6)


def test_tokens_that_only_tokenizer_config_adds(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "tokenizer_config.json", add_bos_token=True, add_eos_token=True)
    assert Embedder(tmp_path).special_tokens.after == [3]
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "tokenizer.json", {**tokenizer, "post_processor": None})
    with pytest.raises(
        ModelFormatError, match=r"asks for add_bos_token and add_eos_token, and .*tokenizer\.json adds 0 tokens"
    ):
        Embedder(tmp_path)
    template = tokenizer["post_processor"]
    template["single"][0]["SpecialToken"]["type_id"] = 2
    write_json(tmp_path / "tokenizer.json", {**tokenizer, "post_processor": template})
    with pytest.raises(ModelFormatError, match=r"the segments \[0, 2\]; gte-sdk passes 0 only"):
        Embedder(tmp_path)


def test_a_prompt_that_is_not_pooled(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "1_Pooling" / "config.json", include_prompt=False)
    model = Embedder(tmp_path, prompts={"query": "query "})
    np.testing.assert_allclose(model.embed("red"), tiny_vector("red"), atol=1e-6)
    for embed in (model.embed_query, lambda text: model.encode(text, prompt="query ")):
        with pytest.raises(InputError, match="leaves a prompt's tokens out of its pooling"):
            embed("red")


def test_vectors_that_the_description_cuts(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    add(file, truncate_dim=3)
    model = Embedder(tmp_path)
    whole = tiny_vector("red")
    np.testing.assert_allclose(model.embed("red"), whole[:3] / np.linalg.norm(whole[:3]), atol=1e-6)
    assert (model.dim, Embedder(tmp_path, dim=5).dims) == (3, (5, 3))
    add(file, truncate_dim=64)
    assert Embedder(tmp_path).dim == 5
    add(file, truncate_dim="3")
    with pytest.raises(ModelFormatError, match="has truncate_dim='3'"):
        Embedder(tmp_path)


def test_a_model_of_another_similarity_says_so(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    add(tmp_path / "config_sentence_transformers.json", similarity_fn_name="dot")
    with pytest.warns(UserWarning, match="compares its vectors by 'dot' and with their own lengths"):
        Embedder(tmp_path)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": at} for kind, at in kinds]
    write_json(tmp_path / "modules.json", modules)
    assert Embedder(tmp_path).dim == 5


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([("Transformer", "0_Transformer"), ("Pooling", "1_Pooling")], "puts the transformer into '0_Transformer'"),
        ([("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", ""), ("Dense", "2_Dense")], "a module Dense"),
        ([("Transformer", "")], "nothing says how the states of its tokens become one vector"),
        ([("a.Transformer", ""), ("Pooling", "1_Pooling")], r"a module a\.Transformer in ''"),
    ],
)
def test_modules_in_another_order_or_of_other_code(tmp_path: Path, modules: list[Any], reason: str) -> None:
    write_tiny_model(tmp_path)
    (tmp_path / "2_Dense").mkdir()
    write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 5, "out_features": 5})
    named = [{"type": kind if "." in kind else f"sentence_transformers.{kind}", "path": at} for kind, at in modules]
    write_json(tmp_path / "modules.json", named)
    with pytest.raises(ModelFormatError, match=reason):
        Embedder(tmp_path)
