"""What config.json says of a transformer: every key is obeyed, known to change no vector, or refused.

transformers ignores the keys that its class does not have, whatever they mean: relative positions, ALiBi, another norm.
A model would then compute other vectors, and no comparison with transformers would show it. Two published forms with
their own code are rewritten for transformers' classes, which compute the same: GTE's `new` and nomic_bert.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gte_sdk.errors import ModelFormatError
from gte_sdk.model_files.published import CONFIG_JSON, read_json

# Keys of training, generation, classification heads and implementations. None of them changes the token states.
_HARMLESS_KEYS = """
model_type architectures auto_map transformers_version dtype torch_dtype _name_or_path _commit_hash name_or_path
attention_probs_dropout_prob hidden_dropout_prob hidden_dropout dropout attention_dropout dropout_rate attn_pdrop
embd_pdrop resid_pdrop classifier_dropout classifier_dropout_prob cls_dropout pooler_dropout
seq_classif_dropout qa_dropout embedding_dropout mlp_dropout initializer_range initializer_factor
initializer_cutoff_factor gradient_checkpointing use_cache tie_word_embeddings tie_weights_ tie_encoder_decoder
id2label label2id num_labels problem_type finetuning_task task_specific_params classifier_pooling clf_pooling
classifier_bias classifier_activation decoder_bias summary_activation summary_first_dropout summary_last_dropout
summary_proj_to_labels summary_type summary_use_proj pooler_fc_size pooler_num_attention_heads
pooler_num_fc_layers pooler_size_per_head pooler_type pooler_hidden_size pooler_hidden_act directionality
sparse_prediction sparse_pred_ignore_index repad_logits_with_grad deterministic_flash_attn reference_compile
output_attentions output_hidden_states output_past return_dict torchscript use_bfloat16 use_flash_attn
use_memory_efficient_attention unpad_inputs pack_qkv attn_implementation _attn_implementation
_attn_implementation_autoset chunk_size_feed_forward cache_implementation pretraining_tp xla_device
tokenizer_class prefix pad_token bos_token eos_token mask_token mask_token_id cls_token_id sep_token_id
bos_token_id eos_token_id eos_token_ids decoder_start_token_id forced_bos_token_id forced_eos_token_id
bad_words_ids begin_suppress_tokens suppress_tokens diversity_penalty do_sample early_stopping
encoder_no_repeat_ngram_size exponential_decay_length_penalty length_penalty max_length min_length
no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values
repetition_penalty return_dict_in_generate temperature tf_legacy_loss top_k top_p typical_p
matryoshka_dimensions sentence_transformers transformers.js_config
"""
_HARMLESS = frozenset(_HARMLESS_KEYS.split())
# The only value of a key that is supported. Most classes ignore these keys, and a decoder's states are causal.
_ONLY_VALUE: Mapping[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
}
# Keys that a class obeys in its own way, although its configuration has no such field.
_OBEYED: Mapping[str, frozenset[str]] = {
    "modernbert": frozenset({"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}),
    "gemma3_text": frozenset({"rope_local_base_freq", "sliding_window_pattern"}),
    "deberta-v2": frozenset(
        {"position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size", "conv_groups", "conv_act"}
        | {"attention_head_size", "embedding_size"}
    ),
}
_OBEYED_WITH_ROTARY = frozenset({"rope_theta", "rope_scaling", "partial_rotary_factor"})
# Of no consequence in one class: left-overs of the code that wrote the file.
_HARMLESS_IN: Mapping[str, frozenset[str]] = {
    "modernbert": frozenset({"layer_norm_eps"}),  # its own is norm_eps
    "t5": frozenset({"n_positions"}),
    "albert": frozenset({"down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks", "layers_to_keep"}),
}
# Architectures whose published code computes what transformers' class of that name does.
_SAME_AS_THEIR_CODE = ("gte", "nomic_bert", "eurobert")
# Their angles depend on the length of a text. A traced graph keeps those of the text that it was traced with.
_ROTARY_BY_LENGTH = ("dynamic", "longrope")

_NEW_ONLY_VALUE: Mapping[str, Any] = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
}
_NOMIC_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}
_NOMIC_ONLY_VALUE: Mapping[str, Any] = {
    "activation_function": "swiglu",
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_rms_norm": False,
}
# What Nomic's code takes for a key that is missing.
_NOMIC_DEFAULTS: Mapping[str, Any] = {
    "activation_function": "gelu_new",
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "qkv_proj_bias": True,
    "rotary_emb_fraction": 0.0,
}
# Rewritten, or of no consequence.
_NOMIC_LEFT_OUT = (
    *("rotary_emb_base", "rotary_scaling_factor", "max_trained_positions", "dense_seq_output", "fused_bias_fc"),
    *("fused_dropout_add_ln", "pad_vocab_size_multiple", "reorder_and_upcast_attn", "use_xentropy"),
)


def read_configuration(directory: Path) -> dict[str, Any]:
    """The fields of config.json in the spelling of transformers' own class, without references to code.

    Raises ModelFormatError for a value that would change the vectors and that transformers' class does not compute.
    """
    file = directory / CONFIG_JSON
    fields = read_json(file)
    has_code = bool(fields.pop("auto_map", None))
    # GTE's own code also publishes under the name of transformers' class.
    if fields.get("model_type") == "new" or (fields.get("model_type") == "gte" and _NEW_ONLY_VALUE.keys() & fields):
        fields = _rewrite_new(file, fields)
    elif fields.get("model_type") == "nomic_bert" and "n_embd" in fields:
        fields = _rewrite_nomic(file, fields)
    if has_code and fields.get("model_type") not in _SAME_AS_THEIR_CODE:
        raise ModelFormatError(
            f"{file} names code of its own (auto_map), which is never run; model_type={fields.get('model_type')!r} in "
            "transformers may compute something else"
        )
    for key, value in _ONLY_VALUE.items():
        _require(file, fields, key, value)
    _refuse_angles_by_length(file, fields)
    return fields


def build_configuration(directory: Path) -> Any:
    """The configuration of transformers' class for the model in `directory`.

    Raises ModelFormatError as read_configuration does, and for a key that the class does not know.
    """
    import transformers

    fields = read_configuration(directory)
    file, model_type = directory / CONFIG_JSON, str(fields.get("model_type"))
    if model_type not in transformers.CONFIG_MAPPING:
        raise ModelFormatError(
            f"{file} has model_type={model_type!r}, which transformers {transformers.__version__} does not know; "
            "a newer one may: pip install -U transformers"
        )
    configuration_class = transformers.CONFIG_MAPPING[model_type]
    known = {*configuration_class().to_dict(), *configuration_class.attribute_map}
    if known & {"rope_parameters", "rope_theta"}:
        known |= _OBEYED_WITH_ROTARY
    known |= _HARMLESS | set(_ONLY_VALUE) | _OBEYED.get(model_type, set()) | _HARMLESS_IN.get(model_type, set())
    if unknown := sorted(set(fields) - known):
        raise ModelFormatError(
            f"{file} has {unknown[0]}={fields[unknown[0]]!r:.80}, which {configuration_class.__name__} of transformers "
            f"{transformers.__version__} does not read, so its vectors may be others than the model's; if the key "
            "changes no vector, remove it from config.json"
        )
    return configuration_class.from_dict(fields)


def _rewrite_new(file: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of GTE's own code (Alibaba-NLP/new-impl, GTE v1.5 and multilingual) for transformers' Gte."""
    for key, value in _NEW_ONLY_VALUE.items():
        _require(file, fields, key, value)
    left_out = {*_NEW_ONLY_VALUE, "logn_attention_clip1", "rope_theta", "rope_scaling"}
    rewritten = {key: value for key, value in fields.items() if key not in left_out}
    theta, scaling = fields.get("rope_theta", 10000.0), fields.get("rope_scaling")
    rotary = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None or not scaling.get("factor", 0) >= 1:
            raise ModelFormatError(f"{file} has rope_scaling={scaling!r}; a fixed factor of type ntk is supported")
        # new-impl: 1 / (theta * factor) ** (2 i / d), divided by factor ** (2 / d), for texts of any length.
        head_dim = fields["hidden_size"] // fields["num_attention_heads"]
        factor = scaling["factor"] ** (2 / head_dim)
        rotary = {"rope_type": "linear", "rope_theta": theta * scaling["factor"], "factor": factor}
    rewritten.setdefault("rope_parameters", rotary)
    return {**rewritten, "model_type": "gte"}


def _rewrite_nomic(file: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of Nomic's own code, which has GPT-2's names, for transformers' NomicBert."""
    for key, value in _NOMIC_ONLY_VALUE.items():
        _require(file, {**_NOMIC_DEFAULTS, **fields}, key, value)
    left_out = {*_NOMIC_ONLY_VALUE, *_NOMIC_LEFT_OUT}
    rewritten = {_NOMIC_NAMES.get(key, key): value for key, value in fields.items() if key not in left_out}
    if rewritten.get("intermediate_size") is None:
        rewritten["intermediate_size"] = 4 * rewritten["hidden_size"]
    if fields.get("rotary_scaling_factor") is not None:  # the angles change beyond the trained length
        trained = fields.get("max_trained_positions", 2048)
        rewritten["max_position_embeddings"] = min(rewritten.get("max_position_embeddings", trained), trained)
    rotary = {"rope_type": "default", "rope_theta": fields.get("rotary_emb_base", 10000.0)}
    return {**rewritten, "hidden_act": "silu", "rope_parameters": rotary}


def _require(file: Path, fields: Mapping[str, Any], key: str, value: Any) -> None:
    if fields.get(key, value) not in (value, None):
        raise ModelFormatError(f"{file} has {key}={fields[key]!r:.80}; only {value!r} is supported")


def _refuse_angles_by_length(file: Path, fields: Mapping[str, Any]) -> None:
    for key in ("rope_scaling", "rope_parameters"):
        rotary = fields.get(key)
        for parameters in [rotary, *rotary.values()] if isinstance(rotary, dict) else []:
            kind = parameters.get("rope_type", parameters.get("type")) if isinstance(parameters, dict) else None
            if kind in _ROTARY_BY_LENGTH:
                raise ModelFormatError(
                    f"{file} has {key} of type {kind!r}, whose angles depend on a text's length; that is not supported"
                )
