"""A process that reads damaged files and tells of each, a line a case, so that a crash or a hang costs only itself.

Standard input: `READER SEED FIRST CASES SECONDS` a line. Standard output: `sample DIGEST` or `no sample: …`, then for
each case `NUMBER KIND DETAIL`, then `end`. A damaged file lies in the folder that the only argument names while it is
read.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

from fuzz.harness import MEMORY, Reader, case, digest, judge
from fuzz.readers import READERS


def main(home: Path) -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no line of ours
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name, seed, first, cases, seconds = line.split("\t")
        run(READERS[name], home, (int(seed), int(first), int(cases), float(seconds)), out)


def run(reader: Reader, home: Path, amount: tuple[int, int, int, float], out: object) -> None:
    seed, first, cases, seconds = amount
    whole, folder = home / "whole", home / "case"

    def say(text: str) -> None:
        print(" ".join(text.split()), file=out, flush=True)  # type: ignore[call-overload]

    for place in (whole, folder):
        shutil.rmtree(place, ignore_errors=True)
    whole.mkdir(parents=True)
    try:
        reader.make(whole)
        shutil.copytree(whole, folder)
        usual = digest(reader.read(folder))
    except BaseException as error:
        say(f"no sample: {type(error).__name__}: {error}")
        say("end")
        return
    limit()
    say(f"sample {usual}")
    sample = (whole / reader.file).read_bytes()
    end = time.monotonic() + seconds
    for number in range(first, first + cases):
        if time.monotonic() > end:
            break
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        try:
            content = case(reader, sample, seed, number)
        except Exception as error:  # a fault of the mutation, which must not pass for one of the reader
            say(f"{number} mutation {type(error).__name__}: {error}")
            continue
        (folder / reader.file).write_bytes(content)
        found = judge(reader, folder, usual)
        say(f"{number} {found.kind} {found.detail}")
    say("end")


def limit() -> None:
    """No more address space than there is now and MEMORY: what asks for more gets MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
