"""The trainer's functions for Python: `bertkit.train`, `evaluate`, `get_data`, `prepare`, `open_engine`, `updates`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data import sampler
from bertkit.data.features import Features
from bertkit.data.fetching import bring_named
from bertkit.data.tasks import Task
from bertkit.distributed.world import World, from_env
from bertkit.engine.interface import Engine, Job, Update
from bertkit.engine.registry import choose
from bertkit.training import inference
from bertkit.training.recipe_parts import with_global_batch
from bertkit.training.run import Run
from bertkit.training.setup import FineTuningSetup, enter_settings
from bertkit.training.setup import prepare as prepare_recipe
from bertkit.training.trainer import Trainer, own_files, resolve_keywords


def train(model: str | Path | None = None, task: str | Task | None = None, **options: Any) -> Run:
    """Train `model` on `task`: `Trainer(model=…, task=…, …).fit()`; the options are those of `Trainer`."""
    return Trainer(model=model, task=task, **options).fit()


def prepare(
    model: str | Path | None = None,
    task: str | Task | None = None,
    *,
    train: Any = None,
    dev: Any = None,
    settings: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    processes: int = 1,
    quiet: bool = True,
    **keywords: Any,
) -> FineTuningSetup:
    """Everything that a fine-tuning run needs before its first update, for a training loop of your own.

    `.job` is what `open_engine` takes; `.train.features` and `.dev[0].features` are what `updates` takes. `processes`:
    how many share an update.
    """
    resolved, own = resolve_keywords(task, own_files(keywords | {"model": model}, train, dev), settings, recipe)
    display = Display(quiet=quiet)
    made = prepare_recipe(with_global_batch(resolved.recipe, processes), display.say, display.follow(), own=own)
    # Of the device's settings the given ones alone: `open_engine` may be asked for another backend.
    return dataclasses.replace(made, job=dataclasses.replace(made.job, settings=dict(resolved.recipe.device)))


def get_data(*names: str, data_dir: str | Path = "data", quiet: bool = False) -> list[Path]:
    """Bring data sets or checkpoints into `data_dir`, verified, and return their folders; `sample` is made here.

    What is there already is not fetched again. Raises UserError for an unknown name, naming the nearest, and with what
    to do by hand where a host does not give a file.
    """
    return bring_named(list(names), Path(data_dir).expanduser(), Display(quiet=quiet).say)


def evaluate(
    run: str | Path,
    *,
    task: str | Task | None = None,
    force: bool = False,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **keywords: Any,
) -> dict[str, Any]:
    """Score the model in the folder `run` on its task's dev set: `metrics`, `examples`, `task` and more."""
    recipe, own = inference.recipe_of_run(run, task, keywords, settings)
    return inference.evaluate(recipe, World(), Display(quiet=quiet), force, own)


def open_engine(job: Job, backend: str = "auto", world: World | None = None) -> Engine:
    """The engine of a backend for a training loop of your own; close it in the end.

    `job.settings` may name some of the device's settings; `world`: None: as this process's environment says.
    Raises UserError where the backend is not ready, and for an unknown setting.
    """
    card = choose(backend).backend
    job = dataclasses.replace(job, settings=enter_settings(card, job.settings))
    return card.engine(job, world or from_env())


def updates(
    features: Features,
    batch_size: int = 32,
    seed: int = 1,
    *,
    epochs: float = 1.0,
    steps: int = 0,
    micro_batch_size: int = 0,
    world: World | None = None,
) -> Iterator[Update]:
    """This process's share of each update over shuffled epochs, as `train` has them.

    `batch_size`: sequences of an update over all processes; `steps`: so many updates, whatever `epochs`;
    `micro_batch_size`: sequences at once, 0: all of this process's share.
    """
    here = world or from_env()
    order = sampler.Sampler(len(features), batch_size, seed)
    last = steps or math.ceil(epochs * order.steps_per_epoch)
    return sampler.updates(features, order, "classification", 1, last, here.rank, here.size, micro_batch_size)
