"""A folder has one writer; a lock that a killed process left is taken over where that it is gone is certain."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from bertkit.errors import UserError
from bertkit.files import locks, processes
from bertkit.files.locks import NAME, alone_in
from bertkit.files.processes import Owner, started, state, this_process
from left_over import ended_process, left_by


def write_lock(folder: Path, owner: Owner) -> Path:
    folder.mkdir(exist_ok=True)
    said = {"what": "a training", "since": "2026-11-28T12:00:00+00:00", "owner": dataclasses.asdict(owner)}
    (folder / NAME).write_text(json.dumps(said))
    return folder / NAME


def assert_taken_over(folder: Path, caplog: pytest.LogCaptureFixture, *words: str) -> None:
    with caplog.at_level(logging.WARNING), alone_in(folder, "a training"):
        assert json.loads((folder / NAME).read_text())["owner"]["pid"] == os.getpid()
    assert not (folder / NAME).exists()
    for word in ("taken over", *words):
        assert word in caplog.text


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught, alone_in(folder, "another training"):
        pass
    return caught.value


def test_a_second_one_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with alone_in(folder, "a training"):
        error = refused(folder)
        assert f"process {os.getpid()} on {this_process().host}" in error.cause
        assert "a training is under way" in error.cause
        assert "another folder" in error.cure
        assert (folder / NAME).exists()
        (folder / "result").write_text("kept")
    assert [path.name for path in folder.iterdir()] == ["result"]
    with alone_in(folder, "a training"):
        pass


def test_folders_that_stay_empty_go_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "runs" / "one", "a training"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with alone_in(tmp_path / "there", "a training"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_rank_that_writes_nothing_takes_none(tmp_path: Path) -> None:
    with alone_in(tmp_path, "a training"), alone_in(tmp_path, "a training", wanted=False):
        pass


def test_a_killed_processes_lock_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = ended_process()
    write_lock(tmp_path, gone)
    assert_taken_over(tmp_path, caplog, f"process {gone.pid} on ", "that process is gone")


def test_a_number_that_was_given_out_again_is_another_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_lock(tmp_path, dataclasses.replace(this_process(), pid=os.getppid(), started=1))
    assert_taken_over(tmp_path, caplog, "that process is gone")


def test_a_process_that_ended_and_was_not_yet_asked_for_its_end_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        owner = dataclasses.replace(this_process(), pid=child.pid, started=started(child.pid))
        write_lock(tmp_path, owner)
        assert f"process {child.pid}" in refused(tmp_path).cause
        child.kill()
        end = time.monotonic() + 10
        while state(child.pid) != "Z" and time.monotonic() < end:
            time.sleep(0.01)
        assert_taken_over(tmp_path, caplog, "that process is gone")


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"space": "pid:[1]"}, {"machine": "0" * 16}])
def test_one_from_elsewhere_is_refused_and_its_file_named(change: dict[str, str], tmp_path: Path) -> None:
    lock = write_lock(tmp_path, dataclasses.replace(ended_process(), **change))  # type: ignore[arg-type]
    error = refused(tmp_path)
    assert f"remove {lock}" in error.cure
    assert lock.exists()


def test_after_a_restart_of_the_machine_it_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    me = this_process()
    if not me.machine:
        pytest.skip("this machine has no number of its own")
    write_lock(tmp_path, dataclasses.replace(me, boot="an earlier one"))
    assert_taken_over(tmp_path, caplog, "started anew")


def test_the_next_turn_of_a_batch_job_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On another node too: Slurm queued the job again since its node failed."""
    first = dataclasses.replace(this_process(), host="node1", machine="1" * 16, job="77", turn=0)
    write_lock(tmp_path, first)
    refused(tmp_path)
    monkeypatch.setattr(locks, "this_process", lambda: dataclasses.replace(this_process(), job="77", turn=0))
    refused(tmp_path)
    monkeypatch.setattr(locks, "this_process", lambda: dataclasses.replace(this_process(), job="77", turn=1))
    assert_taken_over(tmp_path, caplog, "earlier turn")


def test_the_next_pod_of_a_job_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """BERTKIT_JOB has no count of turns: they follow one another as their containers began."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("BERTKIT_JOB", "d1/0")
    processes._owner.cache_clear()
    try:
        me = this_process()
        assert (me.job, me.turn) == ("d1/0", processes.began())
        assert 0 < me.turn <= time.time()
        before = dataclasses.replace(me, host="pod-a", turn=me.turn - 60)
        for other in ({"job": "d2/0"}, {"turn": me.turn}, {"turn": me.turn + 60}):
            write_lock(tmp_path, dataclasses.replace(before, **other))  # type: ignore[arg-type]
            refused(tmp_path)
        write_lock(tmp_path, dataclasses.replace(me, turn=me.turn - 1))  # the clock's second may differ within one pod
        refused(tmp_path)
        write_lock(tmp_path, before)
        assert_taken_over(tmp_path, caplog, "earlier turn")
    finally:
        processes._owner.cache_clear()


@pytest.mark.parametrize(
    ("boot", "first", "seconds"),
    [
        ("cpu 1\nbtime 1000\nx 1", "1 (a) b) S " + "0 " * 18 + "250 0", 1000 + 250 // os.sysconf("SC_CLK_TCK")),
        ("btime 1000", "", 0),
        ("", "1 (a) S " + "0 " * 18 + "250 0", 0),
        ("btime x", "1 (a) S " + "0 " * 18 + "250 0", 0),
        ("btime 1000", "1 (a) S " + "0 " * 18 + "-2 0", 0),
    ],
)
def test_when_a_container_began(boot: str, first: str, seconds: int, tmp_path: Path) -> None:
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "proc" / "stat").write_text(boot)
    (tmp_path / "proc" / "1" / "stat").write_text(first)
    assert processes.began(tmp_path) == seconds


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff", b"[" * 5000, b'{"what": "x", "since": "y", "owner": {"pid": "1"}}'],
)
def test_a_damaged_lock_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    error = refused(tmp_path)
    assert "cannot be read" in error.cause
    assert f"remove {tmp_path / NAME}" in error.cure


def test_a_lock_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert f"remove {tmp_path / NAME}" in refused(tmp_path).cure


def test_what_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file").cause
    assert "cannot be made" in refused(tmp_path / "file" / "below").cause


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with alone_in(tmp_path, "a training"):
        refused(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_another_took_meanwhile_stays(tmp_path: Path) -> None:
    """Its owner had removed the first by hand."""
    with alone_in(tmp_path, "a training"):
        other = write_lock(tmp_path, dataclasses.replace(this_process(), host="elsewhere")).read_bytes()
    assert (tmp_path / NAME).read_bytes() == other


def _start(folder: Path, barrier: Barrier, answers: Any, done: Any) -> None:
    barrier.wait()
    try:
        with alone_in(folder, "a training"):
            answers.put("held")
            done.wait()
    except UserError as error:
        answers.put(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True], ids=["no lock", "a killed process's lock"])
def test_of_many_at_once_one_gets_it(left: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gone = ended_process()
    for number in range(20):
        folder = tmp_path / str(number)
        if left:
            write_lock(folder, gone)
        barrier, answers, done = context.Barrier(4), context.Queue(), context.Event()
        racers = [context.Process(target=_start, args=(folder, barrier, answers, done)) for _ in range(4)]
        for racer in racers:
            racer.start()
        said = [answers.get(timeout=30) for _ in racers]
        done.set()
        for racer in racers:
            racer.join()
        assert said.count("held") == 1, said
        assert sum("is under way there" in answer for answer in said) == 3, said
        assert not (folder / NAME).exists()
        assert not list(tmp_path.rglob("*.part"))


def test_the_temporary_file_of_a_killed_taker_is_swept(tmp_path: Path) -> None:
    from bertkit.files.disk import write_text

    left = left_by(ended_process(), tmp_path / NAME)
    write_text(tmp_path / "other", "x")
    assert not left.exists()
