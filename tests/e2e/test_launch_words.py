"""The words of `bertkit launch`: what is refused, what is only shown or written, and whose lines are whose."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from bertkit.cli.main import main
from command import run
from conftest import Run, assert_one_line_error
from launchers import NULL_JOB, Started

BAD = {
    "more processes than cores": (("-n", "999"), ("999", "--oversubscribe")),
    "no command": (("-n", "2", "--", "trian"), ("trian", "train")),
    "a port that is taken": (("-n", "2", "--port", "PORT"), ("PORT", "taken")),
    "inside of another launcher": (("-n", "2"), ("already", "OMPI_COMM_WORLD_SIZE")),
    "sockets inside of another launcher": (("--mpi-sockets",), ("already", "OMPI_COMM_WORLD_SIZE")),
    "half of where hosts meet": (("-n", "1", "--nnodes", "2"), ("--node-rank and --master", "--node-rank 0")),
    "hosts by ssh and without": (("-n", "1", "--nnodes", "2", "--hosts", "a,b"), ("starts its own", "ssh")),
    "no file of hosts": (("-n", "1", "--hostfile", "absent"), ("absent", "name a file of hosts")),
    "an unknown rule": (("-n", "2", "--threads", "most"), ("'most'", "share")),
    "no number of processes": ((), ("-n N", "--mpi-sockets")),
    "an error of the command's own": (("-n", "2", "--", "train", "-t", "nonesuch"), ("nonesuch", "rank")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name: str, bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    words, expected = BAD[name]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = tuple(word.replace("PORT", port) for word in words)
        command = () if "--" in words else ("--", *NULL_JOB, "--data-dir", str(sample_dir), "-o", "run")
        inside = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"} if "inside" in name else {}
        done = bertkit("launch", *words, *command, **inside)
    assert_one_line_error(done, *(word.replace("PORT", port) for word in expected))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_every_process_and_starts_nothing(tmp_path: Path) -> None:
    plain = run(tmp_path, "launch", "-n", "2", "--dry-run", "--", "train", "-t", "mrpc", "-o", "run")
    assert plain.returncode == 0, plain.stderr
    assert "rank 1 on" in plain.stdout
    assert "CPUs" in plain.stdout
    assert "OMP_NUM_THREADS=1" in plain.stdout
    assert run(tmp_path, "launch", "-n", "2", "--dry-run", "train", "-t", "mrpc", "-o", "run").stdout == plain.stdout
    told = json.loads(run(tmp_path, "launch", "-n", "2", "--dry-run", "--json", "--", "train", "-t", "mrpc").stdout)
    assert [process["rank"] for process in told["processes"]] == [0, 1]
    assert told["processes"][0]["place"]["cpus"] != told["processes"][1]["place"]["cpus"]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_takes_hosts_from_a_file_and_from_the_cluster(tmp_path: Path, bertkit: Run) -> None:
    (tmp_path / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    words = ("--dry-run", "--json", "--", "train", "-t", "mrpc", "-o", "run")
    done = bertkit("launch", "--hostfile", "hosts", *words)
    told = json.loads(done.stdout)
    assert [process["host"] for process in told["processes"]] == ["node1", "node2"], done.stderr
    pod = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "pod-0", "PET_MASTER_PORT": "29400"}
    done = bertkit("launch", *words, **pod, PET_NPROC_PER_NODE="2")
    told = json.loads(done.stdout)
    assert [process["rank"] for process in told["processes"]] == [2, 3], done.stderr
    assert "host 1 of 2 (PET_NNODES, PET_NODE_RANK of Kubeflow), which meet at pod-0:29400" in done.stderr
    assert " --nnodes 2 --node-rank 1 " in " ".join(told["argv"])


INNER = {
    "an option": (("train", "-t", "mrpc", "--nope"), ("No such option", "--nope", "bertkit train -h")),
    "a task": (("train", "-t", "mrcp"), ("mrcp", "did you mean mrpc?")),
    "a recipe": (("train", "--recipe", "dmo"), ("there is no recipe 'dmo'", "demo")),
    "a setting": (("train", "-t", "mrpc", "--set", "train.stesp=3"), ("train.stesp", "train.steps")),
    "a value": (("train", "-t", "mrpc", "--set", "train.steps=few"), ("train.steps = 'few'", "integer")),
    "an option's value": (("train", "-t", "mrpc", "-b", "many"), ("--batch-size", "integer")),
    "a precision": (("predict", "runs/a", "-d", "fp61"), ("fp61", "bf16")),
    "a batch": (("bench", "infer", "-b", "8,x"), ("'x' is not a whole number", "-b 8,32")),
    "of data": (("data", "prepare", "text", "--nope"), ("--nope", "bertkit data prepare -h")),
}


@pytest.mark.parametrize(
    "how", [("-n", "2", "--dry-run"), ("-n", "1", "--slurm", "run.sbatch")], ids=["shown", "Slurm"]
)
@pytest.mark.parametrize("name", INNER)
def test_what_is_not_started_is_checked_all_the_same(
    name: str, how: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = INNER[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["launch", *how, "--", *words])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("bertkit: ")]) == 1
    assert all(word in lines[-1] for word in said), lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tagged_lines_and_log_files(tmp_path: Path, sample_dir: Path) -> None:
    words = (*NULL_JOB, "--data-dir", str(sample_dir), "-o", "run", "--set", "train.steps=2")
    done = Started(tmp_path, "torchrun", 2, *words, options=("--tag-output", "--logs", "logs")).finish()
    assert done.returncode == 0, done.stderr
    assert "[rank 0 on " in done.stderr
    assert "result on the dev set" in (tmp_path / "logs" / "rank-0.log").read_text()


@pytest.mark.slow
def test_json_on_stdout_is_the_commands_own(tmp_path: Path, sample_dir: Path) -> None:
    words = (*NULL_JOB, "--data-dir", str(sample_dir), "-o", "run", "--set", "train.steps=2", "--json")
    done = Started(tmp_path, "torchrun", 2, *words).finish()
    assert json.loads(done.stdout)["updates"] == 2


def test_a_slurm_script_is_written_and_handed_in(bertkit: Run, tmp_path: Path) -> None:
    words = ("launch", "--slurm", "run.sbatch", "--nodes", "2", "-n", "1", "--sbatch=--time=2:00:00")
    train = ("--", "train", "-m", "base", "-t", "mrpc")
    written = bertkit(*words, *train)
    assert written.returncode == 0, written.stderr
    assert "submit it with `sbatch run.sbatch`" in written.stderr
    script = (tmp_path / "run.sbatch").read_text()
    assert "#SBATCH --time=2:00:00" in script
    assert "bertkit.launch.rank_process train -m base -t mrpc" in script
    alone = {"PATH": str(tmp_path / "bin")}
    (tmp_path / "bin").mkdir()
    assert_one_line_error(bertkit(*words, "--submit", *train, **alone), "no sbatch on this machine")
    (tmp_path / "bin" / "sbatch").write_text('#!/bin/sh\necho "$2" > handed-in\necho 7\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    done = bertkit(*words, "--submit", *train, **alone)
    assert "submitted as job 7" in done.stderr, done.stderr
    assert (tmp_path / "handed-in").read_text() == "run.sbatch\n"
