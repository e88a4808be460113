"""For the day somebody has the chip: everything worth knowing of bertkit on it, in one folder to send.

    python benchmarks/on_hardware.py NAME -o out/                 # NAME: as `bertkit backends` lists it; 25 minutes
    python benchmarks/on_hardware.py NAME -o out/ --dry-run       # the parts, their commands and limits
    python benchmarks/on_hardware.py cpu -o out/ --size small     # a try of the script itself, in a few minutes

Facts of the host, every check of the contract, the speed of five cases as the backend comes and with its graphs and
its compiler turned over, what once failed on accelerators (`hardware_trials.py`), and profiles; what matters most
first (`hardware_plan.py`). Each part is a process with a limit of its own: one that fails or hangs costs the others
nothing, and all that it started is ended. What no longer fits into --minutes is named. Ctrl-C ends it with a summary.

It makes its own data and needs no network. Exit code 0: all is well; 1: something failed; 130: ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from hardware_plan import Kind, Part, Places, chosen, pick, plan, scale_of
from hardware_plan import show as show_plan
from hardware_processes import run_part
from hardware_report import BAD, Result, show, summary

from bertkit.files.processes import adopt_orphans

RESERVE = 10.0  # seconds kept for the summary and the archive
LOOK = 90.0  # seconds that `bertkit backends` may take; a driver in trouble can hang it
MOST = 50_000_000  # bytes of a file in the archive
CACHE = "cache"  # of compiled programs, kept from part to part
NO_TIME, ENDED = "no time was left", "ended by a signal, as Ctrl-C"


class Interrupted(Exception):
    """Ctrl-C, or another signal to end."""


def look(name: str, places: Places) -> tuple[dict[str, Any], str]:
    """(what the backend says of itself, a warning). Raises SystemExit with the line of an unknown name."""
    try:
        done = subprocess.run(
            places.bertkit("backends", name, "--json"), capture_output=True, text=True, timeout=LOOK, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        nothing = {"name": name, "detail": "unknown", "ready": True, "settings": {}, "native_precisions": []}
        return nothing, f"bertkit backends {name} did not end within {LOOK:g} s, so its settings are not known"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"bertkit backends ended with code {done.returncode}"]
        raise SystemExit(f"on_hardware: {lines[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found, "" if found["ready"] else f"{found['name']} is not ready: {found['detail']}"


class Call:
    """The parts of one call as they go: what ended how, and the time."""

    def __init__(self, parts: Sequence[Part], places: Places, minutes: float, started: float) -> None:
        """`started`: of time.monotonic(); `minutes` count from then."""
        self.waiting, self.places = list(parts), places
        self.whole, self.started = minutes * 60, started
        self.results: list[Result] = []
        self.left_out: list[tuple[Part, str]] = []
        self.ended = "all parts were reached"
        self.count = len(parts)

    @property
    def left(self) -> float:
        return self.whole - RESERVE - (time.monotonic() - self.started)

    def run(self) -> None:
        spent: dict[Kind, float] = {}
        try:
            while part := pick(self.waiting, spent, self.left, self.whole):
                self.waiting.remove(part)
                self._one(part)
                spent[part.kind] = spent.get(part.kind, 0.0) + self.results[-1].seconds
            if self.waiting:
                self.ended = NO_TIME
        except Interrupted:
            self.ended = ENDED
        self.left_out += [(part, self.ended) for part in self.waiting]

    def leave_out(self, kept: Kind, reason: str) -> None:
        """All parts but those of one kind."""
        self.left_out += [(part, reason) for part in self.waiting if part.kind != kept]
        self.waiting = [part for part in self.waiting if part.kind == kept]

    def _one(self, part: Part) -> None:
        limit, minutes = min(part.limit, self.left), self.left / 60
        number = f"[{len(self.results) + 1}/{self.count}]"
        print(f"{number} {part.name}: at most {limit:.0f} s; {minutes:.1f} min left", flush=True)
        start = time.monotonic()
        try:
            result = run_part(part, limit, self.places.out / "logs" / f"{part.name}.txt")
        except Interrupted:
            self.results.append(
                Result(
                    name=part.name, kind=part.kind, outcome="interrupted", detail=ENDED,
                    seconds=time.monotonic() - start, command=part.commands[0],
                )
            )  # fmt: skip
            raise
        self.results.append(result)
        print(f"{number} {part.name}: {result.outcome} in {result.seconds:.1f} s: {result.detail}", flush=True)
        clear(self.places.scratch)


def clear(scratch: Path) -> None:
    """Remove what a part left there, which can be gigabytes of checkpoints; the cache of compiled programs stays."""
    for path in scratch.iterdir():
        if path.name != CACHE:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of a terminal raise Interrupted, once: the summary is then not interrupted again."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write(call: Call, about: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as text and JSON, in the folder."""
    seconds = round(time.monotonic() - call.started, 1)
    made = summary({**about, "seconds": seconds, "ended": call.ended}, call.results, call.left_out)
    out = call.places.out
    (out / "summary.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "summary.txt").write_text(show(made), encoding="utf-8")
    return made


def pack(out: Path, target: Path) -> list[str]:
    """The folder as one file to send; the names of what is too large for it."""
    large = []
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            if path.stat().st_size > MOST:
                large.append(str(path.relative_to(out)))
            else:
                archive.add(path, arcname=f"{out.name}/{path.relative_to(out)}")
    return large


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="on_hardware.py", description="Check and measure bertkit on a device, into one folder to send."
    )
    parser.add_argument("backend", help="Backend, as `bertkit backends` lists it.")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="New folder for everything.")
    parser.add_argument("--minutes", type=float, default=25.0, help="End within this time (default: 25).")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="Tiny models to try the script.")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="Only parts that begin so: check.resume, speed."
    )
    parser.add_argument("--dry-run", action="store_true", help="List the parts, their commands and limits.")
    return parser


def prepare(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[Path, Places]:
    """(archive, places). Nothing is written yet."""
    out = asked.out.expanduser().resolve()
    archive = out.parent / f"{out.name}.tar.gz"
    if not asked.minutes > 0:
        parser.error(f"--minutes {asked.minutes:g}: give more than 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"{out} is there already; name a new folder with -o")
    if archive.exists():
        parser.error(f"{archive} is there already; name another folder with -o")
    return archive, Places(python=sys.executable, out=out, scratch=out / "scratch")


def main(words: Sequence[str] | None = None) -> int:
    parser = options()
    asked = parser.parse_args(words)
    archive, places = prepare(asked, parser)
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    backend, warning = look(asked.backend, places)
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    from bertkit.conformance import CHECKS

    parts = plan(backend, list(CHECKS), scale_of(asked.size, backend["name"]), places)
    try:
        parts = chosen(parts, asked.only)
    except ValueError as error:
        parser.error(f"--only: {error}; --dry-run lists them")
    if asked.dry_run:
        print("\n".join(show_plan(parts)))
        return 0
    places.scratch.mkdir(parents=True)
    os.environ.update(BERTKIT_CACHE=str(places.scratch / CACHE), HF_HUB_OFFLINE="1")
    adopt_orphans()
    call = Call(parts, places, asked.minutes, begun)
    if not backend["ready"]:
        call.leave_out("facts", "the backend is not ready")
    about = {"backend": backend, "size": asked.size, "minutes": asked.minutes, "started": started}
    with signals_raise():
        call.run()
        return finish(call, about, archive)


def finish(call: Call, about: Mapping[str, Any], archive: Path) -> int:
    """Write, pack and show the summary. Returns the exit code."""
    shutil.rmtree(call.places.scratch, ignore_errors=True)
    made = write(call, about)
    large = pack(call.places.out, archive)
    print("\n" + show(made), end="")
    for name in large:
        print(f"too large for the archive: {name}")
    print(f"to send: {archive} (what is in {call.places.out})")
    if call.ended == ENDED:
        return 130
    return 1 if any(result.outcome in BAD for result in call.results) or not about["backend"]["ready"] else 0


if __name__ == "__main__":
    sys.exit(main())
