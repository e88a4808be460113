"""Which files are shards of pre-training data, in which format and bin, and what each says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.errors import UserError
from bertkit.files import inputs

Format = Literal["parquet", "hdf5", "tfrecord"]
NAMES: dict[Format, re.Pattern[str]] = {
    "parquet": re.compile(r".*\.parquet(_(?P<bin>[0-9]{1,9}))?$"),  # LDDL: part.N.parquet_BIN
    "hdf5": re.compile(r".*\.(hdf5|h5)$"),
    "tfrecord": re.compile(r".*\.tf_?record(-\d+-of-\d+)?$"),
}
UNBINNED = -1
INSTALL = "pip install 'bertkit[pretrain]'"


@dataclass(frozen=True)
class ShardFile:
    path: Path
    format: Format
    bin: int  # UNBINNED where the file's name has none


@dataclass(frozen=True)
class Shard:
    """A file, and what is known of it without decoding it."""

    file: ShardFile
    sequences: int
    longest: int  # tokens of a sequence at the most
    static: bool  # masked when it was made
    most_masked: int = 0  # masked maximum per sequence; 0: not known


def find_shards(place: Path) -> tuple[ShardFile, ...]:
    """The shards in a folder, or the one file, in the order of the numbers in their names.

    Raises UserError where there is none, or where they are of several formats, or only some are binned.
    """
    if not inputs.exists(place):
        raise UserError(f"{place}: there is no such file or folder", "`bertkit data prepare` makes pre-training data")
    paths = sorted(inputs.inside(place), key=_by_numbers) if inputs.is_folder(place) else [place]
    found = tuple(file for path in paths if (file := shard_file(path)))
    if not found:
        raise UserError(f"{place}: holds no shards (.parquet, .hdf5, .tfrecord)", _where_else(place))
    for file in found[1:]:
        if file.format != found[0].format:
            raise UserError(
                f"{place}: {found[0].path.name} is {found[0].format}, {file.path.name} {file.format}",
                "give each format a folder of its own",
            )
        if (file.bin == UNBINNED) != (found[0].bin == UNBINNED):
            raise UserError(
                f"{place}: of {found[0].path.name} and {file.path.name} only one is binned",
                "give binned and unbinned data folders of their own",
            )
    return found


def shard_file(path: Path) -> ShardFile | None:
    """The shard that a file is by its name; None for other files."""
    if path.name.startswith((".", "_")) or not inputs.is_file(path):  # _metadata is Dask's
        return None
    for format, name in NAMES.items():
        if match := name.fullmatch(path.name):
            return ShardFile(path, format, int(match.groupdict().get("bin") or UNBINNED))
    return None


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]{1,18})", path.name)
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]


def _where_else(place: Path) -> str:
    if not inputs.is_folder(place):
        return "name a shard or a folder of shards"
    folders = [each for each in inputs.inside(place) if inputs.is_folder(each)]
    inside = [each.name for each in folders if any(map(shard_file, inputs.inside(each)))]
    return f"its folders {', '.join(inside[:4])} do: name one" if inside else "name the folder that holds them"
