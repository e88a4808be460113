"""How pre-training data is to be made, and everything that a worker needs to know for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from bertkit.data.pretraining.formats.checked import reading
from bertkit.data.pretraining.formats.manifest import UNFINISHED
from bertkit.data.pretraining.formats.shards import Format
from bertkit.data.pretraining.prepare.sources import CorpusFile, CorpusPart, Piece, part_bytes, plan, text_bytes
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import read_sealed, write_sealed
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary

START_ANEW = "start anew with --overwrite"
NOTE, KEY = "work.json", "key"  # in OUT/.unfinished
VERSION = 1  # of what a seed gives; part of the key that unfinished work is taken up by
SHARD_TEXT = 32 << 20  # bytes of text, repeated text counted, that make a shard where no number was asked for


@dataclass(frozen=True)
class Settings:
    """How the data is to be made."""

    format: Format = "parquet"
    seq_length: int = 128
    masking: Literal["static", "dynamic"] = "dynamic"
    next_sentence: bool = True
    short: float = 0.1
    duplicates: int = 5
    share: float = 0.15
    most_masked: int = 20
    whole_words: bool = False
    bin_size: int = 0  # 0: no bins
    shards: int = 0  # 0: by the text's size
    seed: int = 1
    compress: bool = True  # HDF5

    @property
    def bins(self) -> int:
        return self.seq_length // self.bin_size if self.bin_size else 1


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs to know."""

    settings: Settings
    vocabulary: Vocabulary
    sources: tuple[CorpusFile, ...]
    pieces: tuple[Piece, ...]
    shards: int
    out: Path

    @property
    def desk(self) -> Path:
        return self.out / UNFINISHED


def check(settings: Settings) -> None:
    """Raises UserError for settings that cannot be."""
    size, length = settings.bin_size, settings.seq_length
    if not 8 <= length <= 65535:
        raise UserError(f"sequences of {length} tokens cannot be made", "choose 8 to 65535 with -s")
    if size and settings.format != "parquet":
        raise UserError(f"{settings.format} pads every sequence, so it has no bins", "drop --bin-size")
    if size and (size > length or length % size):
        raise UserError(f"bins of {size} do not divide {length} tokens", "choose a divisor, as --bin-size 64")
    if settings.masking == "dynamic" and settings.format != "parquet":
        raise UserError(f"{settings.format} holds masked sequences", "drop --masking, or use --format parquet")
    if not (0 < settings.share < 1 and 0 <= settings.short <= 1 and settings.duplicates >= 1 and settings.shards >= 0):
        raise UserError("a share is not between 0 and 1, or a number is too small", "see `bertkit data prepare -h`")
    if settings.seed < 0:
        raise UserError(f"the seed {settings.seed} is below 0", "choose another with --seed")
    if not 1 <= settings.most_masked <= length:
        raise UserError(f"{settings.most_masked} predictions in {length} tokens cannot be", "see --max-predictions")


def plan_work(settings: Settings, vocabulary: Vocabulary, sources: tuple[CorpusFile, ...], out: Path) -> Work:
    check(settings)
    spaced = next((token.content for token in vocabulary.added if any(map(str.isspace, token.content))), None)
    if settings.format == "parquet" and spaced:
        raise UserError(
            f"the added token {spaced!r} of {vocabulary.path} has a space in it, as Parquet has between tokens",
            "choose --format hdf5 or tfrecord",
        )
    text = text_bytes(sources)
    shards = settings.shards or max(1, text * settings.duplicates // SHARD_TEXT)
    return Work(settings, vocabulary, sources, plan(sources), shards, out)


def settings_of(work: Work) -> dict[str, str | int | float | bool]:
    vocabulary = {"vocabulary": work.vocabulary.digest, "lower_case": work.vocabulary.lower_case}
    return {**asdict(work.settings), "shards": work.shards, **vocabulary}


def key_of(work: Work) -> str:
    sources = [(s.path.as_posix(), s.bytes, s.path.stat().st_mtime_ns, s.format) for s in work.sources]
    return hashlib.sha256(json.dumps([VERSION, settings_of(work), sources]).encode()).hexdigest()


def is_noted(out: Path, key: str) -> bool:
    """Whether OUT/.unfinished is there, for the work with that key."""
    note = out / UNFINISHED / KEY
    return inputs.is_file(note) and inputs.read_bytes(note) == key.encode()


def weights_of(work: Work) -> list[int]:
    return [sum(part_bytes(part, work.sources) for part in piece) for piece in work.pieces]


def write_work(work: Work) -> None:
    """Note the work in its folder. Workers read it there: what is sent to a process that dies while it starts may block
    the sender. Paths are absolute, since a worker may run in another folder."""
    write_sealed(
        work.desk / NOTE,
        {
            "settings": asdict(work.settings),
            "vocabulary": [str(work.vocabulary.path.absolute()), "uncased" if work.vocabulary.lower_case else "cased"],
            "sources": [[str(each.path.absolute()), each.name, each.bytes, each.format] for each in work.sources],
            "pieces": [[astuple(part) for part in piece] for piece in work.pieces],
            "shards": work.shards,
        },
    )


def load_work(out: Path) -> Work:
    """The work that `write_work` noted."""
    found = read_sealed(out / UNFINISHED / NOTE, START_ANEW)
    with reading(out / UNFINISHED / NOTE, START_ANEW):
        return _work(found, out)


def _work(found: Any, out: Path) -> Work:
    path, casing = found["vocabulary"]
    return Work(
        Settings(**found["settings"]),
        read_vocabulary(Path(path), casing),
        tuple(CorpusFile(Path(path), name, size, format) for path, name, size, format in found["sources"]),
        tuple(tuple(CorpusPart(*part) for part in piece) for piece in found["pieces"]),
        found["shards"],
        out,
    )
