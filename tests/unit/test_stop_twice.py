"""A stop that comes twice: Slurm signals a rank's wrapper and what it runs, and the wrapper passes the signal on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from bertkit.launch.rank_process import _prepare_child
from bertkit.training.signals import stop_on_signals


def test_a_second_sigterm_says_nothing_new() -> None:
    with stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.exit_code == 143


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_after_a_stop_does_not_wait(first: signal.Signals) -> None:
    with stop_on_signals() as request:
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == first


def test_sigusr1_does_not_kill_what_a_rank_runs() -> None:
    """Nor what that starts: an ignored signal stays ignored in a new program."""
    code = "import subprocess, sys, time; print(1, flush=True); sys.exit(subprocess.call(['sleep', '0.3']))"
    prepare = partial(_prepare_child, os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code], preexec_fn=prepare, stdout=subprocess.PIPE, process_group=0
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.killpg(child.pid, signal.SIGUSR1)
        assert child.wait(timeout=10) == 0
