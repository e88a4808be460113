"""What the recipe's settings mean: the values that engines, loops and readers take, made of its sections."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.data.sampler import micro_batch_count
from bertkit.data.tables.table import TableOptions
from bertkit.data.tasks.own.base import OwnData, OwnFormat
from bertkit.data.tasks.own.held_out import HeldOut
from bertkit.data.tasks.own.labels import KINDS, TAGGING
from bertkit.data.tasks.task import AnswerRules, Shape, Task
from bertkit.engine.interface import Exchange, LossScaling, OptimizerSpec
from bertkit.errors import UserError
from bertkit.model.config import ModelConfig
from bertkit.recipes.recipe import Recipe, to_flat
from bertkit.recipes.sections import DataSection, ModelSection, OptimizerSection, ScheduleSection, TableSection
from bertkit.training.schedule import Schedule, schedule

TABLE = TableSection()  # as nobody changed it
# Settings that do not shape the trained weights, so a resume may change them.
FREE = (
    "backend", "output", "train.batch_size", "train.micro_batch_size", "train.steps_this_run", "data.dir",
    "data.cache", "data.train_file", "data.dev_file", "data.eval_dir", "data.strict", "model.layout", "log.",
    "checkpoint.", "evaluation.", "answers.", "device.", "ranks.collectives", "ranks.overlap", "ranks.timeout",
    "ranks.synchronise", "ranks.shard_data", "ranks.learning_rate_scaling", "optimizer.shard", "phase2.batch_size",
    "phase2.micro_batch_size", "phase2.data_dir", "phase2.eval_dir", "offline", "distill.cache_gb",
)  # fmt: skip


def kept_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a resume may not change."""
    return {key: value for key, value in to_flat(recipe).items() if not key.startswith(FREE)}


def is_own_data(recipe: Recipe) -> bool:
    """Whether the recipe's task is made of the user's training file.

    Raises UserError where a named task's files are to be read as the user's.
    """
    if recipe.task and recipe.task not in KINDS:
        named = [key for key, value in dataclasses.asdict(recipe.table).items() if value != getattr(TABLE, key)]
        if named:
            raise UserError(
                f"table.{named[0]} is for data of your own, but task {recipe.task} has files and columns of its own",
                "drop it, or drop -t to train on your file alone",
            )
        if recipe.evaluation.metric:
            raise UserError(
                f"evaluation.metric is for data of your own; task {recipe.task} has a metric of its own", "drop it"
            )
        return False
    return bool(recipe.data.train_file)


def own_data(recipe: Recipe) -> OwnData:
    """What the recipe says of the user's own data."""
    table = recipe.table
    if table.fold and recipe.data.dev_file:
        raise UserError("table.fold is for rows that are held out, but there is a dev file", "drop one of the two")
    number, _, folds = table.fold.partition("/")
    if table.fold and int(number) >= int(folds):
        raise UserError(f"there is no fold {table.fold}", f"folds of {folds} count from 0/{folds}")
    held_out = None if recipe.data.dev_file else HeldOut(table.dev_share, table.split_seed, table.group, table.fold)
    return OwnData(
        kind=recipe.task,
        text=table.text,
        pair=table.text_pair,
        choices=table.choices,
        label=table.label,
        separator=table.separator,
        skip_empty=table.empty == "skip",
        options=TableOptions(
            delimiter=table.delimiter, header=table.header, encoding=table.encoding, conll=recipe.task == TAGGING
        ),
        held_out=held_out,
        metric=recipe.evaluation.metric,
    )


def dev_file(recipe: Recipe, task: Task) -> str:
    """The file that `task` is evaluated on; "" for its own."""
    own = task.format
    return recipe.data.train_file if isinstance(own, OwnFormat) and own.held_out else recipe.data.dev_file


def sequence_shape(data: DataSection, rows: int) -> Shape:
    """How the recipe has `rows` examples (0: all) made into sequences."""
    return Shape(data.seq_length, rows, data.doc_stride, data.query_length, data.strict)


def answer_rules(recipe: Recipe) -> AnswerRules:
    section = recipe.answers
    return AnswerRules(n_best=section.n_best, longest=section.longest, null_threshold=section.null_threshold)


def with_numerics(config: ModelConfig, section: ModelSection) -> ModelConfig:
    """The model's config with the recipe's forms of GELU and softmax where it sets them; they stay with the model."""
    if section.gelu != "config":
        if config.hidden_act == "relu":
            raise UserError("model.gelu is set, but the model's activation is relu", "leave model.gelu alone")
        config = dataclasses.replace(config, hidden_act="gelu" if section.gelu == "exact" else "gelu_new")
    return config if section.softmax == "config" else dataclasses.replace(config, softmax=section.softmax)


def with_dropout(config: ModelConfig, recipe: Recipe) -> ModelConfig:
    """The model's config with the recipe's dropout rates where it sets them."""
    dense, attention = recipe.model.hidden_dropout, recipe.model.attention_dropout
    if dense is not None:
        config = dataclasses.replace(config, hidden_dropout_prob=dense, classifier_dropout=dense)
    if attention is not None:
        config = dataclasses.replace(config, attention_probs_dropout_prob=attention)
    return config


def optimizer_spec(recipe: Recipe) -> OptimizerSpec:
    section = recipe.optimizer
    return OptimizerSpec(
        beta1=section.beta1,
        beta2=section.beta2,
        epsilon=section.epsilon,
        weight_decay=section.weight_decay,
        bias_correction=section.bias_correction,
        clip_norm=section.clip_norm,
        algorithm=section.name,
        trust_ratio=section.trust_ratio,
        shard=section.shard,
        layer_decay=section.layer_decay,
    )


def loss_scaling(recipe: Recipe) -> LossScaling:
    section = recipe.loss_scaling
    return LossScaling(
        initial=section.initial,
        dynamic=section.dynamic,
        grow_after=section.grow_after,
        floor=section.floor,
        patience=section.patience,
    )


def limit_sequences(share: int, micro: int) -> int:
    """Most sequences that a rank computes at once of its share of the batch; `micro` 0: all."""
    return -(-share // micro_batch_count(share, micro))


def with_global_batch(recipe: Recipe, processes: int) -> Recipe:
    """The recipe with each process's share of the global batch, where it names one."""
    whole = recipe.train.global_batch
    if not whole:
        return recipe
    if whole % processes:
        raise UserError(
            f"a global batch of {whole} sequences does not divide among {processes} processes",
            "change train.global_batch or the number of processes",
        )
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=whole // processes))


@dataclass(frozen=True)
class UpdateSettings:
    """How the updates of a run, or of a phase of it, are made: what the recipe says, made into numbers once."""

    updates: int
    processes: int
    share: int  # sequences of each process and update
    micro_batch_size: int  # sequences at once; 0: all of the share
    sequence_length: int  # most tokens
    peak_rate: float  # of all processes together
    rate_scaling: str  # the rule that made it of the base rate, "none" too
    base_rate: float
    warmup_updates: int
    schedule: ScheduleSection
    optimizer: OptimizerSection

    @property
    def global_batch(self) -> int:
        """Sequences of an update over all processes."""
        return self.share * self.processes

    @property
    def accumulation(self) -> int:
        """Micro-batches of an update on each process."""
        return micro_batch_count(self.share, self.micro_batch_size)

    @property
    def at_once(self) -> int:
        """Most sequences that a process computes at once."""
        return limit_sequences(self.share, self.micro_batch_size)

    def rate(self) -> Schedule:
        """The learning rate of each update."""
        return schedule(
            name=self.schedule.name,
            peak=self.peak_rate,
            warmup=self.warmup_updates,
            steps=self.updates,
            power=self.schedule.power,
            end=self.schedule.end_rate,
            decay_from=self.schedule.decay_from,
            start=self.schedule.start,
            warmup_start=self.schedule.warmup_start,
        )


def make_update_settings(recipe: Recipe, epoch: int, processes: int) -> UpdateSettings:
    """Of the recipe, for `processes` processes. `epoch`: updates that go once through the data."""
    updates = recipe.train.steps or math.ceil(recipe.train.epochs * epoch)
    return UpdateSettings(
        updates=updates,
        processes=processes,
        share=recipe.train.batch_size,
        micro_batch_size=recipe.train.micro_batch_size,
        sequence_length=recipe.data.seq_length,
        peak_rate=scaled_rate(recipe, processes),
        rate_scaling=recipe.ranks.learning_rate_scaling,
        base_rate=recipe.optimizer.learning_rate,
        warmup_updates=recipe.schedule.warmup_steps or math.ceil(recipe.schedule.warmup * updates),
        schedule=recipe.schedule,
        optimizer=recipe.optimizer,
    )


def scaled_rate(recipe: Recipe, processes: int) -> float:
    """The peak learning rate of so many processes, by the rule that the recipe names."""
    factors = {"none": 1.0, "sqrt": math.sqrt(processes), "linear": float(processes)}
    return recipe.optimizer.learning_rate * factors[recipe.ranks.learning_rate_scaling]


def exchange(recipe: Recipe) -> Exchange:
    section = recipe.ranks
    return Exchange(
        collectives=section.collectives,
        gradients=section.gradients,
        overlap=section.overlap,
        timeout=section.timeout,
    )


def cache_folder(data: DataSection) -> Path | None:
    if data.cache == "off":
        return None
    if data.cache != "auto":
        return Path(data.cache).expanduser()
    return user_cache() / "features"


def user_cache() -> Path:
    """The folder of what can be made again."""
    home = os.environ.get("BERTKIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "bertkit"
