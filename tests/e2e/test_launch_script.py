"""A user's own script on several processes: what it learns, that it may train twice, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command import checkpoints, events, record, updates, weights
from conftest import Run, assert_one_line_error, command_env
from launchers import LAUNCHERS, MPIRUNS, USUAL, Started, wait_until

SETTINGS = """
SETTINGS = {
    "backend": "cpu", "precision": "fp32", "model.name": "tiny", "task": "sample", "data.seq_length": 32,
    "train.batch_size": 16, "train.steps": 6, "data.train_rows": 200, "data.eval_rows": 51, "log.every": 1,
}
"""
WORDS = (
    "train", "--backend", "cpu", "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "-b", "16",
    "--set", "train.steps=6", "--set", "data.train_rows=200", "--set", "data.eval_rows=51", "--set", "log.every=1",
)  # fmt: skip
OWN_LOOP = """
import numpy, sys
setup = bertkit.prepare(settings=SETTINGS | {"data.dir": sys.argv[1]}, processes=2)
engine = bertkit.open_engine(setup.job, backend="cpu")
for update in bertkit.updates(setup.train.features, 32, steps=3):
    engine.train_step(update, 1e-3)
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK", "")))
numpy.savez(f"rank-{rank}.npz", **engine.weights())
engine.close()
"""
TWICE = """
for name in ("one", "two"):
    run = bertkit.train(settings=SETTINGS | {"data.dir": sys.argv[1], "output": name}, quiet=name == "one")
    print(name, run.world.size, run.metrics["accuracy"])
"""
SLOW = """
SETTINGS |= {"backend": "null", "checkpoint.every": 2, "train.steps": 30, "device.step_seconds": 0.1}
"""


def write_script(folder: Path, *parts: str) -> Path:
    path = folder / "my.py"
    path.write_text("\n".join(["import os, sys, signal", "import bertkit", SETTINGS, *parts]), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_script_trains_twice_as_the_command_does(tmp_path: Path, sample_dir: Path, launcher: str) -> None:
    write_script(tmp_path, TWICE)
    done = Started(tmp_path, launcher, 2, "python", "my.py", sample_dir).finish()
    assert done.returncode == 0, done.stderr
    command = Started(tmp_path, launcher, 2, *WORDS, "--data-dir", sample_dir, "-o", "command").finish()
    assert command.returncode == 0, command.stderr
    wanted = record(tmp_path / "command")
    assert wanted["hardware"]["processes"] == 2
    for name in ("one", "two"):
        assert record(tmp_path / name)["losses"] == wanted["losses"]
        assert weights(tmp_path / name) == weights(tmp_path / "command")
    printed = [line.split() for line in done.stdout.splitlines()]
    assert printed == [[name, "2", str(wanted["metrics"]["accuracy"])] for name in ("one", "two")]


@pytest.mark.slow
def test_a_loop_of_ones_own_has_the_same_weights_on_both_ranks(tmp_path: Path, sample_dir: Path) -> None:
    write_script(tmp_path, OWN_LOOP)
    done = Started(tmp_path, "torchrun", 2, "./my.py", sample_dir).finish()
    assert done.returncode == 0, done.stderr
    import numpy as np

    one, two = (dict(np.load(tmp_path / f"rank-{rank}.npz")) for rank in (0, 1))
    assert one.keys() == two.keys()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.mark.slow
def test_torchrun_starts_a_script_by_itself(tmp_path: Path, sample_dir: Path) -> None:
    write_script(tmp_path, TWICE)
    starter = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [*starter, "my.py", str(sample_dir)],
        cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert record(tmp_path / "two")["hardware"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.skipif(not any(MPIRUNS.values()), reason="no mpirun on this machine")
def test_mpirun_starts_a_script_by_itself(tmp_path: Path, sample_dir: Path) -> None:
    write_script(tmp_path, TWICE)
    mpirun = next(str(path) for path in MPIRUNS.values() if path)
    starter = (mpirun, "--oversubscribe", *(("--allow-run-as-root",) if os.geteuid() == 0 else ()), "-n", "2")
    done = subprocess.run(
        [*starter, sys.executable, "my.py", str(sample_dir)],
        cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert record(tmp_path / "two")["hardware"]["processes"] == 2


RAISES = """
class Raising(bertkit.Callback):
    def on_update_end(self, run, step):
        if run.world.rank == 1 and step == 3:
            {error}
bertkit.train(settings=SETTINGS | {{"data.dir": sys.argv[1], "output": "run"}}, callbacks=[Raising()])
"""
ENDS = {
    "an exception": ('raise ValueError("too bold")', 1, ("my.py:16: ValueError: too bold", "rank 1 on")),
    "a user's error": ('raise bertkit.UserError("too bold", "be less so")', 2, ("too bold; be less so", "rank 1 on")),
    "an exit code": ("sys.exit(7)", 7, ("rank 1 on", "exit code 7")),
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", 137, ("rank 1 on", "killed by SIGKILL")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_what_a_rank_of_a_script_raises_comes_through(name: str, tmp_path: Path, sample_dir: Path) -> None:
    error, code, said = ENDS[name]
    write_script(tmp_path, SLOW, RAISES.format(error=error))
    job = Started(tmp_path, "torchrun", 2, "python", "my.py", sample_dir)
    done = job.finish(90)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bertkit: ")
    assert all(word in last for word in said), last
    assert ("Traceback" in done.stderr) == (name == "an exception"), done.stderr
    assert "runpy" not in done.stderr
    assert job.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", USUAL)
def test_an_error_between_two_trainings_ends_the_other_rank(tmp_path: Path, sample_dir: Path, launcher: str) -> None:
    """By then MPI counts as closed, and would wait for the other rank before this process may end."""
    between = "    if run.world.rank == 1: raise ValueError(name)\n"
    write_script(tmp_path, TWICE + between)
    job = Started(tmp_path, launcher, 2, "python", "my.py", sample_dir)
    done = job.finish(90)
    assert done.returncode == 1, done.stderr
    assert "ValueError: one" in done.stderr.splitlines()[-1]
    assert record(tmp_path / "one")["updates"] == 6
    assert job.left() == []


@pytest.mark.slow
def test_a_script_is_started_again_and_its_trainings_go_on(tmp_path: Path, sample_dir: Path) -> None:
    write_script(tmp_path, SLOW, TWICE)
    job = Started(tmp_path, "torchrun", 2, "python", "my.py", sample_dir, options=("--max-restarts", "1"))
    wait_until(lambda: len(checkpoints(tmp_path / "two")) >= 1, job)
    os.kill(max(pid for pid in job.alive() if b"bertkit.launch.script" in cmdline(pid)), signal.SIGKILL)
    done = job.finish(120)
    assert done.returncode == 0, done.stderr
    assert "starting again, 1 of 1 restarts left" in done.stderr
    for name in ("one", "two"):
        assert updates(tmp_path / name) == list(range(1, 31))
        assert record(tmp_path / name)["updates"] == 30


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_a_script(tmp_path: Path, sample_dir: Path) -> None:
    write_script(tmp_path, SLOW, TWICE)
    job = Started(tmp_path, "torchrun", 2, "python", "my.py", sample_dir)
    wait_until(lambda: len(updates(tmp_path / "one")) >= 3, job)
    job.process.send_signal(signal.SIGINT)
    done = job.finish(60)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    stopped = [event for event in events(tmp_path / "one") if event["event"] == "stopped"]
    assert [event["step"] for event in stopped] == checkpoints(tmp_path / "one")[-1:]
    assert not (tmp_path / "two").exists()
    assert job.left() == []


# ---- words ----


def test_a_dry_run_shows_the_script_and_its_own_words(bertkit: Run, tmp_path: Path) -> None:
    write_script(tmp_path, "raise SystemExit('was started')")
    told = []
    for words in (("--", "python", "my.py"), ("python", "my.py"), ("--", "./my.py"), ("--", "python", "-m", "my")):
        done = bertkit("launch", "-n", "2", "--oversubscribe", "--dry-run", "--json", *words, "--bf16", "--seed", "3")
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout)["processes"][1]["argv"])
        started = words[1:] if words[0] == "--" else words
        assert told[-1][-len(started) - 4 :] == ["bertkit.launch.rank_process", *started, "--bf16", "--seed", "3"]


BAD = {
    "no such file": (("python", "mine.py"), ("mine.py", "no such script")),
    "no script": (("python",), ("no script is named",)),
    "an option of python's": (("python", "-O", "my.py"), ("-O", "PYTHONOPTIMIZE")),
    "no python": (("python", "bad.py"), ("bad.py: is no Python", "line 1")),
    "neither": (("pyton", "my.py"), ("pyton", "did you mean python?")),
}


@pytest.mark.parametrize("how", [(), ("--dry-run",)], ids=["started", "shown"])
@pytest.mark.parametrize("name", BAD)
def test_words_that_start_no_script(name: str, how: tuple[str, ...], bertkit: Run, tmp_path: Path) -> None:
    write_script(tmp_path)
    (tmp_path / "bad.py").write_text("def f(:\n")
    words, said = BAD[name]
    assert_one_line_error(bertkit("launch", "-n", "2", "--oversubscribe", *how, "--", *words), *said)


def test_a_batch_script_starts_it_and_goes_on_with_it(bertkit: Run, tmp_path: Path) -> None:
    words = ("launch", "--slurm", "run.sbatch", "-n", "1", "--", "python", "elsewhere/my run.py", "--seed", "3")
    done = bertkit(*words)
    assert done.returncode == 0, done.stderr
    script = (tmp_path / "run.sbatch").read_text()
    assert "#SBATCH --job-name=bertkit-my_run\n" in script
    again, first = (line for line in script.splitlines() if "rank_process" in line)
    assert first.endswith("bertkit.launch.rank_process python 'elsewhere/my run.py' --seed 3)")
    assert again.endswith("bertkit.launch.rank_process --resume python 'elsewhere/my run.py' --seed 3)")
