"""What must not differ between two runs that are compared, one flat field each; `description` is its plain name.

null means "not known", so it can neither agree nor differ. Seeds, precision and hardware are no part of it: they are
what one compares. Batch sizes are those of an update, whatever it was split into.

`FACTS` is the one table that comparisons go by: a field of `Fairness` is in it by itself; what a record holds elsewhere
is added there as a line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
# JSON knows what a number is; pydantic would also take the text "5", or true for 1.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Sha = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fairness:
    """All null for figures of others that do not say."""

    measures: Literal["train", "infer"] | None = Field(description="what is measured: training or inference")
    task: Text | None = Field(description="task")
    start: Literal["checkpoint", "random"] | None = Field(description="start: pre-trained weights or random ones")
    start_weights_sha256: Sha | None = Field(description="start checkpoint (SHA-256 of the weight file)")
    model_sha256: Sha | None = Field(description="model's shape and numerics (SHA-256 of its settings)")
    parameters: Whole | None = Field(description="number of parameters, the head's included")
    vocabulary_rows: Whole | None = Field(description="rows of the word embedding, padding rows included")
    tokenizer: Text | None = Field(description="tokenizer variant: cleaning rules and longest word")
    vocabulary_sha256: Sha | None = Field(description="vocabulary (SHA-256 of its pieces)")
    lower_case: Flag | None = Field(description="casing: whether words are lower-cased")
    corpus_sha256: Sha | None = Field(description="training corpus (SHA-256 of the file)")
    training_features_sha256: Sha | None = Field(description="training sequences (SHA-256 of the encoded features)")
    training_sequences: Whole | None = Field(description="number of training sequences in the set")
    shard: Text | None = Field(description="share of the training set that is used, k/n; empty: all")
    lengths: Text | None = Field(description="where the sequences' lengths come from")
    sequence_length: Whole | None = Field(description="maximum sequence length in tokens")
    document_stride: Whole | None = Field(description="tokens from one window to the next")
    most_masked: Whole | None = Field(description="most masked positions predicted in a sequence; 0: no masking")
    global_batch: Whole | None = Field(description="global batch: sequences of one optimizer update over all ranks")
    partial_batches: Text | None = Field(description="what happens to the last, smaller batch of an epoch")
    updates: Whole | None = Field(description="number of optimizer updates")
    optimizer: Text | None = Field(description="optimizer")
    trust_ratio: Text | None = Field(description="trust ratio: whose steps LAMB scales by it")
    learning_rate: Number | None = Field(description="peak learning rate, scaling applied")
    schedule: Text | None = Field(description="learning-rate schedule")
    schedule_warmup_updates: Whole | None = Field(description="updates in which the learning rate warms up")
    schedule_power: Number | None = Field(description="power of the schedule")
    schedule_end_rate: Number | None = Field(description="learning rate at the end")
    beta1: Number | None = Field(description="decay of the first moment")
    beta2: Number | None = Field(description="decay of the second moment")
    epsilon: Number | None = Field(description="epsilon")
    epsilon_place: Text | None = Field(description="where epsilon is added")
    bias_correction: Flag | None = Field(description="bias correction of the moments")
    weight_decay: Number | None = Field(description="weight decay")
    weight_decay_leaves_out: Text | None = Field(description="parameters that do not decay")
    clip_norm: Number | None = Field(description="gradient norm that is clipped to; 0: no clipping")
    clip_order: Text | None = Field(description="clip order: which norm is clipped, and when")
    loss_scale: Text | None = Field(description="what the loss is divided by, over micro-batches and ranks")
    gradients_sent_in: Text | None = Field(description="precision in which ranks exchange gradients")
    synchronised: Flag | None = Field(description="whether ranks learn one model together")
    hidden_dropout: Number | None = Field(description="dropout of the dense layers")
    attention_dropout: Number | None = Field(description="dropout of the attention weights")
    result: Text | None = Field(description="which weights are scored: the last, or the best on the evaluation set")
    evaluation_sha256: Sha | None = Field(description="evaluation set (SHA-256 of its files)")
    evaluation_features_sha256: Sha | None = Field(description="evaluation sequences (SHA-256 of the features)")
    evaluation_examples: Whole | None = Field(description="number of evaluation examples, each counted once")
    answer_rules: Text | None = Field(description="how answers are chosen from the outputs")
    warmup_rule: Text | None = Field(description="warm-up rule of the measurement")
    time_basis: Text | None = Field(description="which clock, over what")


# In these, runs on other numbers of devices may differ and still be one series.
SCALED = frozenset("global_batch updates learning_rate schedule_warmup_updates gradients_sent_in synchronised".split())


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing that must agree between runs that are compared."""

    name: str
    words: str
    path: tuple[str, ...]  # where a record has it; null there, or nothing: not known
    scaled: bool = False  # see SCALED

    def of(self, record: Mapping[str, Any]) -> Any:
        value: Any = record
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def _of_fairness() -> Iterator[Fact]:
    for name, info in Fairness.__pydantic_fields__.items():  # type: ignore[attr-defined]
        yield Fact(name, info.description or name, ("fairness", name), name in SCALED)


# What `bertkit bench serve` has in its records beside it; null in all others.
OF_SERVING = (
    Fact("concurrency", "requests in flight at the server at once", ("config", "concurrency")),
    Fact("request_rate", "request rate: arrivals a second, whatever is in flight", ("config", "request_rate")),
)
FACTS: tuple[Fact, ...] = (*_of_fairness(), *OF_SERVING)


def plain_names() -> dict[str, str]:
    """Fact -> what it is, in words, in the order of the table."""
    return {fact.name: fact.words for fact in FACTS}
