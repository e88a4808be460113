"""The seam between bertkit and any framework: what an Engine computes, and what a Backend says of itself.

NumPy goes in, numbers come out; padding, devices and precision are the engine's own business.

Legend: T tokens of the batch without padding, B sequences, M masked positions, N any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, SupportsFloat, runtime_checkable

import numpy as np

from bertkit.distributed.world import World
from bertkit.model.config import OF_TEACHER as OF_TEACHER
from bertkit.model.config import OF_TOKENS as OF_TOKENS
from bertkit.model.config import Arrays as Arrays
from bertkit.model.config import Head, HeadKind, ModelConfig

# A ragged slice of features:
#   input_ids (T,) int32 · token_type_ids (T,) int32 · cu_seqlens (B+1,) int32 · example_ids (B,) int64, and
#   classification: labels (B,) int64
#   multilabel: labels (B, C) float32, each 0 or 1
#   regression: labels (B,) float32; (B, C) where there are several targets
#   choice: labels (B / K,) int64: the sequences stand in runs of K, one for each choice of an example
#   tokens: token_labels (T,) int64, NO_LABEL where a token has none
#   span: start_positions, end_positions (B,) int64, counted within the sequence
#   pretraining: masked_positions (M,) int64 into the T tokens, masked_labels (M,) int64, labels (B,) int64
# and where a teacher's answers or states are learned (`LossSpec`):
#   teacher_logits (B, C) float32, of a choice (B / K, K); teacher_token_logits (T, C), of a span (T, 2): start and end
#   teacher_masked_logits (M, V), a real type: of pre-training
#   teacher_states (T, D), a real type: its states side by side, each `StatesLoss.width` wide
Batch = Mapping[str, np.ndarray]
Scalars = Mapping[str, SupportsFloat]  # values may still be on the device: float() waits for them

# What a recipe may ask of training beyond what every engine does.
Extra = Literal[
    "class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze", "teacher_logits", "teacher_states",
    "teacher_words",
]  # fmt: skip
Precision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]  # int8: answers only, of quantised weights
LayoutKind = Literal["padded", "unpadded", "packed"]
NO_LABEL = -100  # that no loss counts
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Update:
    """One rank's share of one optimizer update."""

    step: int  # 1 for the run's first update; with the seed it fixes dropout
    micro_batches: tuple[Batch, ...]  # as many on every rank; one without sequences is allowed
    label_counts: Mapping[str, int]  # over all ranks and micro-batches; the losses are divided by these


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), or LAMB (You et al. 2019, arXiv:1904.00962) after clipping.

    Without `bias_correction` AdamW is the BERT paper's Adam.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01  # decoupled; not on biases and LayerNorm scales
    bias_correction: bool = True
    clip_norm: float = 1.0  # global L2 norm over all parameters, after accumulation; 0: no clipping
    algorithm: Literal["adamw", "lamb"] = "adamw"
    trust_ratio: Literal["decayed", "all"] = "decayed"  # LAMB: only where there is weight decay, or everywhere (NVLAMB)
    shard: bool = False  # each rank keeps the moments of some parameters; the same numbers in less memory
    layer_decay: float = 1.0  # each layer's learning rate is this times that of the layer above it


@dataclass(frozen=True)
class SoftLabels:
    """A loss by a teacher's logits beside the one by labels (Hinton et al. 2015, arXiv:1503.02531).

    KL(teacher || student) of the probabilities of classes, or of a span's places, at a temperature T, times T squared;
    of several labels, of each by itself, and the mean of them; of targets, the squared error; of pre-training, of
    the pieces of masked words. The mean is over what that of the loss by labels is.
    """

    temperature: float = 1.0
    soft: float = 1.0  # weight of this loss
    hard: float = 0.0  # weight of the loss by labels; 0: they are not read


@dataclass(frozen=True)
class StateTerm:
    """One loss by a teacher's states.

    relations: states of one kind, cut into `heads` parts of a width w; softmax(x x' / sqrt(w)) tells how a token
    relates to those of its sequence. KL(teacher || student), mean over tokens and heads (Wang et al. 2021,
    arXiv:2012.15828).
    attention_kl: the same of softmax(q k' / sqrt(w)), `heads` the model's own.
    attention_mse: squared error of q k' / sqrt(w), mean over pairs of tokens of a sequence and heads (Jiao et al. 2019,
    arXiv:1909.10351). mse, cosine: of the states themselves, mean over tokens: squared error, also over the width, and
    1 - cos; of the student's through the projection where the widths differ.
    """

    form: Literal["relations", "attention_kl", "attention_mse", "mse", "cosine"]
    student: tuple[int, ...]  # which of its head's states: one; attention: the queries and the keys
    teacher: tuple[int, ...]  # which of the teacher's
    heads: int = 1
    weight: float = 1.0


@dataclass(frozen=True)
class StatesLoss:
    """The sum of some terms; a batch brings the teacher's states."""

    terms: tuple[StateTerm, ...]
    width: int  # of each of the teacher's states

    @property
    def teacher_columns(self) -> int:
        """D: of the teacher's states side by side."""
        return self.width * (1 + max(number for term in self.terms for number in term.teacher))


@dataclass(frozen=True)
class LossSpec:
    """What differs from the head's plain loss. The sum is divided by the number of labels all the same.

    Label smoothing: Szegedy et al. 2015, arXiv:1512.00567; focal loss: Lin et al. 2017, arXiv:1708.02002.
    """

    class_weights: tuple[float, ...] = ()  # of each class; multilabel: of each label where it applies; (): all 1
    label_smoothing: float = 0.0  # of classes: this share of a label is spread over all of them
    focal_gamma: float = 0.0  # each label's loss times (1 - p) ** gamma, p the probability that it was given
    teacher: SoftLabels | None = None  # whose logits are learned beside the labels, or in their place
    states: StatesLoss | None = None  # of an encoder: what is learned of a teacher's; of pre-training: besides


@dataclass(frozen=True)
class LossScaling:
    """fp16: the loss is multiplied so that small gradients do not vanish (Micikevicius et al. 2017, arXiv:1710.03740).

    An update with a gradient that is not finite is left out.
    """

    initial: float = 65536.0
    dynamic: bool = True  # halved after an overflow, doubled after `grow_after` updates without one
    grow_after: int = 2000
    floor: float = 1.0
    patience: int = 20  # consecutive overflows that stop the run


@dataclass(frozen=True)
class DrawnBatch:
    """A batch as it occurs, without its tokens."""

    lengths: np.ndarray  # (B,)
    masked: int = 0  # positions


@dataclass(frozen=True)
class BatchLimits:
    """What the batches of one kind, as those of a phase, have at the most; and some of them, as they occur."""

    sequences: int
    longest: int  # tokens of a sequence
    masked: int = 0  # positions of a batch
    tokens: int = 0  # of a batch; 0: as many as if all its sequences were the longest
    drawn: tuple[DrawnBatch, ...] = field(default=(), repr=False, compare=False)  # (): not known

    @property
    def most_tokens(self) -> int:
        """Tokens of a batch at the most."""
        return self.tokens or self.sequences * self.longest


@dataclass(frozen=True)
class Limits:
    """What a run's micro-batches hold, kind by kind; a chip that needs few shapes plans them by it."""

    training: tuple[BatchLimits, ...]  # of each phase
    answers: tuple[BatchLimits, ...]  # of what is only predicted


@dataclass(frozen=True)
class Exchange:
    """How the ranks of a job sum their gradients."""

    collectives: str = "auto"  # a plug-in of `bertkit.collectives`; for what is in host memory
    gradients: Literal["fp32", "bf16"] = "fp32"  # as sent; bf16 halves what is sent and rounds
    overlap: bool = False  # buckets beside the last backward pass; False: all at once after it
    bucket_bytes: int = 25_000_000
    timeout: float = 600.0  # seconds that a rank waits for the others


@dataclass(frozen=True)
class Job:
    """All that an engine is built from."""

    model: ModelConfig
    head: Head
    weights: Mapping[str, np.ndarray]  # complete, under Hugging Face's names, float32
    optimizer: OptimizerSpec = OptimizerSpec()
    precision: Precision = "fp32"
    seed: int = 1
    layout: LayoutKind | Literal["auto"] = "auto"
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # of the backend's card, all of them
    exchange: Exchange = Exchange()
    loss_scaling: LossScaling = LossScaling()  # where the precision is fp16
    limits: Limits | None = None  # None: not known
    loss: LossSpec = LossSpec()
    frozen: tuple[str, ...] = ()  # parameters that keep their values; nothing is computed for their sake
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)  # int8: as `Calibrates` found them


@dataclass(frozen=True)
class Peak:
    """The dense rate that model-FLOP utilisation is taken against."""

    flops: float  # FLOP/s of this rank's device
    source: str  # how it is known, in words


@dataclass(frozen=True)
class DeviceFacts:
    """What this rank computes on, as far as it is known."""

    kind: Literal["cpu", "accelerator"]
    model: str | None = None
    memory_bytes: int | None = None  # of an accelerator
    driver: str | None = None
    clock_mhz: float | None = None  # now


class Engine(Protocol):
    """What computes, on one rank."""

    def stage(self, update: Update) -> Update:
        """Whatever can be done for an update ahead of it; called in a thread of its own. `train_step` also takes
        updates that were not staged."""

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        """One optimizer update. Returns at least `loss` (global mean), `grad_norm` (before clipping) and
        `slots` (token places computed on this rank, padding included); with loss scaling also `loss_scale`."""

    def predict(self, batch: Batch) -> Arrays:
        """The head's logits, float32. classification, multilabel, regression: logits (B, C) · choice: logits (B, 1) ·
        tokens: logits (T, C) · span: start_logits and end_logits (T,) ·
        pretraining: masked_logits (M, V), logits (B, 2), with `Head.states` also hidden (T, H) ·
        encoder: hidden (T, C), the hidden states of `Head.layers` and `Head.states` side by side."""

    def slots(self, lengths: np.ndarray) -> int:
        """Token places, padding included, that `predict` computes for sequences of these lengths (B,)."""

    def weights(self) -> Arrays:
        """All parameters as float32 host arrays under Hugging Face's names."""

    def state_dict(self) -> Arrays:
        """All that an exact resume needs, as host arrays: `model.<name>` and the optimizer's state."""

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `state_dict` gave. Raises UserError where names or shapes do not fit."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(N_r, …) of every rank r -> (sum N_r, …) on each rank, in rank order. A collective."""

    def synchronize(self) -> None:
        """Wait for the device. Timers and logs call it; training does not.

        Raises UserError where the device found meanwhile that it cannot go on, as after many overflows."""

    def describe(self) -> Mapping[str, str]:
        """What was chosen and why: device, kernels, dtypes, threads. For the log and the record. `epsilon` says where
        it is added, where that is not `OptimizerSpec`'s."""

    def peak(self) -> Peak:
        """This device's dense rate at the job's precision."""

    def peak_memory(self) -> int | None:
        """Bytes, the largest so far; None where it cannot be known."""

    def close(self) -> None:
        """Leave the process group; the engine is not used afterwards."""


@runtime_checkable
class Sensors(Protocol):
    """What an engine may have besides; of one without it, none of this is known."""

    def facts(self) -> DeviceFacts:
        """The device of this rank."""

    def energy(self) -> float | None:
        """Joules that this rank's own accelerator spent since some moment; None where it does not tell."""

    def communication(self) -> float | None:
        """Seconds that updates waited for the exchange of gradients since some moment, waiting for slower ranks
        included; None where an asynchronous device hides them."""


@runtime_checkable
class Counters(Sensors, Protocol):
    """What checks ask besides; an engine without it is not held to them."""

    def programs(self) -> int | None:
        """Programs compiled for this device since some moment; None where it compiles none or does not tell."""

    def host_waits(self, run: Callable[[], None]) -> int | None:
        """How often the host waits for the device during `run`; None where the device is the host."""


@runtime_checkable
class Profiler(Protocol):
    """What an engine may have besides."""

    def profile(self, trace: Path) -> AbstractContextManager[object]:
        """What the host and this rank's device do meanwhile goes to `trace` at its end, in Chrome's trace format."""


@dataclass(frozen=True)
class Int8Calibration:
    """Scales of what enters the layers of a model in int8."""

    scales: Arrays  # for `Job.scales`: what `bertkit.model.int8` lists, of each place
    method: str  # by which they were chosen, in words
    difference: float  # root mean square of the logits' difference to the unquantised model's, of the logits' own


@runtime_checkable
class Calibrates(Protocol):
    """What an engine may have besides, whose int8 is faster once it knows what values enter its layers."""

    def wants_calibration(self) -> bool:
        """Whether the job is in int8, and has no scales."""

    def calibrate(self, batches: Sequence[Batch]) -> Int8Calibration:
        """Run some batches, none of them of the dev set; from then on the engine answers by what it found. Every rank
        gives the same."""


@dataclass(frozen=True)
class Setting:
    """A setting that only one backend has, reached as ``--set device.<name>=value``; or one format of export."""

    default: str | int | float | bool
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, readable without its hardware."""

    precisions: tuple[Precision, ...]
    heads: tuple[HeadKind, ...]
    layouts: tuple[LayoutKind, ...]
    multi_process: bool = True
    computes: bool = True  # False: a stand-in whose numbers mean nothing
    trains: bool = True  # False: it only answers
    bitwise_resume: bool = True
    optimizers: tuple[str, ...] = ("adamw", "lamb")
    gradients: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)  # what ranks can send them as
    overlap: bool = False  # whether ranks can send gradients beside the backward pass
    sharded_optimizer: bool = False
    extras: tuple[Extra, ...] = ()
    answers_in: tuple[Precision, ...] = ()  # further precisions, for inference only
    environment: tuple[str, ...] = ()  # beginnings of the variables' names that every process must be given


@dataclass(frozen=True)
class Probe:
    """Whether a backend can run here: the device's name and driver, or what would help."""

    ready: bool
    detail: str
    precisions: tuple[Precision, ...] = ()  # what this very device does well
    cards: tuple[int, ...] = ()  # memory node of each accelerator here, -1: not known; empty: there are none


class Backend(Protocol):
    """A vendor's card. Importing it imports no framework."""

    name: str
    aliases: tuple[str, ...]
    preference: int  # `auto` takes the highest that is ready; negative: never by itself
    capabilities: Capabilities
    settings: Mapping[str, Setting]

    def probe(self) -> Probe:
        """Never raises; imports no framework merely to look."""

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        """The environment variables that the vendor's software is to read, which it does when a framework is first
        imported. Raises UserError for variables and settings that cannot be."""

    def engine(self, job: Job, world: World) -> Engine:
        """Raises UserError where the job asks for what this machine cannot do."""


@runtime_checkable
class ShowsDevices(Protocol):
    """What a backend may have besides, whose devices a container has by options of its engine alone."""

    def container_options(self, engine: str) -> tuple[str, ...]:
        """Words of docker, podman or apptainer. Raises UserError where they are not known."""


# The arrays of a batch that only the loss reads, by head.
LABELS: Mapping[HeadKind, tuple[str, ...]] = {
    "classification": ("labels",),
    "multilabel": ("labels",),
    "regression": ("labels",),
    "choice": ("labels",),
    "tokens": ("token_labels",),
    "span": ("start_positions", "end_positions"),
    "pretraining": ("masked_labels", "labels"),
    "encoder": (),
}

# What `Engine.predict` returns, by head.
OUTPUTS: Mapping[HeadKind, tuple[str, ...]] = {
    "classification": ("logits",),
    "multilabel": ("logits",),
    "regression": ("logits",),
    "choice": ("logits",),
    "tokens": ("logits",),
    "span": ("start_logits", "end_logits"),
    "pretraining": ("masked_logits", "logits"),
    "encoder": ("hidden",),
}


def sequence_lengths(batch: Batch) -> np.ndarray:
    """(B,) tokens of each sequence."""
    return np.diff(batch["cu_seqlens"])


def label_counts(kind: HeadKind, batches: Sequence[Batch]) -> dict[str, int]:
    """What each part of the head's loss is divided by: its number of labels in `batches`. `sequences`: of multiple
    choice, the examples."""
    counts = {
        "sequences": sum(len(batch["labels"] if kind == "choice" else sequence_lengths(batch)) for batch in batches)
    }
    if kind == "pretraining":
        counts["masked"] = sum(len(batch["masked_labels"]) for batch in batches)
    if kind == "tokens":
        counts["tokens"] = sum(int((batch["token_labels"] != NO_LABEL).sum()) for batch in batches)
    if kind in ("encoder", "pretraining"):
        counts |= counts_of_states(np.concatenate([sequence_lengths(batch) for batch in batches]))
    return counts


def counts_of_states(lengths: np.ndarray) -> dict[str, int]:
    """What the losses by states are divided by, of sequences of these lengths (B,)."""
    return {"tokens": int(lengths.sum()), "pairs": int(np.square(lengths, dtype=np.int64).sum())}
