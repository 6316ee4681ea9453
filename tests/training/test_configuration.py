"""What config.json says: obeyed, harmless, or refused. Published code, against a slow reference of its arithmetic."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu

from gte_sdk.errors import ModelFormatError
from training.encoders.configuration import read_configuration
from training.encoders.encoder import Encoder
from training.encoders.encoder_files import load_encoder, write_encoder

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 2, 2, 50
TOKEN_IDS_NT = torch.tensor([[2, 9, 8, 7, 12, 41, 3], [2, 33, 3, 0, 0, 0, 0]])
MASK_NT = (TOKEN_IDS_NT > 0).long()

NEW: dict[str, Any] = {
    "model_type": "new",
    "architectures": ["NewModel"],
    "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 64,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": VOCABULARY,
}
NOMIC: dict[str, Any] = {
    "model_type": "nomic_bert",
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "activation_function": "swiglu",
    "causal": False,
    "fused_bias_fc": True,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 64,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_inner": 48,
    "n_layer": LAYERS,
    "n_positions": 128,
    "pad_vocab_size_multiple": 64,
    "prenorm": False,
    "qkv_proj_bias": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "summary_type": "cls_index",
    "type_vocab_size": 2,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": VOCABULARY,
}


# The names of the tensors in each published form; `{}` is the number of a layer.
NEW_NAMES = {
    "embedding_norm": "embeddings.LayerNorm",
    "qkv": "encoder.layer.{}.attention.qkv_proj",
    "output": "encoder.layer.{}.attention.o_proj",
    "attention_norm": "encoder.layer.{}.attn_ln",
    "mlp_norm": "encoder.layer.{}.mlp_ln",
    "down": "encoder.layer.{}.mlp.down_proj",
}
NOMIC_NAMES = {
    "embedding_norm": "emb_ln",
    "qkv": "encoder.layers.{}.attn.Wqkv",
    "output": "encoder.layers.{}.attn.out_proj",
    "attention_norm": "encoder.layers.{}.norm1",
    "mlp_norm": "encoder.layers.{}.norm2",
    "down": "encoder.layers.{}.mlp.fc2",
}


def random_weights(names: Mapping[str, str], segments: int, biased: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    weights = {
        "embeddings.word_embeddings.weight": draw(VOCABULARY, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(segments, WIDTH),
    }
    for norm in ("embedding_norm", "attention_norm", "mlp_norm"):
        for layer in range(LAYERS):
            weights |= {f"{names[norm]}.weight".format(layer): 1 + draw(WIDTH)}
            weights |= {f"{names[norm]}.bias".format(layer): draw(WIDTH)}
    for layer in range(LAYERS):
        for name, rows, columns in (("qkv", 3 * WIDTH, WIDTH), ("output", WIDTH, WIDTH), ("down", WIDTH, 48)):
            weights[f"{names[name]}.weight".format(layer)] = draw(rows, columns)
            if biased:
                weights[f"{names[name]}.bias".format(layer)] = draw(rows)
        if names is NEW_NAMES:
            weights[f"encoder.layer.{layer}.mlp.up_gate_proj.weight"] = draw(96, WIDTH)
        else:
            weights[f"encoder.layers.{layer}.mlp.fc11.weight"] = draw(48, WIDTH)
            weights[f"encoder.layers.{layer}.mlp.fc12.weight"] = draw(48, WIDTH)
    return weights


def reference(
    names: Mapping[str, str], weights: Mapping[str, Tensor], angles_TP: Tensor, token_ids_T: Tensor
) -> Tensor:
    """(t, d): the published code's arithmetic, for one text without padding."""

    def linear(rows_TK: Tensor, name: str, layer: int) -> Tensor:
        bias = weights.get(f"{names[name]}.bias".format(layer), torch.zeros(1))
        return rows_TK @ weights[f"{names[name]}.weight".format(layer)].T + bias

    def norm(rows_TD: Tensor, name: str, layer: int) -> Tensor:
        scale, shift = (weights[f"{names[name]}.{part}".format(layer)] for part in ("weight", "bias"))
        return layer_norm(rows_TD, (WIDTH,), scale, shift, 1e-12)

    def rotate(rows_TD: Tensor) -> Tensor:
        first, second = rows_TD.chunk(2, dim=1)
        cos, sin = angles_TP.cos(), angles_TP.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)

    states_TD = weights["embeddings.word_embeddings.weight"][token_ids_T]
    states_TD = norm(states_TD + weights["embeddings.token_type_embeddings.weight"][0], "embedding_norm", 0)
    for layer in range(LAYERS):
        heads = []
        queries, keys, values = linear(states_TD, "qkv", layer).chunk(3, dim=1)
        for query, key, value in zip(
            queries.chunk(HEADS, 1), keys.chunk(HEADS, 1), values.chunk(HEADS, 1), strict=True
        ):
            scores = rotate(query) @ rotate(key).T / math.sqrt(query.shape[1])
            heads.append(scores.softmax(dim=1) @ value)
        states_TD = norm(states_TD + linear(torch.cat(heads, dim=1), "output", layer), "attention_norm", layer)
        if names is NEW_NAMES:
            up, gate = (states_TD @ weights[f"encoder.layer.{layer}.mlp.up_gate_proj.weight"].T).chunk(2, dim=1)
            inner = gelu(gate) * up
        else:
            inner = states_TD @ weights[f"encoder.layers.{layer}.mlp.fc11.weight"].T
            inner = inner * silu(states_TD @ weights[f"encoder.layers.{layer}.mlp.fc12.weight"].T)
        states_TD = norm(states_TD + linear(inner, "down", layer), "mlp_norm", layer)
    return states_TD


def write_published(directory: Path, tokenizer: Path, config: Mapping[str, Any], weights: dict[str, Tensor]) -> Path:
    for file in tokenizer.iterdir():
        shutil.copyfile(file, directory / file.name)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def new_angles(theta: float, factor: float) -> Tensor:
    """(t, d / 2): NTKScalingRotaryEmbedding of new-impl with a fixed factor."""
    head = WIDTH // HEADS
    frequencies = 1 / (theta * factor) ** (torch.arange(0, head, 2) / head) / factor ** (2 / head)
    angles_TP: Tensor = torch.arange(TOKEN_IDS_NT.shape[1])[:, None] * frequencies
    return angles_TP


CASES: dict[str, tuple[dict[str, Any], dict[str, str], Tensor]] = {
    "GTE multilingual": (NEW, NEW_NAMES, new_angles(20000, 8)),
    "GTE without scaling": ({**NEW, "rope_scaling": None, "rope_theta": 5000}, NEW_NAMES, new_angles(5000, 1)),
    "Nomic": (NOMIC, NOMIC_NAMES, new_angles(1000, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_published_code_computes_the_same(case: str, tokenizer_directory: Path, tmp_path: Path) -> None:
    import transformers

    config, names, angles_TP = CASES[case]
    if ("gte" if names is NEW_NAMES else "nomic_bert") not in transformers.CONFIG_MAPPING:
        pytest.skip("this transformers has no class for it")
    weights = random_weights(names, config["type_vocab_size"], biased=False)
    if names is NEW_NAMES:
        biased = random_weights(names, config["type_vocab_size"], biased=True)
        weights |= {name: tensor for name, tensor in biased.items() if name.endswith(".bias")}
    encoder = load_encoder(write_published(tmp_path, tokenizer_directory, config, weights))
    with torch.no_grad():
        states_NTD = encoder(TOKEN_IDS_NT, MASK_NT).last_hidden_state
    for row, count in enumerate(MASK_NT.sum(dim=1).tolist()):
        expected_TD = reference(names, weights, angles_TP[:count], TOKEN_IDS_NT[row, :count])
        assert torch.allclose(states_NTD[row, :count], expected_TD, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (NEW, {"position_embedding_type": "absolute"}, "position_embedding_type='absolute'; only 'rope' is supported"),
        (NEW, {"layer_norm_type": "rms_norm"}, "layer_norm_type='rms_norm'; only"),
        (NEW, {"logn_attention_scale": True}, "logn_attention_scale=True; only False"),
        (NEW, {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}, "a fixed factor of type ntk"),
        (NEW, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "a fixed factor of type ntk"),
        (NOMIC, {"prenorm": True}, "prenorm=True; only False"),
        (NOMIC, {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction=0.5; only 1.0"),
        (NOMIC, {"rotary_emb_fraction": None}, "rotary_emb_fraction=0.0; only 1.0"),
        (NOMIC, {"activation_function": "gelu"}, "activation_function='gelu'; only 'swiglu'"),
        (NOMIC, {"qkv_proj_bias": True}, "qkv_proj_bias=True; only False"),
        ({"model_type": "bert"}, {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        (
            {"model_type": "bert"},
            {"position_embedding_type": "alibi"},
            "position_embedding_type='alibi'; only 'absolute'",
        ),
        ({"model_type": "bert"}, {"is_decoder": True}, "is_decoder=True; only False"),
        ({"model_type": "bert"}, {"pruned_heads": {"0": [1]}}, "pruned_heads={'0': [1]}; only {}"),
        ({"model_type": "bert"}, {"auto_map": {"AutoModel": "theirs.Bert"}}, "names code of its own"),
        ({"model_type": "qwen3"}, {"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "of type 'dynamic'"),
        (
            {"model_type": "modernbert"},
            {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}},
            "'longrope'",
        ),
    ],
)
def test_other_arithmetic_is_refused(
    config: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fields = {key: value for key, value in {**config, **changes}.items() if key not in changes or value is not None}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelFormatError) as refusal:
        read_configuration(tmp_path)
    assert message in str(refusal.value)


def test_nomics_angles_change_beyond_the_trained_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(NOMIC))
    assert read_configuration(tmp_path)["max_position_embeddings"] == 128
    (tmp_path / "config.json").write_text(json.dumps({**NOMIC, "rotary_scaling_factor": 2}))
    assert read_configuration(tmp_path)["max_position_embeddings"] == 64


def test_a_key_that_the_class_does_not_read(tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    harmless = {"gradient_checkpointing": False, "pooler_type": "first", "torch_dtype": "float16", "max_length": 20}
    (tmp_path / "config.json").write_text(json.dumps({**fields, **harmless}))
    load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "feed_forward_type": "geglu"}))
    with pytest.raises(
        ModelFormatError, match=r"feed_forward_type='geglu', which BertConfig of transformers .* does not"
    ):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "model_type": "mystery"}))
    with pytest.raises(ModelFormatError, match=r"model_type='mystery', which transformers .* does not know"):
        load_encoder(tmp_path)


def test_tensors_that_the_class_has_no_use_for(
    tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path
) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    head = {"cls.predictions.bias": torch.zeros(4)}
    save_file({**weights, **head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load_encoder(tmp_path)
    name = "encoder.layer.0.attention.self.distance_embedding.weight"
    save_file({**weights, name: torch.zeros(4, 4)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFormatError, match=f"has no use for 1 tensors of the weights, first {name}"):
        load_encoder(tmp_path)
