"""Everything that a run needs before its first update: task, model, features, backend, and the job for its engine."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.data.sampler import sharded
from bertkit.data.tables.hub_tables import table_path
from bertkit.data.tasks import Task, check_own, find_task
from bertkit.data.tasks.labels import to_learn
from bertkit.data.tasks.own.labels import KINDS
from bertkit.data.tasks.own.making import check_groups, make_own_task
from bertkit.data.tasks.reading import Progress, read_split
from bertkit.data.tasks.task import AnswerRules, Part, Shape, SplitName, task_folder
from bertkit.distributed.world import World
from bertkit.engine.interface import PRECISIONS, Backend, BatchLimits, Job, Limits, Precision, Setting
from bertkit.engine.registry import Choice, choose
from bertkit.errors import UserError, nearest
from bertkit.model.config import Head
from bertkit.model.loading import ModelSource, find_source, starting_weights
from bertkit.model.pruning import chosen_layers, keep_layers
from bertkit.model.weights import Fit
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.sections import DataSection, LogSection
from bertkit.training.batch_limits import of_answers, of_training
from bertkit.training.extras import check_extras, frozen, loss_spec
from bertkit.training.recipe_parts import (
    answer_rules,
    cache_folder,
    dev_file,
    exchange,
    is_own_data,
    kept_settings,
    loss_scaling,
    optimizer_spec,
    own_data,
    sequence_shape,
    with_dropout,
    with_numerics,
)
from bertkit.training.supply import Start, keep_offline, supply
from bertkit.training.transfer import with_transfer

logger = logging.getLogger(__name__)
Say = Callable[[str], object]


@dataclass(frozen=True)
class ComputeTarget:
    """Where a job is computed, and how."""

    choice: Choice
    precision: Precision
    reason: str  # of the precision
    settings: dict[str, str | int | float | bool]  # of the backend's card, all of them

    @property
    def backend(self) -> Backend:
        return self.choice.backend


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What every training run is made of, whatever it learns from: here the recipe ends, and values begin."""

    target: ComputeTarget
    task: Task
    source: ModelSource
    fit: Fit
    job: Job
    kept: Mapping[str, Any]  # the recipe's settings that a resume may not change
    shard: str  # the share of the training data that is used, "k/n"; "": all
    result: str  # which weights are the run's: "last", or "best" on the evaluation set
    scored_at_once: int  # sequences of a batch that is only scored
    logs: LogSection


@dataclass(frozen=True, kw_only=True)
class FineTuningSetup(RunSetup):
    """A fine-tuning run that is ready to start."""

    train: Part
    dev: tuple[Part, ...]
    shape: Shape  # of the training sequences
    rules: AnswerRules


def prepare(
    recipe: Recipe,
    say: Say,
    progress: Progress,
    dry_run: bool = False,
    own: Task | None = None,
    world: World | None = None,
) -> FineTuningSetup:
    """Read and check everything, cheapest first, so that a mistake is answered before any work is done.

    `dry_run`: the backend need not be ready; `own`: a task that the caller made, which the recipe names; `world`: of a
    training whose processes learn one model.
    """
    task = task_of(recipe, own, say)
    target = choose_target(recipe, task.head, task.name, dry_run=dry_run, world=world)
    check_extras(target.backend, task, recipe)
    data_dir = Path(recipe.data.dir).expanduser()
    start = supply(recipe, task, say, ("train", "dev"), may_fetch=not dry_run)
    task_vocab = task_folder(task, data_dir) / task.vocab if task.vocab else None
    source = find_model(recipe, task_vocab, start=start)
    layers = kept_layers(recipe.model.layers, source)
    cache = cache_folder(recipe.data)
    if task.head.kind == "span":
        check_segments(source, task.name)  # before its files are encoded, which takes a minute

    def read(split: SplitName, rows: int, file: str) -> list[Part]:
        shape = sequence_shape(recipe.data, rows)
        return checked(read_split(task, data_dir, split, source.vocabulary, shape, cache, progress, file), source)

    (train,) = read("train", recipe.data.train_rows, recipe.data.train_file)
    if recipe.distill.transfer:
        shape = sequence_shape(recipe.data, 0)
        train = with_transfer(train, recipe.distill, task, source.vocabulary, shape, cache, progress, say)
    dev = read("dev", recipe.data.eval_rows, dev_file(recipe, task))
    fit = starting_weights(source, task.head, recipe.seed, recipe.model.allow_missing)
    fit, notes, warnings = to_learn(fit, source.folder, task, source.config, recipe.seed)
    say_fit(fit, source, say)
    source, fit = with_layers(source, fit, layers, say)
    for note in notes:
        say(note)
    for warning in warnings:
        logger.warning("%s", warning)
    job = make_job(recipe, task, target, source, fit, _limits(recipe, train, dev, world.size if world else 1))
    job = dataclasses.replace(job, loss=loss_spec(recipe, task, train.features))
    return FineTuningSetup(
        target=target,
        task=task,
        source=source,
        fit=fit,
        job=job,
        **of_recipe(recipe),
        train=train,
        dev=tuple(dev),
        shape=sequence_shape(recipe.data, recipe.data.train_rows),
        rules=answer_rules(recipe),
    )


def kept_layers(said: str, source: ModelSource) -> tuple[int, ...]:
    """The layers, from 0, that a model starts with of its source's; (): all. Raises UserError for what is not there."""
    if not said:
        return ()
    if source.folder is None:
        raise UserError(f"model.layers = {said}, but {source.name} starts at random", "name a size, or drop it")
    count = source.config.num_hidden_layers
    if "," not in said:
        return chosen_layers(count, None, int(said))
    return chosen_layers(count, [int(part) for part in said.split(",") if part])


def with_layers(source: ModelSource, fit: Fit, layers: tuple[int, ...], say: Say) -> tuple[ModelSource, Fit]:
    """The model of these layers alone; () for all."""
    if not layers:
        return source, fit
    say(f"layers: {', '.join(map(str, layers))} (from 0) of {source.config.num_hidden_layers}")
    config, weights = keep_layers(source.config, fit.weights, layers)
    return dataclasses.replace(source, config=config), dataclasses.replace(fit, weights=weights)


def _limits(recipe: Recipe, train: Part, dev: list[Part], ranks: int) -> Limits:
    """What the micro-batches of a run on these hold."""
    features, batch = train.features, recipe.train
    sampler = sharded(len(features), recipe.data.shard, batch.batch_size * ranks, recipe.seed)
    scored = tuple(of_answers(part.features, recipe.evaluation.batch_size) for part in dev)
    return Limits((of_training(features, sampler, ranks, batch.micro_batch_size),), scored)


def of_recipe(recipe: Recipe) -> dict[str, Any]:
    """The fields of a RunSetup that are the recipe's own words."""
    return {
        "kept": kept_settings(recipe),
        "shard": recipe.data.shard,
        "result": recipe.checkpoint.result,
        "scored_at_once": recipe.evaluation.batch_size,
        "logs": recipe.log,
    }


def make_job(recipe: Recipe, task: Task, target: ComputeTarget, source: ModelSource, fit: Fit, most: Limits) -> Job:
    return Job(
        model=with_dropout(source.config, recipe),
        head=task.head,
        weights=fit.weights,
        optimizer=optimizer_spec(recipe),
        precision=target.precision,
        seed=recipe.seed,
        layout=recipe.model.layout,
        settings=target.settings,
        exchange=exchange(recipe),
        loss_scaling=loss_scaling(recipe),
        limits=most,
        frozen=frozen(recipe, source.config, task),
    )


def inference_job(recipe: Recipe, head: Head, target: ComputeTarget, source: ModelSource, fit: Fit) -> Job:
    """Of a model that only answers."""
    at_once = recipe.evaluation.batch_size * head.sequences_each
    return Job(
        source.config,
        head,
        fit.weights,
        precision=target.precision,
        layout=recipe.model.layout,
        settings=target.settings,
        exchange=exchange(recipe),
        limits=Limits((), (BatchLimits(at_once, recipe.data.seq_length),)),
    )


def choose_target(
    recipe: Recipe, head: Head, what: str, training: bool = True, dry_run: bool = False, world: World | None = None
) -> ComputeTarget:
    """Where `what`, with this head, is computed. Raises UserError where the backend is absent or cannot do it.

    `world`: of a training whose processes learn one model.
    """
    if training and not head.trained:
        raise UserError(f"{what}: hidden states have no loss to train with", "train another head")
    choice = choose(recipe.backend, dry_run)
    if training and not choice.backend.capabilities.trains:
        raise UserError(f"backend {choice.backend.name} only answers", "train by another: choose with --backend")
    precision, reason = choose_precision(choice.backend, recipe.precision, training)
    settings = enter_settings(choice.backend, recipe.device)  # here, since reading weights may import a framework
    check_job(choice.backend, head, what, recipe)
    if world is not None:
        check_processes(choice.backend, recipe, world)
    return ComputeTarget(choice, precision, reason, settings)


def find_model(
    recipe: Recipe, task_vocab: Path | None = None, ids_only: bool = False, start: Start | None = None
) -> ModelSource:
    """The recipe's model, its vocabulary and length checked; what is odd but allowed is warned about.

    `start`: where it was found; None: the name is that of a folder or file.
    """
    start = start or Start(recipe.model.name, recipe.model.vocab, recipe.model.casing)
    source = find_source(start.name, start.vocab, start.casing, task_vocab, ids_only)
    source = dataclasses.replace(source, name=recipe.model.name, config=with_numerics(source.config, recipe.model))
    if start.random:
        source = dataclasses.replace(source, folder=None, weights=None)
    check_length(recipe.data, source)
    for warning in source.warnings:
        logger.warning("%s", warning)
    longest = source.vocabulary.longest
    if longest is not None and recipe.data.seq_length > longest:
        logger.warning(
            "sequence length %d is over the model_max_length %d of %s's tokenizer_config.json",
            recipe.data.seq_length, longest, source.name,
        )  # fmt: skip
    return source


def named(task: str | Task | None) -> tuple[str | None, Task | None]:
    """(the name for the recipe, the task itself where a caller made it). Raises UserError for a name that is taken."""
    return (check_own(task).name, task) if isinstance(task, Task) else (task, None)


def task_of(recipe: Recipe, own: Task | None = None, say: Say = lambda text: None) -> Task:
    """The recipe's task, which is `own` where a caller made it. A task of the user's own data is made here: its file's
    labels are read, and `say` tells what was found."""
    if own is not None:
        return own
    if is_own_data(recipe):
        keep_offline(recipe)
        said, train = own_data(recipe), table_path(recipe.data.train_file, "train")
        if recipe.table.group and recipe.data.dev_file:
            check_groups(train, table_path(recipe.data.dev_file, "dev"), recipe.table.group, said.options)
        return make_own_task(train, said, say)
    if recipe.task in KINDS:
        raise UserError(f"task {recipe.task} is of data of your own", "name its file with --train FILE")
    if not recipe.task:
        raise UserError(
            "no task was named",
            "name one with -t, as in -t mrpc (`bertkit data list` names them all), or your own file with --train",
        )
    return find_task(recipe.task)


def choose_precision(backend: Backend, asked: str, training: bool = True) -> tuple[Precision, str]:
    """The precision and why. Raises UserError where the backend cannot."""
    can = backend.capabilities
    if asked != "auto":
        precision = next(p for p in PRECISIONS if p == asked)
        if training and precision in can.answers_in:
            raise UserError(f"{asked} is for inference, not for training", "train in another precision: choose with -d")
        if precision not in (*can.precisions, *can.answers_in):
            has = ", ".join((*can.precisions, *(() if training else can.answers_in)))
            raise UserError(f"backend {backend.name} has no {asked}", f"it has {has}: choose with -d")
        return precision, "asked for"
    probe = backend.probe()
    if not probe.ready:  # a dry run
        return (
            "bf16" if "bf16" in can.precisions else "fp32"
        ), "auto: as the backend's capabilities have it; the device is not available"
    if "bf16" in probe.precisions:
        return "bf16", "auto: this device computes it natively"
    return "fp32", "auto: this device has no native bf16"


def enter_settings(backend: Backend, given: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """As `device_settings`; the environment then has the variables by which the device is set, too."""
    settings = device_settings(backend, given)
    os.environ.update(backend.variables(settings))
    return settings


def device_settings(backend: Backend, given: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The backend's settings, those that are `given` in place of the defaults.

    Raises UserError for unknown names and wrong types.
    """
    return own_settings(backend.settings, given, f"backend {backend.name}", "device.")


def own_settings(
    settings: Mapping[str, Setting], given: Mapping[str, Any], owner: str, prefix: str
) -> dict[str, str | int | float | bool]:
    """All of a plug-in's settings, those that are `given` in place of the defaults. `owner`, `prefix`: for errors."""
    known = {name: setting.default for name, setting in settings.items()}
    for name, value in given.items():
        if name not in known:
            cure = nearest(name, known) if known else "drop it"
            raise UserError(f"{owner} has no setting {prefix}{name}", cure)
        setting = settings[name]
        number = isinstance(value, int | float) and isinstance(setting.default, int | float)
        if type(value) is not type(setting.default) and not (number and not isinstance(value, bool)):
            raise UserError(f"{prefix}{name} = {value!r} has the wrong type", f"{setting.help}")
        if setting.choices and value not in setting.choices:
            raise UserError(f"{prefix}{name} = {value!r} is not known", "choose " + " or ".join(setting.choices))
        known[name] = value
    return known


def check_job(backend: Backend, head: Head, what: str, recipe: Recipe) -> None:
    """Refuse early what the backend's card says it cannot do."""
    can = backend.capabilities
    if head.kind not in can.heads:
        raise UserError(f"backend {backend.name} has no head for {what}", f"its heads: {', '.join(can.heads)}")
    if recipe.optimizer.name not in can.optimizers:
        raise UserError(
            f"backend {backend.name} has no optimizer {recipe.optimizer.name}", f"it has {', '.join(can.optimizers)}"
        )
    if recipe.model.layout != "auto" and recipe.model.layout not in can.layouts:
        raise UserError(f"backend {backend.name} has no layout {recipe.model.layout}", ", ".join(can.layouts))


def check_processes(backend: Backend, recipe: Recipe, world: World) -> None:
    """Refuse what this backend cannot do of what is asked for several processes; what only costs time is warned about.

    A setting that changes neither numbers nor memory here may stay in a recipe that is shared between backends.
    """
    can, ranks = backend.capabilities, recipe.ranks
    if world.size == 1 or not can.computes:
        return
    if not can.multi_process:
        raise UserError(f"backend {backend.name} computes in one process, not in {world.size}", "start one")
    if ranks.gradients not in can.gradients:
        raise UserError(
            f"backend {backend.name} does not send gradients as {ranks.gradients}",
            f"set ranks.gradients={can.gradients[0]}",
        )
    if recipe.optimizer.shard and not can.sharded_optimizer:
        raise UserError(f"backend {backend.name} cannot shard the optimizer", "set optimizer.shard=false")
    if ranks.overlap and not can.overlap and world.is_first:
        logger.warning(
            "ranks.overlap has no effect on backend %s: gradients are sent after the last pass", backend.name
        )


def check_length(data: DataSection, source: ModelSource) -> None:
    most = source.config.max_position_embeddings
    if data.seq_length > most:
        raise UserError(
            f"sequence length {data.seq_length} is over {source.name}'s {most} positions",
            f"use -s {most} or less",
        )


def checked(parts: list[Part], source: ModelSource) -> list[Part]:
    """The parts. Raises UserError where one has pairs of texts, but the model has one segment."""
    for part in parts:
        if part.features.token_type_ids.any():
            check_segments(source, str(part.file))
    return parts


def check_segments(source: ModelSource, what: str) -> None:
    """Raises UserError where the model has one segment; `what` has two."""
    if source.config.type_vocab_size < 2:
        raise UserError(
            f"{what} has pairs of texts, but the type_vocab_size of {source.name} is 1: it tells no second text",
            "take a model whose type_vocab_size is 2, or a task of single texts",
        )
    if not source.vocabulary.segments:
        raise UserError(
            f"{what} has pairs of texts, but the tokenizer_config.json of {source.name} leaves token_type_ids out of "
            "model_input_names",
            "add it there if the model was trained with two segments, or take a task of single texts",
        )


def say_fit(fit: Fit, source: ModelSource, say: Say) -> None:
    """Name what a weight file lacked or had too much of."""
    if source.folder is None:
        say(f"weights: {source.name} from a random start")
        return
    warn_of(fit)
    said = [f"weights: {source.folder}"]
    said += [f"new: {', '.join(fit.missing)}"] if fit.missing else []
    said += [f"of another shape, so new: {', '.join(fit.reshaped)}"] if fit.reshaped else []
    said += [f"not used: {', '.join(fit.unexpected)}"] if fit.unexpected else []
    said += fit.notes
    say("; ".join(said))


def warn_of(fit: Fit) -> None:
    for warning in fit.warnings:
        logger.warning("%s", warning)
