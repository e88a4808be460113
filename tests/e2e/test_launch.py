"""`bertkit launch` on this machine, by torchrun and by each MPI at hand: what is learnt, and how a job ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import checkpoints, events, free_port, record, updates
from conftest import Run, assert_one_line_error, command_env
from launchers import (
    LAUNCHERS,
    MPIRUNS,
    NULL_JOB,
    USUAL,
    WHEELS,
    Started,
    launchers,
    listening,
    mpirun_of_wheel,
    ranks_of,
    wait_until,
)

SAMPLE = (
    "train", "--backend", "cpu", "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "--quiet",
    "--set", "data.eval_rows=101", "--set", "model.hidden_dropout=0.0", "--set", "model.attention_dropout=0.0",
    "--set", "log.every=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [*LAUNCHERS, *WHEELS])
def test_two_ranks_learn_what_one_process_learns(
    bertkit: Run, tmp_path: Path, sample_dir: Path, launcher: str, request: pytest.FixtureRequest
) -> None:
    words = (*SAMPLE, "--data-dir", str(sample_dir), "--set", "train.steps=20")
    env = {}
    if launcher in WHEELS:
        env["BERTKIT_MPIRUN"] = str(mpirun_of_wheel(WHEELS[launcher], request.config.cache.mkdir("mpis")))
    assert bertkit(*words, "-b", "32", "-o", "alone").returncode == 0
    job = Started(tmp_path, launcher, 2, *words, "-b", "16", "-o", "two", **env)
    wait_until(lambda: updates(tmp_path / "two"), job)
    open_to_others = listening(job)
    done = job.finish()
    assert done.returncode == 0, done.stderr
    one, two = record(tmp_path / "alone"), record(tmp_path / "two")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    if launcher != "torchrun":  # whose ranks meet through gloo, which has a store to serve
        assert two["hardware"]["engine"]["collectives"].startswith("window (auto: ")
        assert open_to_others == []
    assert two["metrics"] == one["metrics"]
    assert two["hardware"]["processes"] == 2
    counted = [{name: made["throughput"]["counted"][name] for name in ("sequences", "tokens")} for made in (one, two)]
    assert counted[0] == counted[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", launchers("open-mpi-5"))  # the others: on the sample task, above
def test_two_ranks_follow_one_on_real_mrpc(bertkit: Run, tmp_path: Path, real_data: Path, launcher: str) -> None:
    words = (
        "train", "--backend", "cpu", "-m", str(real_data / "minilm"), "-t", "mrpc", "-d", "fp32",
        "--data-dir", str(real_data / "glue"),
        "-s", "128", "--seed", "1", "--set", "train.steps=10", "--set", "log.every=1", "--quiet",
        "--set", "model.hidden_dropout=0.0", "--set", "model.attention_dropout=0.0", "--set", "data.eval_rows=64",
    )  # fmt: skip
    alone = bertkit(*words, "-b", "32", "-o", "alone", timeout=600)
    assert alone.returncode == 0, alone.stderr
    done = Started(tmp_path, launcher, 2, *words, "-b", "16", "-o", "two").finish(600)
    assert done.returncode == 0, done.stderr
    one, two = record(tmp_path / "alone"), record(tmp_path / "two")
    assert len(one["losses"]) == 10
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "shard"), [(2, False), (3, True)])
def test_the_best_of_unsynchronised_workers_is_the_result(
    bertkit: Run, tmp_path: Path, sample_dir: Path, workers: int, shard: bool
) -> None:
    words = (*SAMPLE, "--data-dir", str(sample_dir), "-e", "2", "-b", "16", "--set", "data.train_rows=150")
    words += ("--no-sync-gradients", "--shard-data" if shard else "--no-shard-data", "--seed", "5")
    done = Started(tmp_path, "torchrun", workers, *words, "-o", "best", "--lr", "2e-3").finish()
    assert done.returncode == 0, done.stderr
    made = record(tmp_path / "best")
    told = made["selected"]
    scores = [one["metrics"]["accuracy"] for one in made["seeds"]]
    assert len(scores) == told["of"] == workers
    own = [record(tmp_path / "best" / f"worker-{rank}") for rank in range(workers)]
    assert scores == [one["metrics"]["accuracy"] for one in own]
    assert made["metrics"]["accuracy"] == max(scores)
    chosen = tmp_path / "best" / f"worker-{told['seed'] - 5}"
    assert (tmp_path / "best" / "model.safetensors").resolve() == (chosen / "model.safetensors").resolve()
    assert "selected on the dev set" in told["note"]
    # a worker is what one process does alone with its seed and share
    last = workers - 1
    again = bertkit(
        *(word for word in words if not word.endswith(("-data", "-gradients"))), "--lr", "2e-3",
        "--seed", str(5 + last), "-o", "again", *(("--set", f"data.shard={last}/{workers}") if shard else ()),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert record(tmp_path / "again")["losses"] == own[last]["losses"]
    scored = bertkit("evaluate", "best", "--data-dir", str(sample_dir), "--json", "--set", "data.eval_rows=101")
    assert json.loads(scored.stdout)["metrics"]["accuracy"] == pytest.approx(max(scores))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", USUAL)
def test_a_killed_rank_ends_the_job_and_a_resume_goes_on(tmp_path: Path, sample_dir: Path, launcher: str) -> None:
    words = (*NULL_JOB, "--data-dir", str(sample_dir), "-o", "run")
    job = Started(tmp_path, launcher, 2, *words)
    wait_until(lambda: len(checkpoints(tmp_path / "run")) >= 2, job)
    begun = time.monotonic()
    os.kill(ranks_of(job)[1], signal.SIGKILL)
    done = job.finish(60)
    assert time.monotonic() - begun < 30
    assert_one_line_error(done, "rank 1 on", "killed by SIGKILL", "--resume", code=1)
    assert job.left() == []
    kept = checkpoints(tmp_path / "run")[-1]
    again = Started(tmp_path, launcher, 2, *words, "--resume").finish()
    assert again.returncode == 0, again.stderr
    assert f"continuing after update {kept} of" in again.stderr
    assert updates(tmp_path / "run")[-1] == record(tmp_path / "run")["updates"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", launchers("torchrun", *MPIRUNS, slow=tuple(MPIRUNS)))
def test_a_stopped_rank_ends_the_job_after_the_timeout(tmp_path: Path, sample_dir: Path, launcher: str) -> None:
    words = (*NULL_JOB, "--data-dir", str(sample_dir), "-o", "run", "--set", "ranks.timeout=8")
    job = Started(tmp_path, launcher, 2, *words)
    wait_until(lambda: len(checkpoints(tmp_path / "run")) >= 1, job)
    begun = time.monotonic()
    os.kill(ranks_of(job)[1], signal.SIGSTOP)
    done = job.finish(60)
    assert time.monotonic() - begun < 50
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "rank 1 on" in last
    assert "stopped by a signal" in last
    assert job.left() == []


@pytest.mark.slow_but("open-mpi-5")
@pytest.mark.parametrize("launcher", USUAL)
def test_ctrl_c_saves_and_ends_everything_within_seconds(tmp_path: Path, sample_dir: Path, launcher: str) -> None:
    job = Started(tmp_path, launcher, 2, *NULL_JOB, "--data-dir", str(sample_dir), "-o", "run")
    wait_until(lambda: len(updates(tmp_path / "run")) >= 3, job)
    begun = time.monotonic()
    job.process.send_signal(signal.SIGINT)
    done = job.finish(60)
    assert time.monotonic() - begun < 15
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert job.left() == []
    stopped = [event for event in events(tmp_path / "run") if event["event"] == "stopped"]
    assert [event["step"] for event in stopped] == checkpoints(tmp_path / "run")[-1:]


@pytest.mark.slow
def test_a_rank_that_alone_gets_sigterm_takes_the_others_along(tmp_path: Path, sample_dir: Path) -> None:
    job = Started(tmp_path, "torchrun", 2, *NULL_JOB, "--data-dir", str(sample_dir), "-o", "run")
    wait_until(lambda: len(updates(tmp_path / "run")) >= 3, job)
    os.kill(ranks_of(job)[1], signal.SIGTERM)
    done = job.finish(60)
    assert done.returncode != 0
    assert "another rank" in next(event for event in events(tmp_path / "run") if event["event"] == "stopped")["signal"]
    assert checkpoints(tmp_path / "run")[-1] == updates(tmp_path / "run")[-1]


@pytest.mark.slow
def test_a_job_is_started_again_from_its_last_checkpoint(tmp_path: Path, sample_dir: Path) -> None:
    job = Started(
        tmp_path, "torchrun", 2, *NULL_JOB, "--data-dir", str(sample_dir), "-o", "run", options=("--max-restarts", "1")
    )
    wait_until(lambda: len(checkpoints(tmp_path / "run")) >= 2, job)
    os.kill(ranks_of(job)[0], signal.SIGKILL)
    done = job.finish(120)
    assert done.returncode == 0, done.stderr
    assert "starting again, 1 of 1 restarts left" in done.stderr
    assert "continuing after update" in done.stderr
    assert updates(tmp_path / "run") == list(range(1, record(tmp_path / "run")["updates"] + 1))


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_is_resumed_on_another_number_of_ranks(
    bertkit: Run, tmp_path: Path, sample_dir: Path, dropout: float
) -> None:
    """Dropout is keyed by (seed, update, rank, micro-batch): with it the other ranks draw other masks, and say so."""
    words = (*SAMPLE, "--data-dir", str(sample_dir), "--set", "train.steps=12", "--set", "checkpoint.every=6")
    words += ("--set", f"model.hidden_dropout={dropout}")
    assert bertkit(*words, "-b", "32", "-o", "whole").returncode == 0
    assert bertkit(*words, "-b", "32", "-o", "run").returncode == 0
    for name in ("record.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("*12*"):
        path.unlink()
    resume = ("--set", "log.every=1", "-b", "16", "-o", "run", "--resume")
    done = Started(tmp_path, "torchrun", 2, *(word for word in words if word != "--quiet"), *resume).finish()
    assert done.returncode == 0, done.stderr
    whole, run = (record(tmp_path / name)["losses"] for name in ("whole", "run"))
    assert run[:6] == whole[:6]
    apart = max(abs(one - two) for one, two in zip(whole, run, strict=True))
    assert (apart > 1e-4) if dropout else (apart < 1e-5)
    assert ("warning: processes: 2, 1 before" in done.stderr) == bool(dropout)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["launched on each", "told their ranks alone"])
def test_hosts_that_start_their_own_processes_are_one_job(tmp_path: Path, sample_dir: Path, how: str) -> None:
    """Two commands as two hosts would start them: by --nnodes, and as a cluster that says RANK and WORLD_SIZE."""
    port = str(free_port())
    words = (
        *NULL_JOB,
        "--set",
        "train.steps=2",
        "--set",
        "device.step_seconds=0",
        "--data-dir",
        sample_dir,
        "-o",
        "run",
    )
    jobs = []
    for rank in ("0", "1"):
        if how == "launched on each":
            master = ("--nnodes", "2", "--node-rank", rank, "--master", f"127.0.0.1:{port}")
            command, env = ["launch", "-n", "1", *master, "--", *words], {}
        else:
            command = [*words]
            env = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-m", "bertkit", *command],
                cwd=tmp_path, env=command_env(tmp_path) | env, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    said = [job.communicate(timeout=180)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], "\n".join(said)
    assert record(tmp_path / "run")["hardware"]["processes"] == 2
    assert len(record(tmp_path / "run")["hardware"]["hosts"]) == 2


def for_the_second_rank(folder: Path, lines: str) -> str:
    """A PYTHONPATH that has Python run these lines first, in rank 1 alone: as if it were on a box of another kind."""
    (folder / "sitecustomize.py").write_text(
        f"import os, sys\nif os.environ.get('OMPI_COMM_WORLD_RANK', os.environ.get('RANK')) == '1':\n    {lines}\n"
    )
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.mark.slow
def test_ranks_that_see_different_data_are_refused(tmp_path: Path, sample_dir: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(sample_dir, other)
    train = next(other.rglob("train.tsv"))
    head, first, rest = train.read_text().split("\n", 2)
    train.write_text("\n".join([head, first.replace(" ", " the ", 1), rest]))
    path = for_the_second_rank(tmp_path, f"os.environ['BERTKIT_DATA_DIR'] = {str(other)!r}")
    env = {"PYTHONPATH": path, "BERTKIT_DATA_DIR": str(sample_dir)}
    done = Started(tmp_path, "torchrun", 2, *NULL_JOB, "-o", "run", **env).finish()
    assert_one_line_error(done, "rank 1 on", "training data", "the same versions, settings and files")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ranks_of_different_versions_are_refused(tmp_path: Path, sample_dir: Path) -> None:
    fake = tmp_path / "fake" / "torch-2.12.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.12.1\n")
    path = for_the_second_rank(tmp_path, f"sys.path.insert(0, {str(fake.parent)!r})")
    words = (*NULL_JOB, "--data-dir", str(sample_dir), "-o", "run")
    done = Started(tmp_path, "torchrun", 2, *words, PYTHONPATH=path).finish()
    assert_one_line_error(done, "rank 1 on", "torch = '2.12.1'", "rank 0 on")
    assert not (tmp_path / "run").exists()
