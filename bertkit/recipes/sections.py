"""The sections of a recipe: each setting's type, its default and what it means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Scale = Annotated[float, Field(gt=0, le=1e38)]  # of a loss; float32 ends at 3.4e38
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL, which no name can")
    return text


Text = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_without_nul)]  # a folder may be called 2024


@dataclass(frozen=True, config=STRICT)
class ModelSection:
    name: Text = Field(
        default="base",
        description="a size (tiny … large) or another published model, a folder or file, a hub name, or from-data: the "
        "data folder's own",
    )
    start: Literal["auto", "pretrained", "random"] = Field(
        default="auto",
        description="auto: pre-trained, save that a size starts at random in pre-training, in bench, where the task "
        "has its own vocabulary, and where no pre-trained model has this size",
    )
    vocab: Text = Field(default="", description="vocab.txt or tokenizer.json; empty: the model's own")
    casing: Literal["auto", "cased", "uncased"] = Field(
        default="auto", description="whether words are lower-cased first"
    )
    hidden_dropout: Rate | None = Field(
        default=None, description="dropout of the dense layers; unset: as the model's config says"
    )
    attention_dropout: Rate | None = Field(
        default=None, description="dropout of the attention weights; unset: as the config says"
    )
    gelu: Literal["config", "exact", "tanh"] = Field(
        default="config", description="the GELU's form: as the model's config says, by erf, or by tanh"
    )
    softmax: Literal["config", "compute", "fp32"] = Field(
        default="config", description="attention's softmax: as the config says, in the compute dtype, or in fp32"
    )
    allow_missing: bool = Field(
        default=False, description="true: what the weights lack of the encoder starts at random, in training"
    )
    layout: Literal["auto", "padded", "unpadded", "packed"] = Field(
        default="auto", description="how batches are laid out"
    )
    layers: Annotated[str, Field(coerce_numbers_to_str=True, pattern=r"^([0-9]{1,4}(,[0-9]{1,4})*,?)?$")] = Field(
        default="",
        description="start with some layers of the model: so many, evenly spaced, or their numbers from 0 as 1,3,5; "
        "empty: all",
    )


@dataclass(frozen=True, config=STRICT)
class DataSection:
    dir: Text = Field(default="data", description="folder with the tasks' folders, or the task's own")
    seq_length: Annotated[int, Field(ge=3)] = Field(
        default=128, description="maximum sequence length in tokens, [CLS] and [SEP] included"
    )
    doc_stride: Positive = Field(default=128, description="tokens from one window over a long context to the next")
    query_length: Positive = Field(
        default=64, description="maximum question length in tokens; longer ones are truncated"
    )
    train_rows: Whole = Field(default=0, description="maximum training examples; 0: all")
    eval_rows: Whole = Field(default=0, description="maximum evaluation examples; 0: all")
    train_file: Text = Field(default="", description="a training file in place of the task's own")
    dev_file: Text = Field(default="", description="a dev file in place of the task's own")
    shard: Annotated[str, Field(pattern=r"^(\d+/[1-9]\d*)?$")] = Field(
        default="", description="k/n: train on every n-th sequence from number k (from 0) on; empty: on all"
    )
    strict: bool = Field(default=False, description="true: fail on an answer that is not in its context")
    eval_dir: Text = Field(
        default="",
        description="pre-training's evaluation set; empty: `eval` beside or in the data, or a part set apart",
    )
    held_out: Share = Field(
        default=0.01, description="share of pre-training data set apart where there is no evaluation set; 0: none"
    )
    masking: Literal["auto", "static", "dynamic", "once"] = Field(
        default="auto",
        description="static: as the shards were made; dynamic: anew in each epoch; once: by the seed, always the same",
    )
    masked_share: Share = Field(default=0.15, description="dynamic masking: share of a sequence that is predicted")
    most_masked: Whole = Field(default=0, description="dynamic masking: maximum per sequence; 0: no bound")
    whole_words: bool = Field(default=False, description="dynamic masking: all pieces of a word or none")
    cache: Text = Field(
        default="auto", description="folder for encoded features; 'auto': the user's cache folder; 'off': none"
    )


@dataclass(frozen=True, config=STRICT)
class TableSection:
    """How tables of one's own are read: data.train_file and data.dev_file of no named task."""

    text: Text = Field(
        default="",
        description="column with the text, or a template of several, {title}: {body}; empty: told by the file",
    )
    text_pair: Text = Field(
        default="",
        description="column with a second text, which begins each choice of multiple choice; empty: none, or told by "
        "the file",
    )
    choices: Text = Field(
        default="", description="multiple choice: columns with the choices, a,b,c, or one with lists of them"
    )
    label: Text = Field(
        default="", description="column with the label; empty: told by the file; a,b,c: a target or 0/1 in each"
    )
    separator: Text = Field(
        default="", description="multi-label: what parts the labels of a cell; empty: told by the file"
    )
    group: Text = Field(default="", description="column whose values stay together when rows are held out")
    delimiter: Text = Field(default="", description="delimiter of CSV: a character or tab; empty: told by the file")
    header: bool | None = Field(
        default=None, description="whether CSV begins with the columns' names; unset: told by the file"
    )
    encoding: Text = Field(default="", description="encoding of CSV; empty: UTF-8, or told by the file")
    empty: Literal["refuse", "skip"] = Field(default="refuse", description="rows with an empty text or label")
    dev_share: Share = Field(
        default=0.1, description="share of the training rows held out where there is no dev file, stratified by label"
    )
    split_seed: Whole = Field(default=1, description="fixes which rows are held out")
    fold: Annotated[str, Field(pattern=r"^([0-9]{1,3}/([2-9]|[1-9][0-9]{1,2}))?$")] = Field(
        default="", description="k/n: hold out part k (from 0) of n of like size, in place of dev_share"
    )


@dataclass(frozen=True, config=STRICT)
class TrainSection:
    batch_size: Positive = Field(default=32, description="batch size per process")
    micro_batch_size: Whole = Field(
        default=0, description="micro-batch size; below batch_size: gradient accumulation; 0: batch_size"
    )
    global_batch: Whole = Field(
        default=0,
        description="global batch size, in place of batch_size; 0: batch_size on each process",
    )
    epochs: Annotated[float, Field(ge=0)] = Field(default=3.0, description="number of training epochs")
    steps: Whole = Field(default=0, description="updates; 0: as many as `epochs` makes")
    steps_this_run: Whole = Field(
        default=0, description="maximum updates of this job, resumable with --resume; 0: unlimited"
    )
    phases: Annotated[str, Field(coerce_numbers_to_str=True, pattern="^(1|2|1,2)$")] = Field(
        default="1", description="of pre-training: 1, 2 (with the settings of [phase2]), or 1,2 one after the other"
    )
    freeze: Annotated[str, Field(coerce_numbers_to_str=True, pattern=r"^(embeddings|encoder|[0-9]{1,4})?$")] = Field(
        default="",
        description="parameters that are not trained: embeddings; n: also the first n encoder layers; encoder: all but "
        "what stands on it",
    )
    moments_from: Text = Field(
        default="", description="run to take weights and optimizer state from; the schedule starts over"
    )


@dataclass(frozen=True, config=STRICT)
class OptimizerSection:
    name: Literal["adamw", "lamb"] = Field(default="adamw", description="the algorithm; lamb is for large batches")
    trust_ratio: Literal["decayed", "all"] = Field(
        default="decayed", description="lamb: scale the step of tensors with weight decay, or of all (NVLAMB)"
    )
    learning_rate: Annotated[float, Field(ge=0)] = Field(default=5e-5, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="decoupled; not on biases and LayerNorm"
    )
    beta1: Rate = Field(default=0.9, description="decay of the first moment")
    beta2: Rate = Field(default=0.999, description="decay of the second moment")
    epsilon: Annotated[float, Field(gt=0)] = Field(default=1e-8, description="added to the root of the second moment")
    bias_correction: bool = Field(default=True, description="false: the Adam of the BERT paper")
    clip_norm: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="maximum global gradient norm; 0: no clipping"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="each layer's learning rate is this times that of the layer above it; 1: all alike"
    )
    shard: bool = Field(default=False, description="true: shard the optimizer state over the processes")


@dataclass(frozen=True, config=STRICT)
class LossSection:
    """What differs from the plain loss, where labels are classes."""

    class_weights: Text = Field(
        default="", description="what a label's loss counts: balanced, or label=weight,… (others 1); empty: all alike"
    )
    label_smoothing: Rate = Field(default=0.0, description="share of each label that is spread over all classes")
    focal_gamma: Annotated[float, Field(ge=0, le=20)] = Field(
        default=0.0, description="focal loss: what is already likely counts less, by this power; 0: plain"
    )


@dataclass(frozen=True, config=STRICT)
class DistillSection:
    """Learning from a trained model, the teacher."""

    teacher: Text = Field(default="", description="trained model to learn from; empty: none")
    teacher_backend: Text = Field(default="", description="backend that computes the teacher; empty: the student's")
    learn: Literal["logits", "relations", "tinybert", "last_layer"] = Field(
        default="logits",
        description="what is learned of it: its logits, on pre-training data those of masked words; or states of its "
        "layers, without labels: relations (MiniLMv2), tinybert's, or those of its last_layer",
    )
    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=2.0, description="what logits are divided by before they are compared"
    )
    soft: Annotated[float, Field(ge=0)] = Field(default=1.0, description="weight of the loss by the teacher's logits")
    hard: Annotated[float, Field(ge=0)] = Field(default=0.0, description="weight of the loss by labels beside it")
    cosine: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="pre-training data: weight of 1 - cosine of both models' last hidden states beside the logits",
    )
    teacher_layer: Whole = Field(
        default=0, description="relations: layer of the teacher, from 1; 0: the last, of 24 the 21st"
    )
    relation_heads: Whole = Field(
        default=0, description="relations: heads; 0: 48, or the most below that divide both models' hidden sizes"
    )
    transfer: Text = Field(
        default="", description="file of unlabelled texts to learn from as well: lines (.txt), or as a test file"
    )
    cache_gb: Annotated[float, Field(ge=0)] = Field(
        default=8.0, description="maximum size of the teacher's states on disk in GB"
    )


@dataclass(frozen=True, config=STRICT)
class LossScalingSection:
    initial: Annotated[float, Field(gt=0, le=1e38)] = Field(default=65536.0, description="initial loss scale for fp16")
    dynamic: bool = Field(default=True, description="true: dynamic loss scaling; false: static")
    grow_after: Positive = Field(default=2000, description="updates without overflow before the scale doubles")
    floor: Scale = Field(default=1.0, description="minimum loss scale")
    patience: Positive = Field(default=20, description="consecutive overflows that stop the run")


@dataclass(frozen=True, config=STRICT)
class ScheduleSection:
    name: Literal["linear", "polynomial", "constant"] = Field(default="linear", description="decay after warm-up")
    warmup: Share = Field(default=0.1, description="warm-up share of all updates")
    warmup_steps: Whole = Field(default=0, description="warm-up updates; 0: as `warmup` says")
    power: Annotated[float, Field(gt=0)] = Field(default=1.0, description="of the polynomial")
    end_rate: Annotated[float, Field(ge=0)] = Field(default=0.0, description="learning rate at the last update")
    decay_from: Literal["warmup", "start"] = Field(
        default="warmup", description="where decay counts from: the end of warm-up, or the first update"
    )
    start: Whole = Field(default=0, description="updates counted as done before the first; 1: no update has rate 0")
    warmup_start: int = Field(default=0, description="update at which warm-up begins; negative: before the first")


@dataclass(frozen=True, config=STRICT)
class Phase2Section:
    """What differs in pre-training's second phase; what is unset is as in the first."""

    data_dir: Text = Field(default="", description="its data; empty: `phase2` in the data folder, or the same data")
    eval_dir: Text = Field(default="", description="its evaluation set; empty: found as the first phase's is")
    seq_length: Annotated[int, Field(ge=3)] | None = Field(
        default=None, description="maximum sequence length in tokens"
    )
    batch_size: Positive | None = Field(default=None, description="batch size per process")
    micro_batch_size: Whole | None = Field(default=None, description="micro-batch size")
    global_batch: Whole | None = Field(default=None, description="global batch size")
    steps: Whole | None = Field(default=None, description="updates; 0: as many as `epochs` makes")
    learning_rate: Annotated[float, Field(ge=0)] | None = Field(default=None, description="peak learning rate")
    warmup: Share | None = Field(default=None, description="warm-up share of its updates")
    warmup_steps: Whole | None = Field(default=None, description="warm-up updates")
    power: Annotated[float, Field(gt=0)] | None = Field(default=None, description="of the polynomial")
    start: Whole | None = Field(default=None, description="updates its schedule counts as done before its first")
    most_masked: Whole | None = Field(default=None, description="dynamic masking: maximum per sequence")


@dataclass(frozen=True, config=STRICT)
class EvaluationSection:
    every: Whole = Field(default=0, description="updates between evaluations; 0: each epoch")
    every_samples: Whole = Field(
        default=0, description="training sequences between evaluations, in place of `every`; 0: as `every` says"
    )
    start_samples: Whole = Field(default=0, description="with every_samples: no evaluation before so many sequences")
    batch_size: Positive = Field(default=64, description="batch size per process")
    patience: Whole = Field(
        default=0, description="end the run after so many evaluations in a row without a better score; 0: never"
    )
    metric: Text = Field(
        default="", description="own data: metric that picks the best checkpoint; empty: the first of its kind"
    )
    calibrate: bool = Field(
        default=False,
        description="own data: at the end fit on the dev set what probabilities are divided by (classes) or from where "
        "on a label applies (multi-label); predictions then use it",
    )
    target_mlm_accuracy: Share = Field(default=0.0, description="stop pre-training at this accuracy; 0: never")


@dataclass(frozen=True, config=STRICT)
class AnswersSection:
    n_best: Positive = Field(default=20, description="candidate answers per question, and per window")
    longest: Positive = Field(default=30, description="maximum answer length in tokens")
    null_threshold: float = Field(
        default=0.0, description="v2.0: no answer where its score is this much above the best answer's"
    )


@dataclass(frozen=True, config=STRICT)
class CheckpointSection:
    every: Whole = Field(default=0, description="updates between checkpoints; 0: each epoch")
    keep: Positive = Field(default=3, description="checkpoints to keep, besides the best")
    result: Literal["last", "best"] = Field(
        default="last", description="which weights are the run's result; 'best' selects on dev"
    )


@dataclass(frozen=True, config=STRICT)
class RanksSection:
    synchronise: bool = Field(default=True, description="false: train one model per process and keep the best on dev")
    shard_data: bool = Field(
        default=False, description="where they do not synchronise: each process trains on its own share of the data"
    )
    learning_rate_scaling: Literal["none", "sqrt", "linear"] = Field(
        default="none", description="what the learning rate is multiplied by: 1, the root of the processes, or them"
    )
    collectives: Text = Field(
        default="auto",
        description="how processes sum through host memory: auto, gloo, mpi, window, or a plug-in",
    )
    gradients: Literal["fp32", "bf16"] = Field(
        default="fp32", description="precision of gradients in all-reduce; bf16 halves the traffic, with rounding"
    )
    overlap: bool = Field(default=False, description="true: overlap all-reduce with the backward pass")
    timeout: Annotated[float, Field(gt=0)] = Field(default=600.0, description="timeout of a collective in seconds")


@dataclass(frozen=True, config=STRICT)
class LogSection:
    every: Positive = Field(default=10, description="updates between log lines")
    mllog: bool = Field(default=False, description="true: also MLPerf's :::MLLOG lines, in mllog.txt")
    dllogger: bool = Field(default=False, description="true: also DLLL lines, in dllogger.json")
    tensorboard: bool = Field(default=False, description="true: also curves for TensorBoard, in tensorboard/")
    profile: Annotated[str, Field(coerce_numbers_to_str=True, pattern=r"^(\d+(-\d+)?)?$")] = Field(
        default="", description="updates to profile, as 20-22, counted in this job; writes trace.json; empty: none"
    )
