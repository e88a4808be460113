"""Everything that a run needs before its first update: task, model, features, backend, and the job for its engine."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkit.backend import PRECISIONS, Backend, Exchange, Job, Limits, LossScaling, OptimizerSpec, Precision
from bertkit.errors import UserError, nearest
from bertkit.model_config import ModelConfig
from bertkit.pretrained import Source, find_source, starting_weights
from bertkit.recipe import DataSection, ModelSection, Recipe
from bertkit.registry import Choice, choose
from bertkit.schedule import Schedule, schedule
from bertkit.tasks import Task, find_task
from bertkit.tasks.reading import Progress, read_split
from bertkit.tasks.task import AnswerRules, Part, Shape, SplitName, task_folder
from bertkit.weight_files import Fit

logger = logging.getLogger(__name__)
Say = Callable[[str], object]


@dataclass(frozen=True)
class Target:
    """Where a job is computed, and how."""

    choice: Choice
    precision: Precision
    reason: str  # of the precision
    settings: dict[str, str | int | float | bool]  # of the backend's card, all of them


@dataclass(frozen=True)
class Basis:
    """What every training run is made of, whatever it learns from."""

    recipe: Recipe
    choice: Choice
    precision: Precision
    precision_reason: str
    task: Task
    source: Source
    fit: Fit
    job: Job


@dataclass(frozen=True)
class Prepared(Basis):
    """A fine-tuning run that is ready to start."""

    train: Part
    dev: tuple[Part, ...]


def prepare(recipe: Recipe, say: Say, progress: Progress, dry_run: bool = False) -> Prepared:
    """Read and check everything, cheapest first, so that a mistake is answered before any work is done.

    `dry_run`: the backend need not be ready.
    """
    task = task_of(recipe)
    target = choose_target(recipe, task, dry_run=dry_run)
    data_dir = Path(recipe.data.dir).expanduser()
    task_vocab = task_folder(task, data_dir) / task.vocab if task.vocab else None
    source = find_model(recipe, task_vocab)
    cache = cache_folder(recipe.data)

    def read(split: SplitName, rows: int, file: str) -> list[Part]:
        shape = sequence_shape(recipe.data, rows)
        return read_split(task, data_dir, split, source.vocabulary, shape, cache, progress, file)

    (train,) = read("train", recipe.data.train_rows, recipe.data.train_file)
    dev = read("dev", recipe.data.eval_rows, recipe.data.dev_file)
    fit = starting_weights(source, task.head, recipe.seed)
    say_fit(fit, source, say)
    job = make_job(recipe, task, target, source, fit, limits(recipe, [train, *dev]))
    return Prepared(recipe, target.choice, target.precision, target.reason, task, source, fit, job, train, tuple(dev))


def make_job(recipe: Recipe, task: Task, target: Target, source: Source, fit: Fit, most: Limits) -> Job:
    return Job(
        with_dropout(source.config, recipe),
        task.head,
        fit.weights,
        optimizer_spec(recipe),
        target.precision,
        recipe.seed,
        recipe.model.layout,
        target.settings,
        exchange(recipe),
        loss_scaling(recipe),
        most,
    )


def choose_target(recipe: Recipe, task: Task, training: bool = True, dry_run: bool = False) -> Target:
    """Where `task` is computed. Raises UserError where the backend is absent or cannot do what is asked."""
    choice = choose(recipe.backend, dry_run)
    precision, reason = choose_precision(choice.backend, recipe.precision, training)
    settings = device_settings(choice.backend, recipe)
    os.environ.update(choice.backend.variables(settings))  # here, since reading weights may import a framework
    check_job(choice.backend, task, recipe)
    return Target(choice, precision, reason, settings)


def find_model(recipe: Recipe, task_vocab: Path | None = None) -> Source:
    """The recipe's model, its vocabulary and length checked; what is odd but allowed is warned about."""
    source = find_source(recipe.model.name, recipe.model.vocab, recipe.model.casing, task_vocab)
    source = dataclasses.replace(source, config=with_numerics(source.config, recipe.model))
    check_length(recipe.data, source)
    for warning in source.warnings:
        logger.warning("%s", warning)
    return source


def task_of(recipe: Recipe) -> Task:
    if not recipe.task:
        raise UserError("no task was named", "name one with -t, as in -t mrpc; `bertkit data list` names them all")
    return find_task(recipe.task)


def choose_precision(backend: Backend, asked: str, training: bool = True) -> tuple[Precision, str]:
    """The precision and why. Raises UserError where the backend cannot."""
    can = backend.capabilities
    if asked != "auto":
        precision = next(p for p in PRECISIONS if p == asked)
        if training and precision in can.answers_in:
            raise UserError(f"{asked} is for answers, not for training", "train in another precision: choose with -d")
        if precision not in (*can.precisions, *can.answers_in):
            has = ", ".join((*can.precisions, *(() if training else can.answers_in)))
            raise UserError(f"backend {backend.name} has no {asked}", f"it has {has}: choose with -d")
        return precision, "asked for"
    probe = backend.probe()
    if not probe.ready:  # a dry run
        return (
            "bf16" if "bf16" in can.precisions else "fp32"
        ), "auto: as the card has it; the device is not here to ask"
    if "bf16" in probe.precisions:
        return "bf16", "auto: this device computes it natively"
    return "fp32", "auto: this device has no native bf16"


def device_settings(backend: Backend, recipe: Recipe) -> dict[str, str | int | float | bool]:
    """The card's settings with what the recipe says of them. Raises UserError for unknown names and wrong types."""
    known = {name: setting.default for name, setting in backend.settings.items()}
    for name, value in recipe.device.items():
        if name not in known:
            raise UserError(f"backend {backend.name} has no setting device.{name}", nearest(name, known))
        setting = backend.settings[name]
        number = isinstance(value, int | float) and isinstance(setting.default, int | float)
        if type(value) is not type(setting.default) and not (number and not isinstance(value, bool)):
            raise UserError(f"device.{name} = {value!r} has the wrong type", f"{setting.help}")
        if setting.choices and value not in setting.choices:
            raise UserError(f"device.{name} = {value!r} is not known", "choose " + " or ".join(setting.choices))
        known[name] = value
    return known


def check_job(backend: Backend, task: Task, recipe: Recipe) -> None:
    """Refuse early what the backend's card says it cannot do."""
    can = backend.capabilities
    if task.head.kind not in can.heads:
        raise UserError(f"backend {backend.name} has no head for {task.name}", f"its heads: {', '.join(can.heads)}")
    if recipe.model.layout != "auto" and recipe.model.layout not in can.layouts:
        raise UserError(f"backend {backend.name} has no layout {recipe.model.layout}", ", ".join(can.layouts))


def sequence_shape(data: DataSection, rows: int) -> Shape:
    """How the recipe has `rows` examples (0: all) made into sequences."""
    return Shape(data.seq_length, rows, data.doc_stride, data.query_length, data.strict)


def answer_rules(recipe: Recipe) -> AnswerRules:
    section = recipe.answers
    return AnswerRules(section.n_best, section.longest, section.null_threshold)


def check_length(data: DataSection, source: Source) -> None:
    most = source.config.max_position_embeddings
    if data.seq_length > most:
        raise UserError(
            f"sequence length {data.seq_length} is over {source.name}'s {most} positions",
            f"use -s {most} or less",
        )


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
        section.beta1,
        section.beta2,
        section.epsilon,
        section.weight_decay,
        section.bias_correction,
        section.clip_norm,
        section.name,
        section.trust_ratio,
        section.shard,
    )


def loss_scaling(recipe: Recipe) -> LossScaling:
    section = recipe.loss_scaling
    return LossScaling(section.initial, section.dynamic, section.grow_after, section.floor, section.patience)


def limits(recipe: Recipe, parts: Sequence[Part]) -> Limits:
    """What the batches of a run over these parts have at the most."""
    longest = max((int(part.features.lengths.max(initial=1)) for part in parts), default=1)
    sequences = limit_sequences(recipe.train.batch_size, recipe.train.micro_batch_size)
    return Limits(sequences, longest, recipe.evaluation.batch_size)


def limit_sequences(share: int, micro: int) -> int:
    """Most sequences that a rank computes at once of its share of the batch; `micro` 0: all."""
    micro_batches = -(-share // micro) if micro else 1
    return -(-share // micro_batches)


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


def make_schedule(recipe: Recipe, steps: int, processes: int) -> Schedule:
    """The learning rate of each of so many updates."""
    section = recipe.schedule
    return schedule(
        section.name,
        scaled_rate(recipe, processes),
        warming_updates(recipe, steps),
        steps,
        section.power,
        section.end_rate,
        section.decay_from,
        section.start,
        section.warmup_start,
    )


def scaled_rate(recipe: Recipe, processes: int) -> float:
    """The peak learning rate of so many processes, by the rule that the recipe names."""
    factors = {"none": 1.0, "sqrt": math.sqrt(processes), "linear": float(processes)}
    return recipe.optimizer.learning_rate * factors[recipe.ranks.learning_rate_scaling]


def warming_updates(recipe: Recipe, steps: int) -> int:
    """In how many of so many updates the learning rate warms up."""
    return recipe.schedule.warmup_steps or math.ceil(recipe.schedule.warmup * steps)


def exchange(recipe: Recipe) -> Exchange:
    section = recipe.ranks
    return Exchange(section.collectives, section.gradients, section.overlap, timeout=section.timeout)


def cache_folder(data: DataSection) -> Path | None:
    if data.cache == "off":
        return None
    if data.cache != "auto":
        return Path(data.cache).expanduser()
    home = os.environ.get("BERTKIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "bertkit" / "features"


def say_fit(fit: Fit, source: Source, say: Say) -> None:
    """Name what a weight file lacked or had too much of."""
    if source.folder is None:
        say(f"weights: {source.name} from a random start")
        return
    said = [f"weights: {source.folder}"]
    said += [f"new: {', '.join(fit.missing)}"] if fit.missing else []
    said += [f"of another shape, so new: {', '.join(fit.reshaped)}"] if fit.reshaped else []
    said += [f"not used: {', '.join(fit.unexpected)}"] if fit.unexpected else []
    say("; ".join(said))
