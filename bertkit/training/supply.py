"""What a run needs that is not here: its model and its task's files, found or fetched, or named in one line.

All of it comes into the data folder. A model comes from the hub where the package for it is installed, else it is
Google's archive, unpacked.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.data.fetching import bring, own_sources, size_of
from bertkit.data.tasks.task import SplitName, Task, sources_of, split_files, task_folder
from bertkit.errors import UserError
from bertkit.files import hub
from bertkit.files.downloads import Download, DownloadSource, File, Unreachable, load_sources
from bertkit.model.config import ARCHITECTURES
from bertkit.model.names import (
    CHECKPOINTS,
    MODELS,
    ModelPlace,
    find_local,
    is_own_folder,
    published,
    published_of_size,
)
from bertkit.model.vocabulary import Casing
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.sections import DataSection

Say = Callable[[str], object]
DATA_DIR = DataSection().dir


@dataclass(frozen=True)
class Start:
    """What a model begins with, in the words that `find_source` takes."""

    name: str  # a path, a size to be started at random, or the hub's name of a model that is not in the table
    vocab: str
    casing: Casing
    random: bool = False


@dataclass(frozen=True)
class Need:
    """A published model, or only its vocabulary, that a run wants."""

    source: DownloadSource
    part: Literal["model", "vocabulary"]
    place: ModelPlace | None  # None: not here


@dataclass(frozen=True)
class Lack:
    """What is not here."""

    model: DownloadSource | None
    data: tuple[DownloadSource, ...]
    data_dir: Path

    def __bool__(self) -> bool:
        return self.model is not None or bool(self.data)


def supply(
    recipe: Recipe,
    task: Task | None,
    say: Say,
    splits: tuple[SplitName, ...] = (),
    beside: Path | None = None,
    shape: bool = False,
    may_fetch: bool = True,
) -> Start:
    """Find or fetch the recipe's model and the files of `splits`.

    `task`: None in pre-training, where no vocabulary but that of the data will do; `beside` is that one. `shape`: the
    name of a size is no more than that, so the model starts at random. `may_fetch`: False in a dry run.

    Raises UserError, in one line with the commands that would fetch all of it, where something is not here and cannot
    be fetched.
    """
    data_dir = Path(recipe.data.dir).expanduser()
    if task is None and data_dir.is_file():  # a single shard
        data_dir = data_dir.parent
    keep_offline(recipe)
    need = model_need(recipe, task, beside, shape, data_dir)
    data = lacking_data(recipe, task, splits, data_dir) if task else ()
    lack = Lack(need.source if need and need.place is None else None, data, data_dir)
    if lack:
        why = _why_not(recipe, may_fetch)
        if why:
            raise cannot_fetch(lack, why)
        need = _fetch(lack, need, say)
    if need:
        _say_found(recipe.model.name, need, say)
    elif task and recipe.model.start == "auto" and starts_at_random(recipe, task):
        _say_random(recipe.model.name, task, say)
    return _start(recipe, task, need, shape)


def keep_offline(recipe: Recipe) -> None:
    """Forbid the hub's client a network where the recipe does; it reads the variable when it is imported."""
    if recipe.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def data_only(recipe: Recipe, task: Task, say: Say, split: SplitName, may_fetch: bool = True) -> None:
    """As `supply`, for a trained model, which is a folder."""
    data_dir = Path(recipe.data.dir).expanduser()
    lack = Lack(None, lacking_data(recipe, task, (split,), data_dir), data_dir)
    if lack:
        why = _why_not(recipe, may_fetch)
        if why:
            raise cannot_fetch(lack, why)
        _fetch(lack, None, say)


def starts_at_random(recipe: Recipe, task: Task | None, shape: bool = False) -> bool:
    """Whether the recipe's model has no weights to begin with.

    Where the recipe leaves it open, the name of a size is no more than a shape in pre-training and measuring, where the
    task brings a vocabulary of its own, with which no published model was trained, and where none of it is published.
    """
    name = recipe.model.name
    if recipe.model.start != "auto":
        return recipe.model.start == "random"
    return name in ARCHITECTURES and (shape or bool(task and task.vocab) or published(name) is None)


def model_need(recipe: Recipe, task: Task | None, beside: Path | None, shape: bool, data_dir: Path) -> Need | None:
    """The published model that the recipe's name means; None: it means none, or only its size is wanted.

    Raises UserError for a size without published weights where pre-trained ones are asked for.
    """
    name = recipe.model.name
    source = None if is_own_folder(name) else published(name)
    if source is None:
        if name in ARCHITECTURES and recipe.model.start == "pretrained":
            other = published_of_size(name)
            raise UserError(
                f"no pre-trained model is called {name}",
                f"drop model.start=pretrained, or give {f'-m {other.name}' if other else 'a folder'}",
            )
        return None
    if not starts_at_random(recipe, task, shape):
        return Need(source, "model", find_local(source, data_dir))
    has_words = recipe.model.vocab or beside or task is None or task.vocab
    return None if has_words else Need(source, "vocabulary", find_local(source, data_dir, vocabulary_only=True))


def lacking_data(
    recipe: Recipe, task: Task, splits: tuple[SplitName, ...], data_dir: Path
) -> tuple[DownloadSource, ...]:
    """The task's entries of the table, where files of `splits` are not here and they can bring them.

    A data folder that was named and does not exist is a mistake, and a folder with some of the files is the user's.
    """
    named = {"train": recipe.data.train_file, "dev": recipe.data.dev_file, "test": ""}
    wanted = [split for split in splits if not named[split] and task.splits.get(split)]
    if not wanted or (not data_dir.is_dir() and recipe.data.dir != DATA_DIR):
        return ()
    found = []
    for source in filter(None, map(load_sources().get, sources_of(task))):
        own = [split for split in wanted if not task.sources or _brings(source, task, split)]
        if source.downloads and own and _lacks(task, source, own, data_dir):
            found.append(source)
    return tuple(found)


def _brings(source: DownloadSource, task: Task, split: SplitName) -> bool:
    return bool({one.file for one in task.splits[split]} & {file.name for file in source.files})


def _lacks(task: Task, source: DownloadSource, splits: list[SplitName], data_dir: Path) -> bool:
    if not data_dir.is_dir():
        return True
    try:
        folder = task_folder(task, data_dir)
    except UserError:
        return True
    return folder == data_dir / source.folder and not _has_files(task, source, splits, folder)


def _has_files(task: Task, source: DownloadSource, splits: list[SplitName], folder: Path) -> bool:
    try:
        found = [task.format.find(task, folder, split, one) for split in splits for one in split_files(task, split)]
    except UserError:
        return False
    if not any(path.name in task.raw_files for path in found):
        return True
    others = (file.name for file in source.files if file.name not in task.raw_files)  # that say how a raw one is split
    return all((folder / name).exists() for name in others)


def _why_not(recipe: Recipe, may_fetch: bool) -> str:
    if recipe.offline:
        return "nothing is fetched offline"
    if hub.is_offline():
        return "HF_HUB_OFFLINE forbids a network"
    return "" if may_fetch else "a dry run fetches nothing"


def cannot_fetch(lack: Lack, why: str) -> UserError:
    """One line: what is not here, the commands that fetch it, the folders to fill."""
    there = "" if lack.data_dir == Path(DATA_DIR) else f" --data-dir {lack.data_dir}"
    named = [(lack.model, "model")] if lack.model else []
    named += [(source, "data") for source in lack.data]
    things = " and ".join(f"{'the model ' if what == 'model' else 'the data of '}{one.name}" for one, what in named)
    gets = " and ".join(f"`bertkit data get {source.name}{there}`" for source, _ in named)
    folders = [str(lack.data_dir / source.folder) for source, _ in named]
    if lack.model:
        folders[0] += f" (or one in {MODELS})"
    fetches = "fetch them" if len(named) > 1 else "fetches it"
    are = "are" if len(named) > 1 else "is"
    return UserError(
        f"{things} {are} not here, and {why}",
        f"where there is a network {gets} {fetches}; the folder{'s' * (len(named) > 1)} to fill: {', '.join(folders)}",
    )


def _fetch(lack: Lack, need: Need | None, say: Say) -> Need | None:
    """Fetch it. Raises UserError as `cannot_fetch` where no host gives it."""
    for line in own_sources():
        say(line)
    try:
        for number, source in enumerate(lack.data):
            _fetch_data(source, lack.data_dir, say)
            lack = Lack(lack.model, lack.data[number + 1 :], lack.data_dir)
        if lack.model and need:
            return Need(need.source, need.part, _fetch_model(need, lack.data_dir, say))
    except Unreachable as error:
        raise cannot_fetch(lack, error.cause) from None
    return need


def _fetch_data(source: DownloadSource, data_dir: Path, say: Say) -> None:
    folder = data_dir / source.folder
    say(f"data: {source.name} is not here, so it is fetched into {folder} ({size_of(source)})")
    bring(source, data_dir, say)
    say(f"data: {folder} is complete; terms of use: {source.terms} ({source.homepage})")


def _fetch_model(need: Need, data_dir: Path, say: Say) -> ModelPlace:
    """From the hub where its package is installed, else as Google's archive."""
    source, words = need.source, need.part == "vocabulary"
    if source.hub and hub.is_installed():
        try:
            return _from_hub(source, words, data_dir, say)
        except Unreachable as error:
            if not source.downloads:
                raise
            say(f"warning: {error.cause}; trying Google's archive")
    say(f"model: {source.name} is fetched into {data_dir / source.folder} ({size_of(source)}, {source.terms})")
    bring(source, data_dir, say)
    found = find_local(source, data_dir, {}, words)
    if found is None:
        raise UserError(f"{data_dir / source.folder}: what was fetched is no model", "remove the folder")
    return found


def _from_hub(source: DownloadSource, words: bool, data_dir: Path, say: Say) -> ModelPlace:
    listed = hub.list_files(source.hub)
    wanted = [file for file in listed if not words or file.name == "vocab.txt" or file.name.startswith("tokenizer")]
    downloads = tuple(Download(file.name, file.sha256, url=hub.HUB + file.path, size=file.size) for file in wanted)
    files = tuple(File(one.name, one.sha256) for one in downloads)
    theirs = dataclasses.replace(
        source, folder=f"{CHECKPOINTS}/{source.name}", downloads=downloads, files=files, about=None
    )
    folder = data_dir / theirs.folder
    say(f"model: {source.hub} is fetched from {hub.endpoint()} into {folder} ({size_of(theirs)}, {source.terms})")
    bring(theirs, data_dir, say, hub.endpoint())
    found = find_local(source, data_dir, {}, words)
    if found is None:
        raise Unreachable(f"{source.hub} has no whole model")
    return found


def _say_random(name: str, task: Task, say: Say) -> None:
    if task.vocab:
        say(f"model: {name} starts at random, since task {task.name} has a vocabulary of its own")
    else:
        other = published_of_size(name)
        of_size = f"; of its size there is {other.name}" if other else ""
        say(f"warning: model {name} starts at random, since no pre-trained model is called so{of_size}")


def _say_found(name: str, need: Need, say: Say) -> None:
    if need.place:
        what = "" if need.part == "model" else "the vocabulary of "
        say(f"model: {name} means {what}{need.source.name}, found in {need.place.said}: {need.place.path}")


def _start(recipe: Recipe, task: Task | None, need: Need | None, shape: bool) -> Start:
    model, name = recipe.model, recipe.model.name
    random = starts_at_random(recipe, task, shape)
    source = None if is_own_folder(name) else published(name)
    if source is None or (random and need is None):
        return Start(source.architecture if source else name, model.vocab, model.casing, random)
    if need is None or need.place is None:
        raise AssertionError("a model that is needed was found or fetched")
    casing = need.place.casing if model.casing == "auto" and not model.vocab else model.casing
    if random:
        return Start(source.architecture, str(need.place.folder / "vocab.txt"), casing, True)
    return Start(str(need.place.path), model.vocab, casing)
