"""Damaged files at every reader: each ends in one line, or loads as it was, or as a value of the right type.

By hand, with variables of the environment that all begin with BERTKIT_TEST_FUZZ_: `…SECONDS=3600 pytest tests/fuzz`
(over all readers), `…CASES=2000` (each reader), `…SEED=7`, and one case again: `…FIRST=123 …CASES=1 pytest -k "name of
the reader"`.
The damaged file of each fault is kept in a folder that the failure names.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.harness import case
from fuzz.readers import READERS

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("BERTKIT_TEST_FUZZ_SEED", "1"))
FIRST = int(os.environ.get("BERTKIT_TEST_FUZZ_FIRST", "0"))
CASES = int(os.environ.get("BERTKIT_TEST_FUZZ_CASES", "0"))  # of each reader; 0: as many as the time allows
SECONDS = float(os.environ.get("BERTKIT_TEST_FUZZ_SECONDS", "25"))  # over all readers
PATIENCE = 20.0  # seconds of one case, after which it hangs
MOST_FAULTS = 10  # of a reader that are told


class Child:
    """The process that reads; started anew when it died."""

    def __init__(self, home: Path) -> None:
        self.home, self.process, self.buffer = home, self._start(home), b""

    def _start(self, home: Path) -> subprocess.Popen[bytes]:
        self.buffer = b""
        places = (ROOT, ROOT / "backends", ROOT / "launchers", ROOT / "tests")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONFAULTHANDLER": "1"}
        with (home.parent / "stderr").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(home)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env,
            )  # fmt: skip

    def ask(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write("\t".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def line(self, seconds: float) -> str | None:
        """The next line; None where the process says nothing for so long or has ended."""
        assert self.process.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                return None
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode("utf-8", "replace")

    def again(self) -> str:
        """How it ended, once it is started anew."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # its pipe closes a moment before it has ended
        code = self.process.poll()
        self.stop()
        self.process = self._start(self.home)
        return f"crash: exit code {code}" if code is not None else f"hang: over {PATIENCE:g} s"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    made = Child(tmp_path_factory.mktemp("fuzz") / "files")
    yield made
    made.stop()


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, child: Child) -> None:
    seconds = 1e9 if CASES and "BERTKIT_TEST_FUZZ_SECONDS" not in os.environ else SECONDS / len(READERS)
    counts: Counter[str] = Counter()
    faults: dict[int, str] = {}
    number, last, end = FIRST, FIRST + (CASES or 10**9), time.monotonic() + seconds
    while number < last and (number == FIRST or time.monotonic() < end):
        child.ask(name, SEED, number, last - number, max(0.0, end - time.monotonic()) if number > FIRST else seconds)
        first = child.line(120)
        assert first, f"{name}: its sample is not read: {child.again()}"
        if not first.startswith("sample "):
            child.line(PATIENCE)  # its end
            pytest.fail(f"{name}: {first}")
        while (line := child.line(PATIENCE)) and line != "end":
            at, kind, *detail = line.split(" ", 2)
            number = int(at) + 1
            counts[kind] += 1
            if kind not in ("refused", "same", "other"):
                faults.setdefault(int(at), f"{kind}: {' '.join(detail)}")
        if line == "end":
            break
        faults[number] = child.again()
        counts["ended"] += 1
        number += 1
        if counts["ended"] > 2:  # each costs the patience of one case
            break
    print(f"{name}: {sum(counts.values())} cases, seed {SEED}: {dict(counts)}")
    assert sum(counts.values()), f"{name}: no case was tried"
    assert not faults, _told(name, faults)


def _told(name: str, faults: dict[int, str]) -> str:
    """A line for each kind of fault, with a damaged file that shows it."""
    kinds = {said: number for number, said in reversed(faults.items())}
    folder = Path(tempfile.mkdtemp(prefix="bertkit-fuzz-"))
    sample = folder / "whole"
    sample.mkdir()
    reader = READERS[name]
    reader.make(sample)
    content = (sample / reader.file).read_bytes()
    lines = [f"{name}: {len(faults)} faults, in {folder}"]
    for said, number in list(kinds.items())[:MOST_FAULTS]:
        if not said.startswith("mutation"):
            (folder / f"{number}-{Path(reader.file).name}").write_bytes(case(reader, content, SEED, number))
        lines.append(f"  case {number} of seed {SEED}: {said}")
    return "\n".join(lines)


@pytest.mark.parametrize(("name", "number"), [("shard parquet binned", 612), ("shard parquet binned", 1983)])
def test_a_case_that_once_ended_the_process(
    child: Child, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow aborts where it is asked for a damaged footer's statistics."""
    for variable, value in (("FIRST", number), ("CASES", 1), ("SEED", 1)):
        monkeypatch.setattr(f"{__name__}.{variable}", value)
    test_damaged_files(name, child)
