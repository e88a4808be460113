"""What a model's name means: a published model, and where it lies on this computer.

Looked for in this order: the data folder's `checkpoints/`, the folder that BERTKIT_MODELS names, the hub's cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import UserError
from bertkit.files import hub
from bertkit.files.downloads import DownloadSource, load_sources
from bertkit.model.config import ARCHITECTURES
from bertkit.model.formats.places import find_kind
from bertkit.model.vocabulary import Casing

MODELS = "BERTKIT_MODELS"  # environment: a folder with models' folders
CHECKPOINTS = "checkpoints"  # under the data folder
CONFIGS = ("config.json", "bert_config.json")
VOCABULARIES = ("vocab.txt", "tokenizer.json")


@dataclass(frozen=True)
class ModelPlace:
    """Where a published model lies."""

    path: Path  # a folder, a checkpoint's prefix or a `.pt` file
    said: str  # which of the places it is
    casing: Casing = "auto"  # where no file beside the weights says it

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


def published_models() -> list[DownloadSource]:
    """The table's models."""
    return [source for source in load_sources().values() if source.architecture]


def all_names(source: DownloadSource) -> tuple[str, ...]:
    """Every name that -m understands for it, the shortest first."""
    google = Path(source.folder).name
    old = source.hub.rpartition("/")[2]  # what the hub called it before it had organisations
    return tuple(dict.fromkeys((*source.aliases, source.name, source.hub, old, google)))


def published(name: str) -> DownloadSource | None:
    """The published model called `name`; None: it means something else."""
    wanted = name.lower()
    return next((one for one in published_models() if wanted in map(str.lower, all_names(one))), None)


def published_of_size(size: str) -> DownloadSource | None:
    """The first published model of a size that none is called after."""
    return next((one for one in published_models() if one.architecture == size), None)


def known_names() -> list[str]:
    """Sizes and published models, for a mistyped one."""
    return [*ARCHITECTURES, *(name for source in published_models() for name in (*source.aliases, source.name))]


def is_own_folder(name: str) -> bool:
    """Whether the name is that of a folder here; a size never is."""
    return name not in ARCHITECTURES and Path(name).expanduser().is_dir()


def find_local(
    source: DownloadSource, data_dir: Path, env: Mapping[str, str] = os.environ, vocabulary_only: bool = False
) -> ModelPlace | None:
    """Where the model lies on this computer, whole; None: nowhere. `vocabulary_only`: its weights may be missing."""
    for folder, said in _candidates(source, data_dir, env):
        path = _model_in(folder, vocabulary_only)
        if path is not None:
            told = any((folder / name).exists() for name in ("tokenizer_config.json", "tokenizer.json"))
            return ModelPlace(path, said, "auto" if told else source.casing)
    return None


def _candidates(source: DownloadSource, data_dir: Path, env: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """(folder, which place it is in) in the order of looking, those that exist."""
    places = [(data_dir / CHECKPOINTS, "the data folder")]
    if env.get(MODELS):
        places.append((Path(env[MODELS]).expanduser(), MODELS))
    own = data_dir / source.folder
    folders = [(own, "the data folder")]
    folders += [(place / name, said) for place, said in places for name in all_names(source)]
    yield from ((folder, said) for folder, said in folders if folder.is_dir())
    for repository in (source.hub, source.hub.removeprefix("google-bert/")):
        found = hub.cached(repository, env) if repository else None
        if found:
            yield found, "the hub's cache"


def _model_in(folder: Path, vocabulary_only: bool) -> Path | None:
    """What the weights are read from, where the folder also has a configuration and a vocabulary."""
    if vocabulary_only:
        return folder if (folder / VOCABULARIES[0]).is_file() else None
    if not any((folder / name).is_file() for name in CONFIGS):
        return None
    if not any((folder / name).is_file() for name in VOCABULARIES):
        return None
    try:
        kind, path = find_kind(folder)
    except UserError:
        return None
    return None if kind == "tf1" and not _shards_are_there(path) else path


def _shards_are_there(prefix: Path) -> bool:
    """A killed copy may have left the index without its data."""
    shards = sorted(prefix.parent.glob(prefix.name + ".data-*-of-*"))
    last = shards[-1].name.rpartition("-of-")[2] if shards else ""
    return last.isdecimal() and len(shards) == int(last)
