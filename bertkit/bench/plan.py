"""From lists of models, precisions, lengths and batch sizes to cases, everything checked before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkit.bench.suite import Kind
from bertkit.bench.workload import Workload, built_in, from_data
from bertkit.data.lengths import find_distribution
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import Progress
from bertkit.data.tasks.task import task_folder
from bertkit.engine.interface import PRECISIONS, Backend, Precision
from bertkit.engine.registry import Choice, choose
from bertkit.errors import UserError
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig
from bertkit.model.loading import ModelSource, find_source
from bertkit.recipes.recipe import Recipe
from bertkit.training.recipe_parts import with_numerics
from bertkit.training.setup import choose_precision, device_settings, find_model
from bertkit.training.supply import Say, supply

# What --set may name: the rest of a recipe has its own option here, or no part in a measurement.
SETTINGS: Mapping[Kind, tuple[str, ...]] = {
    "train": ("device.", "model.", "data.", "optimizer.", "train.micro_batch_size", "ranks."),
    "infer": ("device.", "model.", "data.", "ranks."),
}


@dataclass(frozen=True)
class Lists:
    """What is to be measured: the cases are all combinations."""

    models: Sequence[str]
    precisions: Sequence[str]
    lengths: Sequence[str]  # built-in distributions; empty: those of the recipe's task
    batch_sizes: Sequence[int]  # on each process


@dataclass(frozen=True)
class BenchModel:
    """A model to measure; `source` is None for a bare size on built-in lengths, which needs no vocabulary."""

    name: str
    config: ModelConfig
    source: ModelSource | None

    @property
    def label(self) -> str:
        return Path(self.name).name if self.source and self.source.folder else self.name


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    model: BenchModel
    precision: Precision
    lengths: str
    batch_size: int

    def __str__(self) -> str:
        return f"{self.model.label}, {self.precision}, {self.lengths}, batch {self.batch_size}"


@dataclass(frozen=True)
class BenchPlan:
    """All cases of a measurement, and what they share."""

    kind: Kind
    recipe: Recipe
    choice: Choice
    settings: Mapping[str, str | int | float | bool]  # of the backend's card
    cases: tuple[Case, ...]
    from_task: Mapping[str, Workload]  # by model's name, where lengths are a task's own
    longest: int  # built-in lengths are cut to it; 0: not

    @property
    def backend(self) -> Backend:
        return self.choice.backend

    def workload(self, case: Case) -> Workload:
        if self.from_task:
            return self.from_task[case.model.name]
        return built_in(case.lengths, case.model.config, case.batch_size, self.longest, self.recipe.seed)


def split_list(text: str, option: str) -> list[str]:
    """``a,b`` -> [a, b]. Raises UserError where nothing stands between two commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{option} {text!r} lacks a value", f"write it as {option} a,b")
    return parts


def whole_numbers(text: str, option: str) -> list[int]:
    parts = split_list(text, option)
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < 19 and int(part) > 0):
            raise UserError(f"{option} {text}: {part!r} is not a whole number above 0", f"write it as {option} 8,32")
    return [int(part) for part in parts]


def check_sets(kind: Kind, sets: Iterable[str]) -> None:
    """Refuse a setting that would be passed over silently."""
    for text in sets:
        key = text.partition("=")[0].strip()
        if key == "model.name" or not key.startswith(SETTINGS[kind]):
            used = ", ".join(f"{name}*" if name.endswith(".") else name for name in SETTINGS[kind])
            raise UserError(f"--set {key}: `bench {kind}` does not use it", f"it uses {used}; the rest are options")


def make_plan(
    kind: Kind,
    lists: Lists,
    recipe: Recipe,
    longest: int,
    progress: Progress,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> BenchPlan:
    """Raises UserError for whatever cannot run. `recipe.task`, if set, gives the lengths.

    `dry_run`: the backend need not be ready, and nothing is fetched.
    """
    names = lists.lengths or [recipe.task]
    choice = choose(recipe.backend, dry_run)
    card = choice.backend
    if kind == "train" and not card.capabilities.trains:
        raise UserError(f"backend {card.name} only answers", "measure `bench infer`, or choose another with --backend")
    precisions = [_precision(card, name, kind) for name in lists.precisions]
    settings = device_settings(card, recipe.device)
    if recipe.model.layout != "auto" and recipe.model.layout not in card.capabilities.layouts:
        has = ", ".join(card.capabilities.layouts)
        raise UserError(f"backend {card.name} has no layout {recipe.model.layout}", f"it has {has}")
    models = [_model(name, kind, recipe, say, not dry_run) for name in lists.models]
    if lists.lengths:
        for name, model in itertools.product(names, models):
            _check_positions(name, model, longest)
        heads = [find_distribution(name).head for name in names]
        from_task: dict[str, Workload] = {}
    else:
        task = find_task(recipe.task)
        heads = [task.head]
        sources = {model.name: model.source for model in models}
        from_task = {n: from_data(kind, task, recipe, source, progress) for n, source in sources.items() if source}
    _check_heads(card, heads)
    product = itertools.product(models, names, precisions, lists.batch_sizes)
    cases = tuple(Case(model, precision, name, size) for model, name, precision, size in product)
    return BenchPlan(kind, recipe, choice, settings, cases, from_task, longest)


def _precision(card: Backend, name: str, kind: Kind) -> Precision:
    if name != "auto" and name not in PRECISIONS:
        raise UserError(f"there is no precision {name!r}", "choose from " + ", ".join(PRECISIONS))
    return choose_precision(card, name, kind == "train")[0]


def _model(name: str, kind: Kind, recipe: Recipe, say: Say, may_fetch: bool) -> BenchModel:
    recipe = _named(recipe, name)
    if not recipe.task:
        if name in ARCHITECTURES and recipe.model.start != "pretrained":
            return BenchModel(name, with_numerics(ARCHITECTURES[name], recipe.model), None)
        start = supply(recipe, None, say, shape=True, may_fetch=may_fetch)
        source = find_source(start.name, start.vocab, start.casing)
        return BenchModel(name, with_numerics(source.config, recipe.model), source)
    task = find_task(recipe.task)
    start = supply(recipe, task, say, ("train" if kind == "train" else "dev",), shape=True, may_fetch=may_fetch)
    vocab = task_folder(task, Path(recipe.data.dir).expanduser()) / task.vocab if task.vocab else None
    source = find_model(recipe, vocab, start=start)
    return BenchModel(name, source.config, source)


def _named(recipe: Recipe, name: str) -> Recipe:
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=name))


def _check_positions(lengths: str, model: BenchModel, longest: int) -> None:
    most = model.config.max_position_embeddings
    reach = max(find_distribution(lengths).quantiles)
    reach = min(reach, longest) if longest else reach
    if reach > most:
        raise UserError(
            f"lengths {lengths} reach {reach} tokens, over {model.name}'s {most} positions", f"cut: -s {most}"
        )


def _check_heads(card: Backend, heads: Iterable[Head]) -> None:
    for head in heads:
        if head.kind not in card.capabilities.heads:
            has = ", ".join(card.capabilities.heads)
            raise UserError(f"backend {card.name} has no {head.kind} head", f"its heads: {has}")
