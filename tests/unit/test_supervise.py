"""A plan carried out: which failure is named, who is shown, and that nothing is left running."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bertkit.console import Display
from bertkit.distributed.clusters import Nodes
from bertkit.errors import UserError
from bertkit.launch.interface import LaunchPlan, Request
from bertkit.launch.job import JobFailed, Way, carry_out, explain
from bertkit.launch.supervisor import Ended, OutputFollower, supervise

REQUEST = Request(("train", "-t", "mrpc"))


def plan(body: str, stop_signal: int = signal.SIGTERM) -> LaunchPlan:
    """A program in the place of one that starts ranks."""
    return LaunchPlan((sys.executable, "-u", "-c", textwrap.dedent(body)), {}, (), stop_signal=stop_signal)


def follow(lines: list[str], tag: bool = False) -> OutputFollower:
    follower = OutputFollower(tag)
    for line in lines:
        follower.line(line, sys.stdout)
    return follower


def test_only_the_first_ranks_lines_are_shown_and_without_their_label(capsys: pytest.CaptureFixture[str]) -> None:
    follow(["[rank 0 on a] hello", "[rank 1 on b] hidden", "[rank 0 on a] bertkit: an error is told at the end"])
    assert capsys.readouterr().out == "hello\n"
    follow(["[rank 0 on a] hello", "[rank 1 on b] seen"], tag=True)
    assert capsys.readouterr().out == "[rank 0 on a] hello\n[rank 1 on b] seen\n"


def test_a_label_behind_the_starting_programs_own_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    follow(["[1,0]<stdout>: [rank 0 on a] hello"])
    assert capsys.readouterr().out == "hello\n"


def test_the_cause_is_named_and_not_its_consequences() -> None:
    lost, killed = "[rank 0 on a]! 75 exit code 75", "[rank 2 on b]! 137 killed by SIGKILL"
    ended = "[rank 1 on a]! 143 exit code 143"
    for lines in ([lost, killed, ended], [killed, lost], [ended, lost, killed]):
        found = follow(lines).first(stopped=False)
        assert found is not None
        assert (found.rank, found.host, found.code, found.text) == (2, "b", 137, "killed by SIGKILL")
    only = follow([lost]).first(stopped=False)
    assert only is not None
    assert only.code == 75
    assert follow(["[rank 0 on a]! 143 exit code 143"]).first(stopped=True) is None


def test_a_rank_that_a_library_aborted_is_no_cause_where_another_ended_of_itself() -> None:
    """An accelerator's library ends the victims by SIGABRT, and their end may be seen first."""
    victims = [f"[rank {rank} on a]! 134 killed by SIGABRT" for rank in (0, 1)]
    killed, wrong = "[rank 2 on b]! 137 killed by SIGKILL", "[rank 3 on b]! 2 exit code 2"
    for cause, rank in ((killed, 2), (wrong, 3)):
        found = follow([*victims, cause, "[rank 4 on b]! 75 exit code 75"]).first(stopped=False)
        assert found is not None
        assert found.rank == rank
    alone = follow(["[rank 4 on b]! 75 exit code 75", *victims]).first(stopped=False)
    assert alone is not None
    assert alone.rank == 0


def test_a_rank_that_mpi_ended_for_another_is_no_cause() -> None:
    victim, killed = "[rank 0 on a]! 14 exit code 14", "[rank 1 on b]! 137 killed by SIGKILL"
    for codes, rank in (((14,), 1), ((), 0)):
        follower = follow([victim, killed])
        follower.lost_peer_codes = codes
        found = follower.first(stopped=False)
        assert found is not None
        assert found.rank == rank


def test_an_error_of_the_user_becomes_one_line_with_its_rank_and_code_2() -> None:
    follower = follow(["[rank 1 on b] bertkit: no such file; check the path", "[rank 1 on b]! 2 exit code 2"])
    failed = explain(Ended(1, follower.first(False), 0), REQUEST, "mpirun")
    assert str(failed) == "rank 1 on b: no such file; check the path"
    assert failed.exit_code == 2


def test_a_rank_that_stands_still_is_named_beside_the_one_that_gave_up() -> None:
    follower = follow(["[rank 1 on b]? is stopped by a signal (SIGSTOP)", "[rank 0 on a]! 75 exit code 75"])
    failed = explain(Ended(75, follower.first(False), 0, follower.still), REQUEST, "mpirun")
    assert "rank 1 on b is stopped" in str(failed)
    assert failed.exit_code == 1


def test_exit_code_and_lines_of_the_starting_program(tmp_path: Path) -> None:
    ended = supervise(plan("print('There are not enough slots'); raise SystemExit(3)"), False, 5.0)
    assert (ended.code, ended.failure, ended.stopped) == (3, None, 0)
    assert ended.launcher_lines == ("There are not enough slots",)
    with pytest.raises(UserError, match="does not start"):
        supervise(LaunchPlan((str(tmp_path / "none"),), {}, ()), False, 5.0)


def test_every_ranks_lines_go_to_files(tmp_path: Path) -> None:
    supervise(
        plan("print('[rank 0 on a] x'); print('[rank 1 on a] y'); print('[rank 1 on a] z')"), False, 5.0, tmp_path
    )
    assert (tmp_path / "rank-0.log").read_text() == "x\n"
    assert (tmp_path / "rank-1.log").read_text() == "y\nz\n"


@pytest.mark.slow
def test_a_failure_ends_a_program_that_does_not_end_by_itself() -> None:
    hangs = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("[rank 1 on b]! 137 killed by SIGKILL")
        time.sleep(120)
        """
    start = time.monotonic()
    ended = supervise(plan(hangs), False, 0.5)
    assert time.monotonic() - start < 10
    assert ended.failure is not None
    assert ended.failure.rank == 1


# What signals itself is a process of its own: a signal here would be one to the tests.
SUPERVISE = """
import json, os, signal, subprocess, sys, threading, time
from pathlib import Path
from bertkit.launch.interface import LaunchPlan
from bertkit.launch.supervisor import supervise

def plan(body, stop_signal=signal.SIGTERM):
    return LaunchPlan((sys.executable, "-u", "-c", body), {}, (), stop_signal=stop_signal)

def tell(ended):
    print("@@" + json.dumps([ended.code, ended.stopped, ended.failure is None]))
"""


def in_a_process(program: str, *arguments: str) -> tuple[int, int, bool]:
    """What `tell` told: the program's code, the signal's exit code, whether nothing failed."""
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISE + textwrap.dedent(program), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "@@" in done.stdout, (done.returncode, done.stderr)
    code, stopped, well = json.loads(done.stdout.rpartition("@@")[2])
    return code, stopped, well


@pytest.mark.slow_but("True")
@pytest.mark.parametrize("heeds", [True, False])
def test_a_signal_asks_first_and_kills_after_the_grace(heeds: bool, tmp_path: Path) -> None:
    child = tmp_path / "child"
    body = f"""
        import os, signal, subprocess, sys, time
        def stop(*_):
            if {heeds}:
                print("[rank 0 on a] saved")
                sys.exit(143)
        signal.signal(signal.SIGUSR1, stop)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        one = subprocess.Popen(["sleep", "120"])
        open({str(child)!r}, "w").write(str(one.pid))
        print("[rank 0 on a] begun")
        while True:
            time.sleep(0.1)
        """
    program = """
        child = Path(sys.argv[2])

        def interrupt():
            while not child.exists() or not child.read_text():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        tell(supervise(plan(sys.argv[1], signal.SIGUSR1), False, 1.0))
        """
    start = time.monotonic()
    code, stopped, well = in_a_process(program, textwrap.dedent(body), str(child))
    assert time.monotonic() - start < 30
    assert (stopped, well) == (130, True)
    assert (code == 143) == heeds
    time.sleep(0.2)
    state = subprocess.run(["ps", "-o", "stat=", "-p", child.read_text()], capture_output=True, text=True, check=False)
    assert state.stdout.strip()[:1] in ("", "Z")  # what it had started is gone too


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM])
def test_other_signals_than_ctrl_c_end_with_the_ranks_own_code(number: int) -> None:
    """The signal comes as soon as the program runs, before its number is known."""
    program = """
        start = subprocess.Popen

        def started(*arguments, **settings):
            process = start(*arguments, **settings)
            os.kill(os.getpid(), int(sys.argv[1]))
            return process

        subprocess.Popen = started
        tell(supervise(plan("import time; time.sleep(60)"), False, 5.0))
        """
    assert in_a_process(program, str(int(number)))[1] == 143


@pytest.mark.parametrize(
    ("lines", "alone", "several"),
    [
        (["[rank 0 on a]! 143 exit code 143", "[rank 1 on a]! 143 exit code 143"], "raises", 143),
        (["[rank 0 on a]! 130 exit code 130"], "raises", 130),
        (["[rank 0 on a]! 143 exit code 143", "[rank 1 on a]! 1 exit code 1"], "raises", "raises"),
        (["[rank 0 on a]! 143 exit code 143", "[rank 1 on a]! 75 exit code 75"], "raises", "raises"),
    ],
)
def test_a_signal_to_another_host_is_no_failure(lines: list[str], alone: object, several: object) -> None:
    """Each host started its own processes, and the ranks of all stop after the same update."""
    body = f"print({chr(10).join(lines)!r}); raise SystemExit(1)"

    def end(request: Request) -> object:
        try:
            return carry_out(request, lambda request: plan(body), Way(), Display(quiet=True))
        except JobFailed as error:
            return "raises" if error.exit_code == 1 else error

    assert end(REQUEST) == alone
    nodes = Nodes("the command line", "--nnodes", 2, 1, 1, "a:29500")
    assert end(dataclasses.replace(REQUEST, nodes=nodes)) == several
