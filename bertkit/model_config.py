"""The shape of a BERT: what Hugging Face's ``config.json`` and Google's ``bert_config.json`` say.

Source: Devlin et al. 2018, arXiv:1810.04805; the smaller sizes: Turc et al. 2019, arXiv:1908.08962.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertkit.errors import UserError

HeadKind = Literal["classification", "regression", "span", "pretraining"]


@dataclass(frozen=True)
class Head:
    """What stands on the encoder. `outputs`: classes (classification), 1 (regression), 2 (span, next sentence)."""

    kind: HeadKind
    outputs: int

    @property
    def pooled(self) -> bool:
        """Whether the head reads the pooler, a dense layer over the first token."""
        return self.kind != "span"


ARCHITECTURE_OF_HEAD: Mapping[HeadKind, str] = {
    "classification": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "span": "BertForQuestionAnswering",
    "pretraining": "BertForPreTraining",
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
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) > 0):
                raise UserError(f"{name} {getattr(self, name)!r} is not a whole number above 0", "correct config.json")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}",
                "correct the model's config.json",
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UserError(
                f"hidden_act {self.hidden_act!r} is not known",
                "bertkit has " + ", ".join(sorted(ACTIVATIONS)),
            )

        if self.softmax not in SOFTMAX:
            raise UserError(f"softmax {self.softmax!r} is not known", "bertkit has " + ", ".join(SOFTMAX))

    def without_dropout(self) -> ModelConfig:
        return dataclasses.replace(
            self, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0
        )


ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "relu"})  # _new and _pytorch_tanh: the tanh form

SOFTMAX = ("compute", "fp32")

ARCHITECTURES: Mapping[str, ModelConfig] = {
    "tiny": ModelConfig(128, 2, 2, 512),
    "mini": ModelConfig(256, 4, 4, 1024),
    "small": ModelConfig(512, 4, 8, 2048),
    "medium": ModelConfig(512, 8, 8, 2048),
    "base": ModelConfig(768, 12, 12, 3072),
    "large": ModelConfig(1024, 24, 16, 4096),
}


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json`` (Hugging Face) or ``bert_config.json`` (as Google published it)."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}", "give a folder with a BERT's config.json") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no JSON object", "give a folder with a BERT's config.json")
    return from_mapping(raw, str(path))


def from_mapping(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from the keys of a ``config.json``; unknown keys are left alone, missing sizes refused."""
    if raw.get("model_type", "bert") != "bert":
        raise UserError(f"{where}: model_type is {raw['model_type']!r}, not 'bert'", "bertkit trains BERT only")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{where}: position_embedding_type is not 'absolute'", "bertkit has absolute positions only")
    fields = dataclasses.fields(ModelConfig)
    known = {field.name: raw[field.name] for field in fields if field.name in raw}
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in known]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}", "give a folder with a BERT's config.json")
    for field in fields:
        value = known.get(field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        optional = value is None and field.type == "float | None"
        if field.name in known and not (number or optional or field.type == "str"):
            raise UserError(f"{where}: {field.name} is {value!r}, not a number", "correct it")
    return ModelConfig(**known)


def to_mapping(config: ModelConfig, head: Head, labels: tuple[str, ...]) -> dict[str, Any]:
    """The ``config.json`` that transformers reads for this model and head."""
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURE_OF_HEAD[head.kind]],
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        **dataclasses.asdict(config),
    }
    if config.softmax == "compute":
        del values["softmax"]
    if head.kind == "regression":
        values |= {"problem_type": "regression", "num_labels": 1}
    if head.kind == "classification":
        names = labels or tuple(f"LABEL_{i}" for i in range(head.outputs))
        values["id2label"] = {str(i): name for i, name in enumerate(names)}
        values["label2id"] = {name: i for i, name in enumerate(names)}
    return values
