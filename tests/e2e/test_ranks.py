"""Several processes as torchrun starts them: the same model as one process, every example once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bertkit.files.disk import read_arrays
from command import checkpoints, remove_checkpoint, start_ranks
from conftest import Run, command_env

COMMON = (
    "train", "--backend", "cpu", "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "-e", "1",
    "--set", "data.train_rows=150", "--set", "data.eval_rows=101", "--set", "model.hidden_dropout=0.0",
    "--set", "model.attention_dropout=0.0", "--set", "log.every=1", "--quiet",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch"), [(2, 16), (4, 8)])
def test_ranks_learn_what_one_process_learns(
    bertkit: Run, tmp_path: Path, sample_dir: Path, size: int, batch: int
) -> None:
    """150 examples in batches of 32 leave 22 for the last update, dealt unevenly; 101 dev rows do not divide either."""
    data = ["--data-dir", str(sample_dir)]
    alone = bertkit(*COMMON, *data, "-b", "32", "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    ranks = start_ranks(tmp_path, size, [*COMMON, *data, "-b", str(batch), "-o", "ranks"])
    assert [done.returncode for done in ranks] == [0] * size, "\n".join(done.stderr for done in ranks)
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("alone", "ranks")]
    assert records[0]["losses"] == pytest.approx(records[1]["losses"], abs=2e-6)
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[1]["hardware"]["processes"] == size
    counted = [record["throughput"]["counted"] for record in records]
    for name in ("updates", "sequences", "tokens"):  # summed over ranks; places computed depend on the split
        assert counted[0][name] == counted[1][name]
    assert records[0]["fairness"] == records[1]["fairness"]  # nothing differs that should not
    times = [record["time"] for record in records]
    assert times[0]["communication_seconds"] == 0
    assert times[1]["communication_seconds"] > 0
    left, right = (read_arrays(tmp_path / name / "model.safetensors")[0] for name in ("alone", "ranks"))
    assert max(float(np.abs(left[name] - right[name]).max()) for name in left) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "loss", "weight"),
    [
        (["--set", "train.micro_batch_size=4"], 2e-6, 2e-6),
        (["--set", "train.micro_batch_size=4", "--set", "ranks.overlap=true"], 2e-6, 2e-6),
        pytest.param(["--set", "ranks.gradients=bf16"], 1e-2, 1e-2, marks=pytest.mark.slow),
        (["--set", "ranks.gradients=bf16", "--set", "ranks.overlap=true"], 1e-2, 1e-2),
    ],
    ids=["accumulated", "overlapped", "bf16", "bf16 overlapped"],
)
def test_ways_to_exchange_gradients(
    bertkit: Run, tmp_path: Path, sample_dir: Path, more: list[str], loss: float, weight: float
) -> None:
    """The last update's 22 examples leave a rank's last micro-batches empty."""
    data = ["--data-dir", str(sample_dir)]
    alone = bertkit(*COMMON, *data, "-b", "32", "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    ranks = start_ranks(tmp_path, 2, [*COMMON, *data, "-b", "16", *more, "-o", "ranks"])
    assert [done.returncode for done in ranks] == [0, 0], "\n".join(done.stderr for done in ranks)
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("alone", "ranks")]
    assert records[0]["losses"] == pytest.approx(records[1]["losses"], abs=loss)
    left, right = (read_arrays(tmp_path / name / "model.safetensors")[0] for name in ("alone", "ranks"))
    apart = max(float(np.abs(left[name] - right[name]).max()) for name in left)
    assert apart < weight
    if "ranks.gradients=bf16" in more:
        assert apart > 2e-6  # it was rounded


@pytest.mark.slow
def test_a_shared_optimizer_resumes_on_another_number_of_ranks(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    """The second epoch of a run of two ranks is done by one, and by three that share too."""
    words = [*COMMON, "--data-dir", str(sample_dir), "-e", "2", "--set", "optimizer.name=lamb"]
    words += ["--set", "checkpoint.keep=9"]
    alone = bertkit(*words, "-b", "30", "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    shared = [*words, "--set", "optimizer.shard=true"]
    done = start_ranks(tmp_path, 2, [*shared, "-b", "15", "-o", "ranks"])
    assert [one.returncode for one in done] == [0, 0], "\n".join(one.stderr for one in done)
    kept = checkpoints(tmp_path / "ranks")
    assert len(kept) == 2
    for size in (1, 3):
        folder = f"again{size}"
        shutil.copytree(tmp_path / "ranks", tmp_path / folder)
        remove_checkpoint(tmp_path / folder, kept[-1])
        done = start_ranks(tmp_path, size, [*shared, "-b", str(30 // size), "-o", folder, "--resume"])
        assert [one.returncode for one in done] == [0] * size, "\n".join(one.stderr for one in done)
    for name in ("ranks", "again1", "again3"):
        left, right = (read_arrays(tmp_path / one / "model.safetensors")[0] for one in ("alone", name))
        assert max(float(np.abs(left[n] - right[n]).max()) for n in left) < 5e-6, name


@pytest.mark.slow
def test_the_null_backend_runs_on_several_ranks(tmp_path: Path, sample_dir: Path) -> None:
    words = [*COMMON, "--backend", "null", "--data-dir", str(sample_dir), "-b", "16", "-o", "ranks"]
    ranks = start_ranks(tmp_path, 3, words)
    assert [done.returncode for done in ranks] == [0, 0, 0], "\n".join(done.stderr for done in ranks)
    record = json.loads((tmp_path / "ranks" / "record.json").read_text())
    assert record["hardware"]["processes"] == 3
    assert record["throughput"]["counted"]["sequences"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("overlap", ["false", "true"])
def test_ranks_of_mpirun_share_memory_and_learn_the_same(
    bertkit: Run, tmp_path: Path, sample_dir: Path, overlap: str
) -> None:
    pytest.importorskip("mpi4py")
    mpirun = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if mpirun is None or "Open" not in subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no mpirun of Open MPI")
    words = [*COMMON, "--data-dir", str(sample_dir), "--set", f"ranks.overlap={overlap}"]
    alone = bertkit(*words, "-b", "32", "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    done = subprocess.run(
        [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "bertkit", *words,
         "-b", "16", "-o", "ranks"],
        cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("alone", "ranks")]
    assert records[0]["losses"] == pytest.approx(records[1]["losses"], abs=2e-6)
    assert "window (auto: " in json.dumps(records[1])
