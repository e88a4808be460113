"""Forty updates of seeded losses for each task, precision and way to compute: a refactor may not change a bit of them.

`python tests/seeded_losses.py --record` writes `tests/golden/seeded_losses.json` for this machine, `--compare` holds
the code against it, `--only NAME` takes the cases with NAME in them. Everything goes through the command, so the same
file measures any checkout: `--python` names another one's interpreter, `--into` another file.

Bits depend on the processor's instructions and the version of torch, so the file has a section for each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from conftest import real_folder

TESTS = Path(__file__).resolve().parent
GOLDEN = TESTS / "golden" / "seeded_losses.json"
UPDATES = 40
WAYS = ("cpu", "two ranks", "gaudi eager", "gaudi lazy")
TEXT = "\n\n".join(
    "\n".join(f"The {noun} of day {day} was {mood}. We saw {day * 7 % 11} of them, and none was {noun} enough."
              for noun, mood in (("train", "late"), ("river", "wide"), ("letter", "short"), ("song", "old")))
    for day in range(150)
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    task: str  # "sample", "mrpc", "pretrain"
    precision: str
    way: str

    @property
    def name(self) -> str:
        return f"{self.task} {self.precision} {self.way}"


CASES = tuple(
    Case(task, precision, way)
    for task in ("sample", "mrpc", "pretrain")
    for precision in ("fp32", "bf16")
    for way in WAYS
)


def machine() -> str:
    """What the bits depend on: torch's version and the processor with its instructions for matrices."""
    import torch

    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    numbers = [value[1] for key in ("cpu family", "model") if (value := re.search(rf"^{key}\s*: (\d+)", text, re.M))]
    name = f"{found[1]} ({', '.join(numbers)})" if found else "processor not known"
    return f"torch {torch.__version__} · {name} · {torch.backends.cpu.get_cpu_capability()} {' '.join(flags)}".strip()


def real_data() -> Path | None:
    """The folder of real data, if MRPC and MiniLM are in it."""
    path = real_folder()
    return path if (path / "glue").is_dir() and (path / "minilm").is_dir() else None


def prepare(folder: Path, python: str) -> None:
    """The sample task and shards of `TEXT`."""
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    _run(folder, python, os.environ, "data", "get", "sample", "--data-dir", "data")
    _run(folder, python, os.environ, "data", "vocabulary", str(text), "-o", "vocab.txt", "--size", "300")
    _run(
        folder, python, os.environ, "data", "prepare", str(text), "--vocab", "vocab.txt", "-o", "shards",
        "--seq-length", "32", "--workers", "1", "--no-nsp",
    )  # fmt: skip


def losses(case: Case, folder: Path, python: str) -> list[float]:
    """The losses of `UPDATES` updates. `folder`: made by `prepare`."""
    output = folder / case.name.replace(" ", "-")
    words = ["train", "-d", case.precision, "-o", str(output), "--overwrite", "-q", *_task(case)]
    words += [word for setting in _settings(case) for word in ("--set", setting)]
    env: Mapping[str, str] = os.environ
    if case.way == "two ranks":
        words = ["launch", "-n", "2", "--oversubscribe", "--launcher", "torchrun", "--", *words, "--backend", "cpu"]
    elif case.way == "cpu":
        words += ["--backend", "cpu"]
    else:
        from gaudi_standin_env import standin_env

        words += ["--backend", "gaudi"]
        env = standin_env(case.way == "gaudi lazy")
    _run(folder, python, env, *words)
    lines = (output / "log.jsonl").read_text(encoding="utf-8").splitlines()
    found = [entry["loss"] for entry in map(json.loads, lines) if entry["event"] == "update"]
    assert len(found) == UPDATES, f"{case.name}: {len(found)} updates"
    return found


def _task(case: Case) -> list[str]:
    if case.task == "sample":
        return ["-t", "sample", "-m", "tiny", "--data-dir", "data", "-s", "32"]
    if case.task == "mrpc":
        data = real_data()
        return ["-t", "mrpc", "-m", f"{data}/minilm", "--data-dir", f"{data}/glue", "-s", "48"]
    return ["-t", "pretrain", "-m", "tiny", "--data-dir", "shards", "-s", "32"]


def _settings(case: Case) -> Iterator[str]:
    yield f"train.steps={UPDATES}"
    yield "log.every=8"
    yield "evaluation.every=1000"
    yield "checkpoint.every=1000"
    yield "data.eval_rows=16"
    yield "data.cache=off"
    yield "train.global_batch=8"
    yield "train.micro_batch_size=2"  # two or more micro-batches on each rank
    yield "schedule.warmup_steps=4"
    if case.way in ("cpu", "two ranks"):
        yield "device.threads=1"


def _run(folder: Path, python: str, env: Mapping[str, str], *words: str) -> None:
    own = {name: value for name, value in env.items() if not name.startswith("BERTKIT_")} | {"OMP_NUM_THREADS": "1"}
    command = [python, "-P", "-m", "bertkit", *words]
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-2000:]}")


def read() -> dict[str, dict[str, list[float]]]:
    """Machine -> case -> losses."""
    known: dict[str, dict[str, list[float]]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return known


def write(path: Path, known: Mapping[str, Mapping[str, list[float]]]) -> None:
    """One case a line."""
    sections = [
        f"{json.dumps(name, ensure_ascii=False)}: {{\n"
        + ",\n".join(f" {json.dumps(case)}: {json.dumps(values)}" for case, values in cases.items())
        + "\n}"
        for name, cases in known.items()
    ]
    path.write_text("{" + ",\n".join(sections) + "}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--into", type=Path, default=GOLDEN)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), given.python)
        for case in CASES:
            if given.only in case.name and (case.task != "mrpc" or real_data()):
                found[case.name] = losses(case, Path(name), given.python)
                print(case.name, found[case.name][-1], flush=True)
                if given.record:
                    known = json.loads(given.into.read_text(encoding="utf-8")) if given.into.exists() else {}
                    write(given.into, known | {machine(): known.get(machine(), {}) | found})
    if not given.compare:
        return 0
    before = read().get(machine(), {})
    differing = [name for name, values in found.items() if before.get(name) != values]
    print(f"{len(found) - len(differing)} of {len(found)} cases are equal bit for bit", *differing, sep="\n  ")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
