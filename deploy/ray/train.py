"""Train on a Ray cluster: Ray starts a worker for each process, and these run `bertkit train` as one job.

    ray job submit --working-dir deploy/ray -- python train.py --workers 2 -- --recipe demo -o /shared/runs/demo
    ray job logs --follow JOB

What stands behind `--` are the words of `bertkit train`, with paths that all nodes share. Where a worker or its node is
lost, all begin again and resume from the latest checkpoint.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from bertkit.files.processes import die_with_parent


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] -- WORDS OF BERTKIT TRAIN")
    parser.add_argument("--workers", type=int, default=2, help="Number of processes.")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of a process.")
    parser.add_argument("--gpu", action="store_true", help="Give each process a GPU.")
    parser.add_argument("--failures", type=int, default=3, help="How often the job may begin again.")
    parser.add_argument("--storage", default="/tmp/ray-train", help="Folder of Ray Train's own notes.")  # noqa: S108
    parser.add_argument("words", nargs="+", help="Words of bertkit train.")
    given = parser.parse_args()
    DataParallelTrainer(
        train,
        train_loop_config={"words": given.words, "cpus": given.cpus},
        scaling_config=ScalingConfig(
            num_workers=given.workers,
            use_gpu=given.gpu,
            resources_per_worker={"CPU": given.cpus, "GPU": int(given.gpu)},
        ),
        run_config=RunConfig(
            storage_path=given.storage,
            failure_config=FailureConfig(max_failures=given.failures),
        ),
    ).fit()


def train(config: dict) -> None:
    """One process. Raises RuntimeError where it fails."""
    here = get_context()
    ranks = {
        "RANK": here.get_world_rank(),
        "WORLD_SIZE": here.get_world_size(),
        "LOCAL_RANK": here.get_local_rank(),
        "LOCAL_WORLD_SIZE": here.get_local_world_size(),
        "MASTER_ADDR": ray.util.get_node_ip_address(),
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": config["cpus"],
    }
    ranks |= broadcast_from_rank_zero({name: ranks[name] for name in ("MASTER_ADDR", "MASTER_PORT")})
    env = os.environ | {name: str(value) for name, value in ranks.items()}
    command = [sys.executable, "-m", "bertkit", "train", *config["words"], "--resume"]
    process = subprocess.Popen(command, env=env, preexec_fn=die_with_parent)  # Ray may kill a worker at once
    try:
        code = process.wait()
    finally:
        process.send_signal(signal.SIGTERM)
    if code:
        raise RuntimeError(f"bertkit train ended with exit code {code} on rank {here.get_world_rank()}")


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("", 0))
        return int(asked.getsockname()[1])


if __name__ == "__main__":
    main()
