"""Keys of a ``config.json`` beside a BERT's sizes: what would compute something else is refused by its name.

Source: transformers' PreTrainedConfig and BertConfig (4.x and 5.x), and Google's ``bert_config.json`` files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertkit.errors import UserError
from bertkit.files.inputs import kind, mapping_value, whole_value

# Key -> the values with which a model is computed as here; any other would compute something else.
REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": ({}, None),
    "directionality": ("bidi",),
    "pooler_type": ("first_token_transform",),
    "per_layer_config": ({}, None),
}
CURES = {
    "model_type": "bertkit trains BERT only",
    "position_embedding_type": "bertkit has absolute positions only",
    "is_decoder": "bertkit's BERT looks at both sides; a decoder's weights belong to a program for decoders",
    "pruned_heads": "bertkit has no pruned heads; give the model before its pruning",
    "quantization_config": "give the model's weights before their quantization",
}
# Tokenizers that cut text as BERT's does
BERTS_TOKENIZERS = frozenset({"Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "SqueezeBert", "LayoutLM"})
# Keys that change nothing of what is computed, or that other readers answer for (labels, the tokenizer's class).
HARMLESS = frozenset(
    """_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size custom_pipelines decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label label2id language length_penalty
    max_length min_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    sentence_transformers cls_token_id mask_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version transformers.js_config type typical_p use_bfloat16 use_cache""".split()
)


def check_keys(raw: Mapping[str, Any], where: str) -> None:
    """Raises UserError naming a key whose value asks for another model than a BERT encoder."""
    for key, allowed in REQUIRED.items():
        if key in raw and not any(raw[key] == value and type(raw[key]) is type(value) for value in allowed):
            shown = repr(raw[key]) if isinstance(raw[key], str | bool | int) else kind(raw[key])
            cure = CURES.get(key, "bertkit computes a plain BERT encoder only")
            raise UserError(f"{where}: {key} is {shown}, not {allowed[0]!r}", cure)
    whole_value(raw.get("chunk_size_feed_forward") or 0, f"{where}: chunk_size_feed_forward")  # changes memory alone
    width = raw.get("embedding_size", raw.get("hidden_size"))
    if width != raw.get("hidden_size"):
        raise UserError(
            f"{where}: embedding_size {width!r} is not hidden_size", "bertkit's embeddings are as wide as its layers"
        )
    programs = mapping_value(raw.get("auto_map") or {}, f"{where}: auto_map")
    if named := [key for key in programs if key.startswith("AutoModel")]:
        raise UserError(
            f"{where}: auto_map says that a program beside it computes the model ({named[0]})",
            "bertkit runs no program of a model's folder; give a plain BERT",
        )
    check_class(raw.get("tokenizer_class"), where)


def check_class(name: object, where: object) -> str:
    """The class of a tokenizer, without `Fast`. Raises UserError where it does not cut text as BERT's does."""
    if name is None:
        return ""
    plain = name.removesuffix("Fast") if isinstance(name, str) else ""
    if plain.removesuffix("Tokenizer") in BERTS_TOKENIZERS or plain in ("PreTrainedTokenizer", "TokenizersBackend"):
        return plain
    raise UserError(f"{where}: tokenizer_class is {name!r}, not 'BertTokenizer'", "bertkit has BERT's WordPiece only")


def told_of_keys(raw: Mapping[str, Any], read: frozenset[str], where: str) -> tuple[str, ...]:
    """Sentences on keys that change nothing here though they stand there; `read`: keys that the model's shape takes."""
    said = []
    strange = [key for key in raw if key not in read and key not in HARMLESS and key not in REQUIRED]
    strange = [key for key in strange if key != "embedding_size"]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        said.append(f"{where}: not known, so not read: {', '.join(strange[:5])}{more}")
    if raw.get("problem_type") == "multi_label_classification":
        said.append(f"{where}: problem_type is 'multi_label_classification', but the task says what is learnt and told")
    return tuple(said)
