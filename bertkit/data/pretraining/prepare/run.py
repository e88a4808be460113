"""`bertkit data prepare`: text -> shards, on any workers, in bounded memory, the same bytes whatever the workers.

First every piece of the corpus becomes sequences, spilled in random groups; then every shard gathers its share of all
spills, shuffles it and is written. What is done is noted in OUT/.unfinished, so a run that was ended goes on; the
manifest comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bertkit.console import Display
from bertkit.data.pretraining.formats.manifest import Manifest, ShardEntry, SourceEntry, write_manifest
from bertkit.data.pretraining.prepare.external_shuffle import group_sizes
from bertkit.data.pretraining.prepare.progress import (
    Crew,
    clear_desk,
    name_of,
    open_desk,
    stage,
    wait_for,
    wait_for_first,
)
from bertkit.data.pretraining.prepare.steps import SIZES, SPILLS, hash_source, spill_piece, write_shard
from bertkit.data.pretraining.prepare.work import Work, settings_of, weights_of
from bertkit.distributed.workers import Workers
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.files.disk import write_sealed
from bertkit.files.locks import alone_in
from bertkit.model.tokenizer_files import write_rules


def prepare(
    work: Work, workers: Workers, display: Display, overwrite: bool = False, world: World | None = None
) -> Manifest | None:
    """Make the data, or what an earlier run left to make. Of several ranks, which share the folder, only the first
    has the manifest.

    Raises UserError where the folder holds other data, or what the corpus gives is nothing to learn from.
    """
    world = world or World()
    with alone_in(work.out, "`data prepare`", world.is_first):
        return _prepare(work, workers, display, overwrite, world)


def _prepare(work: Work, workers: Workers, display: Display, overwrite: bool, world: World) -> Manifest | None:
    if world.is_first:
        workers.wait_idle(name_of(work))
        open_desk(work, overwrite, display)
    else:
        wait_for_first(work)
    crew = Crew(work, workers, display, world)
    made = stage(crew, "read", spill_piece, weights_of(work))
    if world.is_first:
        _plan_shards(work, made)
    else:
        wait_for(work, lambda: (work.desk / SPILLS).is_file())
    shards = stage(crew, "write", write_shard, [1] * work.shards)
    hashes = stage(crew, "hash", hash_source, [source.bytes for source in work.sources])
    if not world.is_first:
        return None
    manifest = _manifest(work, made, shards, hashes)
    write_rules(work.out, work.vocabulary)  # for who reads or learns from it
    write_manifest(work.out, manifest)
    clear_desk(work, manifest)
    return manifest


def _plan_shards(work: Work, made: Sequence[Mapping[str, Any]]) -> None:
    """Note what the shards are gathered from; raises UserError where that is nothing."""
    documents, sequences = (sum(done[name] for done in made) for name in ("documents", "sequences"))
    names = ", ".join(dict.fromkeys(source.name for source in work.sources[:3]))
    if not documents:
        raise UserError(f"{names}: no sentence in it", "name text files or folders that hold some")
    if documents == 1 and work.settings.next_sentence:
        raise UserError(
            f"{names}: is a single document, and a random next sentence comes from another",
            "use --no-nsp, or part documents (--input-format tells them another way)",
        )
    if not sequences:
        raise UserError(f"{names}: too little text to make a sequence of", "name more text")
    spills = [name for done in made for name in done["spills"]]
    sizes = group_sizes([work.desk / name for name in spills], work.settings.bins)
    write_sealed(work.desk / SIZES, {"sizes": sizes.tolist()})
    write_sealed(work.desk / SPILLS, {"spills": spills})


def _manifest(
    work: Work,
    made: Sequence[Mapping[str, Any]],
    shards: Sequence[Mapping[str, Any]],
    hashes: Sequence[Mapping[str, Any]],
) -> Manifest:
    entries = tuple(ShardEntry(**entry) for done in shards for entry in done["entries"])
    sources = zip(work.sources, hashes, strict=True)
    return Manifest(
        settings_of(work),
        sum(done["documents"] for done in made),
        sum(done["sentences"] for done in made),
        sum(done["tokens"] for done in made),
        sum(entry.sequences for entry in entries),
        max(done["most_masked"] for done in shards),
        _notes(made),
        tuple(SourceEntry(source.name, source.bytes, source.format, done["sha256"]) for source, done in sources),
        entries,
    )


def _notes(made: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each thing was done to the text, by its name and the file in which it came first."""
    first: dict[str, str] = {}
    for done in made:
        first = done["first"] | first
    return {
        f"{name}, first in {file}": sum(done["notes"].get(name, 0) for done in made)
        for name, file in sorted(first.items())
    }
