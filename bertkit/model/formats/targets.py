"""Where a converted checkpoint goes, in which form, and how its files get there: all of them, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.errors import UserError, nearest
from bertkit.files.disk import sweep, sync_folder, temporary_beside
from bertkit.files.inputs import exists, is_file, is_folder, read_json
from bertkit.model.formats.names import dialects
from bertkit.model.formats.places import HF_FILES
from bertkit.model.formats.sources import MOMENTS_FILE

PREFIX = re.compile(r"\.ckpt(-\d+)?$")  # how a TensorFlow 1 checkpoint's prefix ends
TF1_NAME = "bert_model.ckpt"  # as Google's archives have it


@dataclass(frozen=True)
class ConversionTarget:
    """Where to, and in which form."""

    form: Literal["tf1", "hf", "pt"]
    folder: Path
    name: str = ""  # of the prefix or file; hf: none
    dialect: str = ""  # pt


def find_target(destination: Path, to: str = "") -> ConversionTarget:
    """The form by its name, or by DST's ending. Raises UserError where neither says it."""
    known = ("tf1", "hf", *dialects())
    if to and to not in known:
        raise UserError(f"--to {to} is not known", nearest(to, known))
    ending = destination.suffix
    if to in dialects() or (not to and ending == ".pt"):
        if not to:
            names = " or ".join(f"--to {name}" for name in dialects())
            raise UserError(f"{destination}: a .pt file has two dialects", f"say which: {names}")
        if ending != ".pt":
            raise UserError(f"{destination}: --to {to} writes one file", "give DST the ending .pt")
        return ConversionTarget("pt", destination.parent, destination.name, to)
    if to == "tf1" or (not to and PREFIX.search(destination.name)):
        named = bool(PREFIX.search(destination.name))
        return ConversionTarget(
            "tf1", destination.parent if named else destination, destination.name if named else TF1_NAME
        )
    if ending in (".safetensors", ".bin", ".index", ".pth", ".json") or is_file(destination):
        raise UserError(f"{destination}: models are folders", "give a folder, a *.ckpt prefix or a .pt file")
    return ConversionTarget("hf", destination)


def refuse_taken(target: ConversionTarget, overwrite: bool) -> None:
    """Raises UserError, before any work, where weights stand at the place that are not to be written over."""
    names = {"tf1": (f"{target.name}.index",), "hf": HF_FILES, "pt": (target.name,)}[target.form]
    taken = [name for name in names if exists(target.folder / name)]
    if exists(target.folder) and not is_folder(target.folder):
        raise UserError(f"{target.folder} is a file", "choose another place")
    if taken and not overwrite:
        raise UserError(f"{target.folder} already holds {taken[0]}", "use --overwrite, or choose another place")


def beside(folder: Path) -> Path:
    """A folder on the same disk, to be filled and moved in: in `folder` where there is one, else beside it.

    What a killed conversion left there is removed.
    """
    place = folder if folder.is_dir() else folder.parent
    sweep(place)
    return temporary_beside(place / "convert")


def lock_of(target: ConversionTarget) -> Path:
    """What a conversion holds: in the folder, or beside one that is not there yet, since it is moved in at once."""
    folder = target.folder.absolute()
    if folder.is_dir():
        return folder / f".{target.name or 'model'}.convert.lock"
    return folder.parent / f".{folder.name}.convert.lock"


def move_in(temporary: Path, target: ConversionTarget, overwrite: bool) -> tuple[str, ...]:
    """Put the finished files in place: the folder at once where there is none, else file by file, the index last."""
    names = sorted((path.name for path in temporary.iterdir()), key=lambda name: (name.endswith(".index"), name))
    if not target.folder.exists():
        temporary.replace(target.folder)
        sync_folder(target.folder.parent)
        return tuple(names)
    taken = [name for name in _old(target, names) if not _equal(target.folder / name, temporary / name)]
    if taken and not overwrite:
        raise UserError(
            f"{target.folder} already holds {', '.join(taken[:3])}, and of other content",
            "use --overwrite, or choose another place",
        )
    for name in taken:
        (target.folder / name).unlink()  # old shards and indexes must not stand beside new ones
    for name in names:
        if not exists(target.folder / name):
            (temporary / name).replace(target.folder / name)
    sync_folder(target.folder)
    return tuple(names)


def _old(target: ConversionTarget, names: Iterable[str]) -> list[str]:
    """Files of a checkpoint that is there already and the new one takes the place of."""
    found = {name for name in names if exists(target.folder / name)}
    if target.form == "tf1":
        found |= {path.name for path in target.folder.glob(f"{target.name}.*")}
    if target.form == "hf":
        found |= {name for name in (*HF_FILES, MOMENTS_FILE) if exists(target.folder / name)}
    return sorted(found, key=lambda name: (not name.endswith(".index"), name))


def _equal(one: Path, other: Path) -> bool:
    """Whether the old file says what the new one does; JSON may be spelled otherwise."""
    if not exists(other):
        return False
    if one.suffix == ".json":
        try:
            return bool(read_json(one) == read_json(other))
        except UserError:
            return False
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
