"""What launchers share: no launcher within another, ports, and a command as it is run again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit.launch.interface import Request, find_launcher, free_port, rank_command, refuse_nested, resumed
from bertkit.launch.rank_process import child_program
from bertkit.launch.script import Script, is_script, parse_script


@pytest.mark.parametrize(
    ("env", "launcher"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, "mpirun"),  # its children cannot call mpirun either
        ({"PMI_SIZE": "4"}, "mpirun"),
        ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun"),
        ({"SLURM_STEP_ID": "0"}, "srun"),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "srun"),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
    ],
)
def test_a_launcher_within_another_is_refused(env: dict[str, str], launcher: str) -> None:
    with pytest.raises(UserError, match=rf"under {launcher} already .*; start it once, outside {launcher}"):
        refuse_nested(env)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"PATH": "/bin", "RANK": "", "TORCHELASTIC_RUN_ID": ""},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},  # a batch script, or salloc's shell
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "batch"},
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290"},  # salloc's interactive step
        {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "1"},  # srun --pty bash
    ],
)
def test_a_plain_shell_is_none(env: dict[str, str]) -> None:
    refuse_nested(env)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken on this machine; take another"):
            free_port(port)
    assert free_port(port) == port


def test_a_free_port_is_found() -> None:
    assert 1024 <= free_port(0) < 65536


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(UserError, match="is no port"):
        free_port(port)


@pytest.mark.parametrize(
    ("command", "again"),
    [
        ("train -t mrpc", "train -t mrpc --resume"),
        ("train --overwrite -t mrpc --overwrite_output_dir", "train -t mrpc --resume"),
        ("train --resume -t mrpc", "train --resume -t mrpc"),
        ("predict -m runs/a --overwrite", "predict -m runs/a --overwrite"),
        ("python my.py --overwrite", "--resume python my.py --overwrite"),  # whose words are its own
        ("--resume my.py", "--resume my.py"),
    ],
)
def test_a_training_is_resumed(command: str, again: str) -> None:
    assert resumed(tuple(command.split())) == tuple(again.split())


def test_the_command_of_a_rank() -> None:
    request = Request(("train", "-t", "a b"), python="/opt/python")
    assert rank_command(request) == ("/opt/python", "-P", "-m", "bertkit.launch.rank_process", "train", "-t", "a b")


@pytest.mark.parametrize(
    ("words", "program", "env"),
    [
        ("train --resume", "bertkit train --resume", {}),
        ("python my.py -b 3", "bertkit.launch.script python my.py -b 3", {}),
        ("--resume ./my.py", "bertkit.launch.script --resume ./my.py", {"BERTKIT_RESUME": "1"}),
    ],
)
def test_what_a_rank_runs(words: str, program: str, env: dict[str, str]) -> None:
    assert child_program(words.split()) == ((sys.executable, "-P", "-m", *program.split()), env)


def test_a_rank_inherits_what_its_launcher_hands_down(tmp_path: Path) -> None:
    """Hydra gives each rank a connection by the number of a file descriptor; MPICH and Intel MPI die without it."""
    (tmp_path / "my.py").write_text("import os\nos.write(int(os.environ['PMI_FD']), b'cmd=init')\n")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [*rank_command(Request(("my.py",), python=sys.executable))],
            cwd=tmp_path, env=os.environ | {"PMI_FD": str(theirs.fileno())}, pass_fds=[theirs.fileno()],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ours.recv(99) == b"cmd=init"


@pytest.mark.parametrize(
    ("words", "script"),
    [
        ("my.py -m x", Script("my.py", False, ("-m", "x"))),
        ("python -u my.py", Script("my.py", False, ())),
        ("--resume python3 -m a.b -u", Script("a.b", True, ("-u",))),
    ],
)
def test_the_words_of_a_script(words: str, script: Script) -> None:
    assert is_script(words.split())
    assert parse_script(words.split()) == script


@pytest.mark.parametrize("words", ["train my.py", "pythonic my.py", "--resume train", ""])
def test_words_of_no_script(words: str) -> None:
    assert not is_script(words.split())


def test_an_unknown_launcher_is_named() -> None:
    with pytest.raises(UserError, match="no launcher 'slurn'"):
        find_launcher("slurn")
