"""A run that is killed at random moments and resumed, against one that never was.

`python tests/killed.py 20` does so to each stage of a distillation, on a task's rows and on shards.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bertkit.files.disk import read_arrays
from command import record, run, settings, start, tensors, updates

EARLY, LATE = 0.3, 1.5  # of the seconds that the whole run took, between which half of the kills come
SOON = 0.3  # seconds after an update at the most, within which the others come


def same_run(one: Path, other: Path) -> None:
    """Both learned the same updates, to the last bit of the optimizer's state."""
    first, second = record(one), record(other)
    for key in ("losses", "metrics", "updates"):
        assert first[key] == second[key], key
    states = [read_arrays(tensors(folder, first["updates"]))[0] for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
    assert updates(one) == updates(other) == list(range(1, first["updates"] + 1))


def killed(
    folder: Path, words: Sequence[str | Path], output: str, whole: Path, seconds: float, kills: int, seed: int = 1
) -> int:
    """Kill the command at so many random moments, each time resuming; whenever it gets to its end, it is compared with
    `whole`, which took so many seconds, and begins anew. Returns how often it got there."""
    moments, done, ends = random.Random(seed), 0, 0  # noqa: S311 - no secret
    began = time.monotonic()
    while done < kills:
        with start(folder, *words, "-o", output, "--resume") as process:
            before, wait = len(updates(folder / output)), seconds * moments.uniform(EARLY, LATE)
            if moments.random() < 0.5:
                while len(updates(folder / output)) == before and process.poll() is None:
                    time.sleep(0.005)
                wait = moments.uniform(0, SOON)
            try:
                process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                done += 1
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr
            same_run(folder / output, whole)
            shutil.rmtree(folder / output)
            shutil.rmtree(folder / "cache", ignore_errors=True)  # so that the teacher is asked again
            ends += 1
        assert time.monotonic() - began < 120 + 60 * kills, "it never ends"
    finished = run(folder, *words, "-o", output, "--resume")
    assert finished.returncode == 0, finished.stderr
    same_run(folder / output, whole)
    return ends + 1


def _stages(folder: Path) -> dict[str, tuple[str | Path, ...]]:
    """Each stage's command, without its output; what they start from is made here."""
    from bertkit.data.tasks.sample import write_sample
    from pretraining_runs import write_phases

    for name in ("data", "rows"):
        (folder / name).mkdir()
    write_phases(folder / "data")
    write_sample(folder / "rows")
    common = ("-d", "fp32", "--backend", "cpu", "-b", "8", *settings(device__threads=1, checkpoint__every=2))
    rows = ("-t", "sample", "--data-dir", "rows", "-s", "48", *settings(data__train_rows=64, data__eval_rows=32))
    shards = ("-t", "pretrain", "--data-dir", "data", "-s", "32", *settings(train__steps=12))
    for output, of in (("taught", rows), ("general", shards)):
        done = run(folder, "train", "-m", "tiny", *common, *of, "-o", output)
        assert done.returncode == 0, done.stderr
    words = settings(distill__hard=2, distill__soft=5, distill__cosine=1)
    made: dict[str, tuple[str | Path, ...]] = {}
    for stage in ("relations", "logits"):
        made[f"rows-{stage}"] = ("distill", "taught", "--layers", "1", *common, *rows, "-e", "2", "--stages", stage)
        made[f"shards-{stage}"] = ("distill", "general", "--layers", "1", *common, *shards, *words, "--stages", stage)
    return made


def _main(kills: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, words in _stages(folder).items():
            began = time.monotonic()
            whole = run(folder, *words, "-o", f"{name}-whole")
            took = time.monotonic() - began
            assert whole.returncode == 0, whole.stderr
            shutil.rmtree(folder / "cache", ignore_errors=True)
            ends = killed(folder, words, name, folder / f"{name}-whole", took, kills)
            told = {"stage": name, "kills": kills, "runs compared": ends}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
