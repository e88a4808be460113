"""OUT/.unfinished: what is done of the work, for whoever goes on with it, and for the other ranks.

A task's note is written when the task is done, so a note that is there is true; ranks meet by waiting for notes.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.pretraining.formats.manifest import NAME, UNFINISHED, Manifest
from bertkit.data.pretraining.formats.shards import shard_file
from bertkit.data.pretraining.prepare.tasks import SHARE, Step, WorkTask
from bertkit.data.pretraining.prepare.work import KEY, START_ANEW, Work, is_noted, key_of, load_work, write_work
from bertkit.distributed.workers import GO_ON, Workers
from bertkit.distributed.world import World
from bertkit.errors import PeersLost, Stopped, UserError
from bertkit.files.disk import read_sealed, sha256_file, sweep, write_sealed, write_text
from bertkit.files.inputs import is_file
from bertkit.files.locks import NAME as LOCK

SWEPT = ".swept"  # what OUT/.unfinished is called while it is removed
LONGEST_WAIT = 3600  # seconds; a packed file of many gigabytes is one task
FIRST_WAIT = 120  # seconds until the first rank's work is seen; NFS may show a folder a minute late


def is_ours(work: Work) -> bool:
    """Whether OUT/.unfinished is there, for this work."""
    return is_noted(work.out, key_of(work))


def name_of(work: Work) -> str:
    """The tasks' name among those of other folders on the same workers."""
    return f"bertkit-prepare-{hashlib.sha256(str(work.out.absolute()).encode()).hexdigest()[:12]}"


def open_desk(work: Work, overwrite: bool, display: Display) -> None:
    """Make OUT/.unfinished, or take up the one that is there."""
    if is_ours(work):
        display.say("resuming the work of an earlier run")
        _take_up(work, display)
        return
    if work.desk.is_dir() or (work.out.is_dir() and any(path.name != LOCK for path in work.out.iterdir())):
        ours = work.desk.is_dir() or (work.out / NAME).is_file()
        if not (overwrite and ours):
            what = "unfinished data of other sources or settings" if work.desk.is_dir() else "something already"
            cure = "remove it with --overwrite, or choose another -o" if ours else "choose another -o"
            raise UserError(f"{work.out}: holds {what}", cure)
        display.say(f"{work.out}: existing shards are removed")
        _clear(work.out)
    try:
        work.desk.mkdir(parents=True)
        write_work(work)
        write_text(work.desk / KEY, key_of(work))
    except OSError as error:
        raise UserError(f"{work.out}: cannot be made: {error.strerror}", "choose another -o") from None


def _take_up(work: Work, display: Display) -> None:
    """Sweep what a kill left, and write the note of the work anew where it is damaged."""
    for folder in (work.out, work.desk):
        sweep(folder)
    try:
        load_work(work.out)
    except (UserError, KeyError, TypeError, ValueError) as error:
        display.warn(f"the progress file is damaged and rebuilt: {error}")
        write_work(work)


def _is_done(note: Path, display: Display) -> bool:
    """Whether a task's note is there, and true: what is damaged is done again, with a warning."""
    if not is_file(note):
        return False
    if wrong := _wrong(note):
        display.warn(f"what an earlier run has finished is damaged and done again: {wrong}")
        note.unlink()
    return not wrong


def _wrong(note: Path) -> str:
    """What is wrong with a task's note, or with the files that it tells of; "": nothing."""
    try:
        found = read_sealed(note)
        spills = [
            (note.parent / name, sha256)
            for name, sha256 in zip(found.get("spills", ()), found.get("hashes", ()), strict=True)
        ]
        shards = [(note.parents[1] / entry["name"], entry["sha256"]) for entry in found.get("entries", ())]
        for path, sha256 in (*spills, *shards):
            if not is_file(path) or sha256_file(path) != sha256:
                return f"{path} is not as it was written"
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        return str(error)
    return ""


def wait_for_first(work: Work) -> None:
    """Wait for the first rank to open the folder. Raises UserError where that is not seen here."""
    until = time.monotonic() + FIRST_WAIT
    while not is_ours(work):
        if time.monotonic() > until:
            raise UserError(f"{work.out}: the first process's work is not seen on {socket.gethostname()}", SHARE)
        time.sleep(0.1)


def wait_for(work: Work, there: Callable[[], bool]) -> None:
    """Wait for other ranks. Raises PeersLost where none has finished anything for LONGEST_WAIT seconds."""
    seen, since = -1, time.monotonic()
    while not there():
        now = sum(1 for _ in work.desk.glob("*.json"))
        seen, since = (now, time.monotonic()) if now != seen else (seen, since)
        if time.monotonic() - since > LONGEST_WAIT:
            raise PeersLost(f"{work.desk}: no process has finished anything for {LONGEST_WAIT} s", GO_ON)
        time.sleep(0.1)


def clear_desk(work: Work, manifest: Manifest) -> None:
    """Remove OUT/.unfinished, at once whole, and what killed writers left of shards."""
    swept = work.out / SWEPT
    shutil.rmtree(swept, ignore_errors=True)
    work.desk.rename(swept)  # a kill in the middle of the removal must not look like work to go on with
    shutil.rmtree(swept, ignore_errors=True)
    for entry in manifest.shards:
        for left in work.out.glob(f".{entry.name}.*.part"):
            left.unlink(missing_ok=True)


def _clear(out: Path) -> None:
    """Remove what we made there: shards, manifest, desk."""
    for folder in (UNFINISHED, SWEPT):
        shutil.rmtree(out / folder, ignore_errors=True)
    for path in [out / NAME, *(path for path in out.iterdir() if shard_file(path))]:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Crew:
    """Who does the work: this rank's workers, and those of every other rank."""

    work: Work
    workers: Workers
    display: Display
    world: World


def stage(crew: Crew, what: str, step: Step, weights: Sequence[int]) -> list[Mapping[str, Any]]:
    """Do what is left of this rank's tasks of a stage. On the first rank: what every task noted, in their order."""
    work, count = crew.work, len(weights)

    def note(number: int) -> Path:
        return work.desk / f"{what}-{number:06d}.json"

    mine = range(crew.world.rank, count, crew.world.size)
    left = [number for number in mine if not _is_done(note(number), crew.display)]
    total = max(1, sum(weights[number] for number in mine))
    done = total - sum(weights[number] for number in left)
    units = len(mine) if what == "write" else -(-total // 1_000_000)  # shards or MB
    with crew.display.progress(what if what == "write" else f"{what} (MB)", units, done * units // total) as bar:
        try:
            for number, found in crew.workers.run(name_of(work), WorkTask(step, work), left):
                write_sealed(note(number), found)
                done += weights[number]
                bar.to(done * units // total)
        except KeyboardInterrupt:
            raise Stopped("stopped", GO_ON) from None
    if not crew.world.is_first:
        return []
    wait_for(work, lambda: all(note(number).is_file() for number in range(count)))
    return [read_sealed(note(number), START_ANEW) for number in range(count)]
