"""The shape of a BERT: what Hugging Face's ``config.json`` and Google's ``bert_config.json`` say.

Source: Devlin et al. 2018, arXiv:1810.04805; the smaller sizes: Turc et al. 2019, arXiv:1908.08962; those of distilled
models: Jiao et al. 2020, arXiv:1909.10351, and 4l-288d as published figures name it (docs/compare.md); the keys beside
the sizes: transformers' PreTrainedConfig and BertConfig (4.x and 5.x), and Google's ``bert_config.json`` files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bertkit.errors import UserError
from bertkit.files.inputs import kind, mapping_value, read_object, real_value, whole_value
from bertkit.model.vocabulary import check_class

Arrays = dict[str, np.ndarray]  # weights, gradients or moments by a parameter's name
# A layer's states; context: what its attention gives, before the dense layer
StatePart = Literal["query", "key", "value", "context", "hidden"]
HeadKind = Literal["classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder"]
PER_TOKEN: tuple[HeadKind, ...] = ("tokens", "span", "encoder")  # outputs for each token, which read no pooler
# The arrays of a batch that hold what a teacher gave, and those that have a row for each token.
OF_TEACHER = ("teacher_logits", "teacher_token_logits", "teacher_masked_logits", "teacher_states")
OF_TOKENS = ("token_labels", "teacher_token_logits", "teacher_states")


@dataclass(frozen=True)
class Head:
    """What stands on the encoder.

    `outputs`: classes (classification; of each token: tokens), labels (multilabel), targets (regression), choices of
    an example (choice), 2 (span, next sentence), values of a token's hidden states (encoder).
    """

    kind: HeadKind
    outputs: int
    layers: tuple[int, ...] = ()  # encoder: whose hidden states stand side by side; 0: the embeddings, 1: layer 1, …
    states: tuple[tuple[StatePart, int], ...] = ()  # encoder: further states beside them, each of a layer; pretraining:
    # the last hidden states, or none
    projection: int = 0  # of those two: width to which a loss by a teacher's states projects its own; 0: it does not

    @property
    def all_states(self) -> tuple[tuple[StatePart, int], ...]:
        """Encoder: all that stands side by side."""
        return (*(("hidden", layer) for layer in self.layers), *self.states)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one sequence's labels: () where it has one."""
        several = self.kind == "multilabel" or (self.kind == "regression" and self.outputs > 1)
        return (self.outputs,) if several else ()

    @property
    def sequences_each(self) -> int:
        """Sequences that make one example: of multiple choice, one for each choice."""
        return self.outputs if self.kind == "choice" else 1

    @property
    def logits_each(self) -> int:
        """Logits of one sequence, or of one token."""
        return 1 if self.kind == "choice" else self.outputs

    @property
    def pooled(self) -> bool:
        """Whether the head reads the pooler, a dense layer over the first token."""
        return self.kind not in PER_TOKEN

    @property
    def trained(self) -> bool:
        """Whether it has labels and a loss; an encoder's have one where they are another's states."""
        return self.kind != "encoder" or bool(self.states)


ARCHITECTURE_OF_HEAD: Mapping[HeadKind, str] = {
    "classification": "BertForSequenceClassification",
    "multilabel": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "choice": "BertForMultipleChoice",
    "tokens": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
    "pretraining": "BertForPreTraining",
    "encoder": "BertModel",
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a BERT encoder under the names that ``config.json`` gives them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int = 30522
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: as hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    softmax: str = "compute"  # of attention: in the compute dtype, or "fp32"; a key of ours, others ignore it

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            whole_value(getattr(self, name), name, 1, most, WRONG)
        for name, (least, below) in RANGES.items():
            if name == "classifier_dropout" and self.classifier_dropout is None:
                continue
            value = real_value(getattr(self, name), name, cure=WRONG)
            if not least <= value < below:
                raise UserError(f"{name} is {value:g}, not at least {least:g} and below {below:g}", WRONG)
        for name, known in (("hidden_act", sorted(ACTIVATIONS)), ("softmax", SOFTMAX)):
            if getattr(self, name) not in list(known):
                raise UserError(f"{name} {getattr(self, name)!r} is not known", "bertkit has " + ", ".join(known))
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}",
                "correct the model's config.json",
            )
        if self.numbers > MOST_NUMBERS:
            raise UserError(
                f"these sizes make a model of over {self.numbers / 1e9:,.0f} billion parameters",
                "correct the model's config.json",
            )

    @property
    def numbers(self) -> int:
        """About how many parameters the encoder has."""
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        return self.hidden_size * (rows + self.num_hidden_layers * layer)

    def without_dropout(self) -> ModelConfig:
        return dataclasses.replace(
            self, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0
        )


WRONG = "correct the model's config.json"
# The largest published BERTs have 4 billion parameters; a size far beyond that is a damaged number.
MOST: Mapping[str, int] = {
    "hidden_size": 1 << 16, "num_hidden_layers": 1 << 10, "num_attention_heads": 1 << 12, "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24, "max_position_embeddings": 1 << 20, "type_vocab_size": 1 << 16,
}  # fmt: skip
MOST_NUMBERS = 20_000_000_000
RANGES: Mapping[str, tuple[float, float]] = {
    "hidden_dropout_prob": (0, 1), "attention_probs_dropout_prob": (0, 1), "classifier_dropout": (0, 1),
    "initializer_range": (0, 10), "layer_norm_eps": (1e-38, 1),
}  # fmt: skip
ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "relu"})  # _new and _pytorch_tanh: the tanh form

SOFTMAX = ("compute", "fp32")

ARCHITECTURES: Mapping[str, ModelConfig] = {
    "tiny": ModelConfig(128, 2, 2, 512),
    "mini": ModelConfig(256, 4, 4, 1024),
    "small": ModelConfig(512, 4, 8, 2048),
    "medium": ModelConfig(512, 8, 8, 2048),
    "base": ModelConfig(768, 12, 12, 3072),
    "large": ModelConfig(1024, 24, 16, 4096),
    "4l-288d": ModelConfig(288, 4, 12, 1152),  # the usual sizes of distilled models
    "4l-312d": ModelConfig(312, 4, 12, 1200),
    "6l-768d": ModelConfig(768, 6, 12, 3072),
    **{  # the rest of Turc et al.'s grid
        f"{layers}l-{hidden}d": ModelConfig(hidden, layers, hidden // 64, 4 * hidden)
        for layers in (2, 4, 6, 8, 10, 12)
        for hidden in (128, 256, 512, 768)
        if (layers, hidden) not in {(2, 128), (4, 256), (4, 512), (8, 512), (6, 768), (12, 768)}  # named above
    },
}


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json`` (Hugging Face) or ``bert_config.json`` (as Google published it)."""
    return from_mapping(read_object(path, "give a folder with a BERT's config.json"), str(path))


def from_mapping(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from the keys of a ``config.json``.

    Raises UserError naming a key that is missing, out of range, or asks for another model (`check_keys`).
    """
    check_keys(raw, where)
    fields = dataclasses.fields(ModelConfig)
    known = {field.name: raw[field.name] for field in fields if field.name in raw}
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in known]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}", "give a folder with a BERT's config.json")
    try:
        return ModelConfig(**known)
    except UserError as error:
        raise UserError(f"{where}: {error.cause}", error.cure) from None


READ = frozenset(field.name for field in dataclasses.fields(ModelConfig))


def to_mapping(config: ModelConfig, head: Head, labels: tuple[str, ...], pad: int = 0) -> dict[str, Any]:
    """The ``config.json`` that transformers reads for this model and head; `pad`: the id of [PAD]."""
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURE_OF_HEAD[head.kind]],
        "model_type": "bert",
        "pad_token_id": pad,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        **dataclasses.asdict(config),
    }
    if config.softmax == "compute":
        del values["softmax"]
    if head.kind == "regression":
        values |= {"problem_type": "regression", "num_labels": head.outputs}
    if head.kind == "multilabel":
        values["problem_type"] = "multi_label_classification"
    if head.kind in ("classification", "multilabel", "tokens") or (head.kind == "regression" and head.outputs > 1):
        names = labels or tuple(f"LABEL_{i}" for i in range(head.outputs))
        values["id2label"] = {str(i): name for i, name in enumerate(names)}
        values["label2id"] = {name: i for i, name in enumerate(names)}
    return values


# ---- keys beside the sizes: what would compute something else is refused by its name ----

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
    "distillation": (True, False),  # of NVIDIA's students: a training program keeps states of their layers, or none
    "use_pooler": (True, False),  # of the same; the weights tell whether there is one, and it starts anew where not
}
CURES = {
    "model_type": "bertkit trains BERT only",
    "position_embedding_type": "bertkit has absolute positions only",
    "is_decoder": "bertkit's BERT looks at both sides; a decoder's weights belong to a program for decoders",
    "pruned_heads": "bertkit has no pruned heads; give the model before its pruning",
    "quantization_config": "give the model's weights before their quantization",
}
# Keys that change nothing of what is computed, or that other readers answer for (labels, the tokenizer's class).
HARMLESS = frozenset(
    """_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size custom_pipelines decoder_start_token_id distillation_config diversity_penalty
    do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label label2id language
    length_penalty max_length min_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams
    num_labels num_return_sequences output_all_encoded_layers output_attentions output_hidden_states output_past
    output_scores pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
    prefix problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    sentence_transformers cls_token_id mask_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    transformers.js_config type typical_p use_bfloat16 use_cache""".split()
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


def told_of_keys(raw: Mapping[str, Any], read: frozenset[str], where: str) -> tuple[str, ...]:
    """Sentences on keys that change nothing here though they stand there; `read`: keys that the model's shape takes."""
    said = []
    strange = [key for key in raw if key not in read and key not in HARMLESS and key not in REQUIRED]
    strange = [key for key in strange if key != "embedding_size"]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        said.append(f"{where}: not known, so not read: {', '.join(strange[:5])}{more}")
    return tuple(said)
