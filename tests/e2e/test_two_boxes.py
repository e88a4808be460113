"""One job on two boxes, over ssh and Open MPI: what is learnt, what ends it. Skipped where there can be none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxes import Boxes, two_boxes  # noqa: F401  (the fixture)
from command import checkpoints, events, record, updates
from conftest import Run, assert_one_line_error
from launchers import MPIRUNS, NULL_JOB, Started, launchers, ranks_of, wait_until

MPIS = launchers(*MPIRUNS)
USUAL = launchers(*MPIRUNS, slow=("open-mpi-4",))
SECONDS = 55  # the most that the end of a broken job may take


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the cable whole and the boxes empty."""
    yield
    if "boxes" in request.fixturenames:
        request.getfixturevalue("boxes").mend()


def start(
    boxes: Boxes, folder: Path, mpi: str, *words: str | Path, by: str = "environment", options: tuple[str, ...] = ()
) -> Started:
    """A job of one process on each box, started from the first."""
    hosts = ",".join(boxes.hosts.values())
    network = ("--ssh-config", str(boxes.ssh_config), "--interface", boxes.subnet)
    env = {"MULTI_HLS_IPS": hosts} if by == "environment" else {}
    given = () if by == "environment" else ("--hosts", hosts, "--ssh-port", str(boxes.port))
    inside = tuple(boxes.inside("a", []))
    return Started(folder, mpi, 1, *words, options=(*given, *network, *options), inside=inside, local=False, **env)


def left(boxes: Boxes) -> list[str]:
    """Command lines of what still runs in the boxes, ssh's own processes aside, after a moment to die."""
    end = time.monotonic() + 12
    while True:
        found = [line for box in boxes.hosts for line in boxes.processes(box).values() if "sshd" not in line]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mpi", "by"),
    [pytest.param(*one.values, by, marks=one.marks) for one, by in zip(MPIS, ("environment", "option"), strict=True)],
)
def test_two_boxes_learn_what_one_does(
    boxes: Boxes, bertkit: Run, tmp_path: Path, sample_dir: Path, mpi: str, by: str
) -> None:
    words = (
        "train", "--backend", "cpu", "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "--data-dir", sample_dir,
        "--set", "data.eval_rows=101", "--set", "model.hidden_dropout=0.0", "--set", "model.attention_dropout=0.0",
        "--set", "log.every=1", "--set", "train.steps=10", "--set", "device.threads=1",
    )  # fmt: skip
    assert bertkit(*words, "-b", "32", "-o", "one").returncode == 0
    done = start(boxes, tmp_path, mpi, *words, "-b", "16", "-o", "two", by=by).finish()
    assert done.returncode == 0, done.stderr
    one, two = record(tmp_path / "one"), record(tmp_path / "two")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["hardware"]["hosts"] == ["box-a", "box-b"]
    assert left(boxes) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mpi", "how"),
    [
        pytest.param(*one.values, how, marks=one.marks)
        for one, ways in zip(MPIS, (("cut", "killed"), ("cut", "silent", "killed", "stopped")), strict=True)
        for how in ways
    ],
)
def test_what_breaks_a_job_ends_it_on_both_boxes_and_a_resume_goes_on(
    boxes: Boxes, tmp_path: Path, sample_dir: Path, mpi: str, how: str
) -> None:
    # a cut cable is noticed by mpirun too, before the ranks' own patience is at its end
    patience = () if how == "cut" else ("--set", "ranks.timeout=6")
    words = (*NULL_JOB, "--data-dir", sample_dir, "-o", "run", *patience)
    job = start(boxes, tmp_path, mpi, *words)
    wait_until(lambda: len(checkpoints(tmp_path / "run")) >= 2, job)
    begun = time.monotonic()
    far = next(pid for pid in ranks_of(job).values() if pid in boxes.processes("b"))
    if how in ("cut", "silent"):
        boxes.cut(silent=how == "silent")
    else:
        os.kill(far, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    done = job.finish(SECONDS + 20)
    assert time.monotonic() - begun < SECONDS, done.stderr
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bertkit: ")
    expected = {"killed": "rank 1 on box-b failed first: killed by SIGKILL", "stopped": "stopped by a signal"}
    assert expected.get(how, "has waited 6 s" if how == "silent" else "mpirun ended") in last, done.stderr
    assert "with the same command and --resume" in last
    assert left(boxes) == []
    boxes.mend()
    kept = checkpoints(tmp_path / "run")[-1]
    again = start(boxes, tmp_path, mpi, *words, "--resume").finish()
    assert again.returncode == 0, again.stderr
    assert f"continuing after update {kept} of" in again.stderr
    assert updates(tmp_path / "run") == list(range(1, record(tmp_path / "run")["updates"] + 1))


@pytest.mark.slow
@pytest.mark.parametrize("mpi", USUAL)
def test_ctrl_c_ends_both_boxes_within_seconds_and_saves(
    boxes: Boxes, tmp_path: Path, sample_dir: Path, mpi: str
) -> None:
    job = start(boxes, tmp_path, mpi, *NULL_JOB, "--data-dir", sample_dir, "-o", "run")
    wait_until(lambda: len(updates(tmp_path / "run")) >= 3, job)
    begun = time.monotonic()
    launch = min(pid for pid in job.alive() if b"launch" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(launch, signal.SIGINT)
    done = job.finish(60)
    assert time.monotonic() - begun < 15
    assert done.returncode == 130, done.stderr
    stopped = [event["step"] for event in events(tmp_path / "run") if event["event"] == "stopped"]
    assert stopped == checkpoints(tmp_path / "run")[-1:]
    assert left(boxes) == []


def test_a_box_that_cannot_take_part_is_named_before_anything_starts(
    boxes: Boxes, tmp_path: Path, sample_dir: Path
) -> None:
    words = (*NULL_JOB, "--data-dir", sample_dir, "-o", "run")
    mpi = next(name for name in ("open-mpi-5", "open-mpi-4"))
    boxes.cut()
    assert_one_line_error(start(boxes, tmp_path, mpi, *words).finish(), boxes.hosts["b"])
    boxes.mend()
    known = boxes.known_hosts.read_text()
    boxes.known_hosts.write_text("".join(line for line in known.splitlines(True) if boxes.hosts["b"] not in line))
    try:
        assert_one_line_error(start(boxes, tmp_path, mpi, *words).finish(), boxes.hosts["b"], "host key", "ssh-keyscan")
    finally:
        boxes.known_hosts.write_text(known)
    assert not (tmp_path / "run").exists()
    assert left(boxes) == []
