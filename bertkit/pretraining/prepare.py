"""`bertkit data prepare`: text -> shards, on all cores, in bounded memory, the same bytes whatever the workers.

First every piece of the corpus becomes sequences, spilled in random groups; then every shard gathers its share of all
spills, shuffles it and is written. What is done is noted in OUT/.unfinished, so a run that was ended goes on; the
manifest comes last.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bertkit.disk import sha256_file, write_json
from bertkit.display import Display
from bertkit.errors import UserError
from bertkit.pretraining.blocks import Counts, Making, blocks, make
from bertkit.pretraining.manifest import NAME, UNFINISHED, Manifest, ShardEntry, SourceEntry, write_manifest
from bertkit.pretraining.masking import MaskingRule, pieces_of
from bertkit.pretraining.pairs import Shape
from bertkit.pretraining.rows import Rows, join, take
from bertkit.pretraining.shards import Format, shard_file
from bertkit.pretraining.sources import Piece, Source, plan
from bertkit.pretraining.spill import gather, group_sizes, write_spill
from bertkit.pretraining.texts import Notes
from bertkit.pretraining.words import Words
from bertkit.pretraining.workers import Done, run_all
from bertkit.pretraining.writers import write_hdf5, write_parquet, write_tfrecord
from bertkit.tokenizer import Vocabulary

VERSION = 1  # of what a seed gives; part of the key that unfinished work is taken up by
SHARD_TEXT = 32 << 20  # bytes of text, repeated text counted, that make a shard where no number was asked for
GROUPS, ORDER = 1, 2  # what a random order is of


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
    sources: tuple[Source, ...]
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
        raise UserError(f"{settings.format} pads every sequence, so it has no bins", "leave --bin-size away")
    if size and (size > length or length % size):
        raise UserError(f"bins of {size} do not divide {length} tokens", "choose a divisor, as --bin-size 64")
    if settings.masking == "dynamic" and settings.format != "parquet":
        raise UserError(f"{settings.format} holds masked sequences", "leave --masking away, or use --format parquet")
    if not (0 < settings.share < 1 and 0 <= settings.short <= 1 and settings.duplicates >= 1 and settings.shards >= 0):
        raise UserError("a share is not between 0 and 1, or a number is too small", "see `bertkit data prepare -h`")
    if not 1 <= settings.most_masked <= length:
        raise UserError(f"{settings.most_masked} predictions in {length} tokens cannot be", "see --max-predictions")


def plan_work(settings: Settings, vocabulary: Vocabulary, sources: tuple[Source, ...], out: Path) -> Work:
    check(settings)
    text = sum(source.text_bytes for source in sources)
    shards = settings.shards or max(1, text * settings.duplicates // SHARD_TEXT)
    return Work(settings, vocabulary, sources, plan(sources), shards, out)


def prepare(work: Work, workers: int, display: Display, overwrite: bool = False) -> Manifest:
    """Make the data, or what an earlier run left to make.

    Raises UserError where the folder holds other data, or what the corpus gives is nothing to learn from.
    """
    resumed = _open_desk(work, overwrite, display)
    made = _stage(work, "read", spill_piece, len(work.pieces), workers, display, _weights(work))
    spills = [work.desk / name for done in made for name in done["spills"]]
    counts = {name: sum(done[name] for done in made) for name in ("documents", "sentences", "tokens")}
    _demand_sequences(work, counts, sum(done["sequences"] for done in made))
    sizes = group_sizes(spills, work.settings.bins)
    np.save(work.desk / "sizes.npy", sizes)
    write_json(work.desk / "spills.json", [path.name for path in spills])
    shards = _stage(work, "write", write_shard, work.shards, workers, display, [1] * work.shards)
    hashes = _stage(work, "hash", hash_source, len(work.sources), workers, display, [s.bytes for s in work.sources])
    entries = tuple(ShardEntry(**entry) for done in shards for entry in done["entries"])
    manifest = Manifest(
        _settings(work),
        counts["documents"],
        counts["sentences"],
        counts["tokens"],
        sum(entry.sequences for entry in entries),
        max(done["most_masked"] for done in shards),
        _notes(made),
        tuple(
            SourceEntry(s.name, s.bytes, s.format, done["sha256"]) for s, done in zip(work.sources, hashes, strict=True)
        ),
        entries,
    )
    write_manifest(work.out, manifest)
    shutil.rmtree(work.desk)
    if resumed:
        display.say("went on with what an earlier run had finished")
    return manifest


def _settings(work: Work) -> dict[str, str | int | float | bool]:
    vocabulary = {"vocabulary": work.vocabulary.digest, "lower_case": work.vocabulary.lower_case}
    return {**asdict(work.settings), "shards": work.shards, **vocabulary}


def _notes(made: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    names = sorted({name for done in made for name in done["notes"]})
    return {name: sum(done["notes"].get(name, 0) for done in made) for name in names}


def _demand_sequences(work: Work, counts: Mapping[str, int], sequences: int) -> None:
    names = ", ".join(dict.fromkeys(source.name for source in work.sources[:3]))
    if not counts["documents"]:
        raise UserError(f"{names}: no sentence in it", "name text files or folders that hold some")
    if counts["documents"] == 1 and work.settings.next_sentence:
        raise UserError(
            f"{names}: is a single document, and a random next sentence comes from another",
            "use --no-nsp, or part documents (--input-format tells them another way)",
        )
    if not sequences:
        raise UserError(f"{names}: too little text to make a sequence of", "name more text")


def _key(work: Work) -> str:
    sources = [(s.path.as_posix(), s.bytes, s.path.stat().st_mtime_ns, s.format) for s in work.sources]
    return hashlib.sha256(json.dumps([VERSION, _settings(work), sources]).encode()).hexdigest()


def _open_desk(work: Work, overwrite: bool, display: Display) -> bool:
    """Make OUT/.unfinished, or take up the one that is there. Whether something in it was done already."""
    key, note = _key(work), work.desk / "key"
    if work.desk.is_dir() and note.is_file() and note.read_text() == key:
        return any(work.desk.glob("*.json"))
    if work.desk.is_dir() or (work.out.is_dir() and any(work.out.iterdir())):
        ours = work.desk.is_dir() or (work.out / NAME).is_file()
        if not (overwrite and ours):
            what = "unfinished data of other sources or settings" if work.desk.is_dir() else "something already"
            cure = "remove it with --overwrite, or choose another -o" if ours else "choose another -o"
            raise UserError(f"{work.out}: holds {what}", cure)
        display.say(f"{work.out}: what was there is removed")
        _clear(work.out)
    try:
        work.desk.mkdir(parents=True)
        note.write_text(key)
    except OSError as error:
        raise UserError(f"{work.out}: cannot be made: {error.strerror}", "choose another -o") from None
    return False


def _clear(out: Path) -> None:
    """Remove what we made there: shards, manifest, desk."""
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    for path in [out / NAME, *(path for path in out.iterdir() if shard_file(path))]:
        path.unlink(missing_ok=True)


def _weights(work: Work) -> list[int]:
    def size(piece: Piece) -> int:
        return sum(part.stop - part.start if part.stop >= 0 else work.sources[part.source].text_bytes for part in piece)

    return [size(piece) for piece in work.pieces]


Task = Callable[[Work, int], Done]


def _stage(
    work: Work, what: str, task: Task, count: int, workers: int, display: Display, weights: Sequence[int]
) -> list[Mapping[str, Any]]:
    """Do what is not done of a stage's tasks; what each noted, in their order."""

    def note(number: int) -> Path:
        return work.desk / f"{what}-{number:06d}.json"

    left = [number for number in range(count) if not note(number).is_file()]
    total = max(1, sum(weights))
    done = total - sum(weights[number] for number in left)
    units = count if what == "write" else -(-total // 1_000_000)  # shards or MB
    with display.progress(what if what == "write" else f"{what} (MB)", units, done * units // total) as bar:
        for number, found in run_all(work, task, left, workers):
            write_json(note(number), found)
            done += weights[number]
            bar.to(done * units // total)
    return [json.loads(note(number).read_text(encoding="utf-8")) for number in range(count)]


# Tasks. Each is a pure function of (work, number), and what it writes is whole or absent.


def spill_piece(work: Work, number: int) -> Done:
    """One piece of the corpus as sequences in spill files."""
    settings, counts, notes = work.settings, Counts(), Notes()
    words, pieces = _words(work.vocabulary), pieces_of(work.vocabulary)
    shape = Shape(settings.seq_length, settings.next_sentence, settings.short)
    rule = MaskingRule(settings.share, settings.most_masked, settings.whole_words)
    making = Making(shape, rule if settings.masking == "static" else None, settings.duplicates, settings.seed)
    spills, sequences = [], 0
    for turn, block in enumerate(blocks(work.pieces[number], work.sources, words, counts, notes)):
        made = list(make(block, making, pieces, number, turn))
        if not sum(map(len, made)):
            continue
        rows = join(made)
        spills.append(f"spill-{number:06d}-{turn:04d}.safetensors")
        sequences += len(rows)
        seed = (settings.seed, GROUPS, number, turn)
        write_spill(work.desk / spills[-1], rows, settings.bin_size, settings.bins, work.shards, seed)
    return {"spills": spills, "sequences": sequences, "notes": notes.counts, **asdict(counts)}


def write_shard(work: Work, number: int) -> Done:
    """One shard, of every bin."""
    settings = work.settings
    spills = [work.desk / name for name in json.loads((work.desk / "spills.json").read_text())]
    entries, most = [], 0
    for bin, rows in enumerate(gather(spills, np.load(work.desk / "sizes.npy"), number, work.shards)):
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, ORDER, number, bin])))
        rows = take(rows, stream.permutation(len(rows)))
        path = work.out / shard_name(settings, number, work.shards, bin)
        _write(path, rows, work, bin)
        most = max(most, int(rows.masked_counts.max(initial=0)))
        masked = len(rows.positions)
        size = path.stat().st_size
        entries.append(asdict(ShardEntry(path.name, len(rows), len(rows.input_ids), masked, size, sha256_file(path))))
    return {"entries": entries, "most_masked": most}


def hash_source(work: Work, number: int) -> Done:
    return {"sha256": sha256_file(work.sources[number].path)}


def shard_name(settings: Settings, number: int, shards: int, bin: int) -> str:
    """As LDDL, MLPerf's chopped data and TensorFlow name theirs."""
    if settings.format == "parquet":
        return f"part.{number}.parquet" + (f"_{bin}" if settings.bin_size else "")
    if settings.format == "hdf5":
        return f"part_{number:05d}_of_{shards:05d}.hdf5"
    return f"part.tfrecord-{number:05d}-of-{shards:05d}"


def _write(path: Path, rows: Rows, work: Work, bin: int) -> None:
    settings = work.settings
    if settings.format == "parquet":
        static = settings.masking == "static"
        write_parquet(path, rows, work.vocabulary, static, bin if settings.bin_size else None)
    elif settings.format == "hdf5":
        write_hdf5(path, rows, settings.seq_length, settings.most_masked, settings.compress)
    else:
        write_tfrecord(path, rows, settings.seq_length, settings.most_masked)


_remembered: dict[str, Words] = {}


def _words(vocabulary: Vocabulary) -> Words:
    """This process's memory of words, kept from piece to piece."""
    key = f"{vocabulary.digest} {vocabulary.lower_case}"
    if key not in _remembered:
        _remembered.clear()
        _remembered[key] = Words(vocabulary)
    return _remembered[key]
