"""Worlds as clusters describe them, by the variables that their own sources set; ranks that ask one another."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from bertkit.distributed import neighbours, world
from bertkit.distributed.clusters import own_device
from bertkit.distributed.world import World, from_env
from bertkit.errors import UserError
from command import free_port

Env = dict[str, str]
MASTER = {"MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}
ALONE = World()


@dataclass(frozen=True)
class Cluster:
    """What processes 0 and 1 get, one on each of two hosts where it starts one on each, else both on one host."""

    alone: Env
    two: tuple[Env, Env]
    worlds: tuple[World, World]
    alone_too: World = ALONE


def kubeflow(rank: int, pods: int, each: str = "auto", processes: int = 1) -> Env:
    """pkg/controller.v1/pytorch/envvar.go and master.go of kubeflow/training-operator 1.8: a PyTorchJob."""
    return {
        "PYTHONUNBUFFERED": "1", **MASTER, "WORLD_SIZE": str(pods * processes), "RANK": str(rank),
        "PET_NPROC_PER_NODE": each, "PET_NODE_RANK": str(rank), "PET_NNODES": str(pods),
        "PET_MASTER_ADDR": MASTER["MASTER_ADDR"], "PET_MASTER_PORT": MASTER["MASTER_PORT"],
    }  # fmt: skip


def trainjob(rank: int, nodes: int, each: str = "1") -> Env:
    """pkg/runtime/framework/plugins/torch/torch.go of kubeflow/trainer 2: names of torchrun's options alone."""
    return {
        "PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": each, "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29400",
    }  # fmt: skip


def azure(rank: int, nodes: int, each: int = 1) -> Env:
    """Azure ML's `distribution: {type: pytorch, process_count_per_instance: each}`."""
    return {
        "MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "6105", "WORLD_SIZE": str(nodes * each), "RANK": str(rank),
        "NODE_RANK": str(rank // each), "LOCAL_RANK": str(rank % each), "AZUREML_NODE_COUNT": str(nodes),
        "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000", "AZUREML_EXPERIMENT_ID": "e",
    }  # fmt: skip


def pai(rank: int, pods: int, each: str = "1") -> Env:
    """PAI-DLC's general environment variables: WORLD_SIZE and RANK count pods."""
    return {**MASTER, "WORLD_SIZE": str(pods), "RANK": str(rank), "NPROC_PER_NODE": each}


def sky(rank: int, nodes: int, gpus: str = "1") -> Env:
    """docs/source/running-jobs/environment-variables.rst of SkyPilot."""
    return {
        "SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NODE_IPS": "\n".join(["10.1.0.1", "10.1.0.2"][:nodes]),
        "SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NUM_GPUS_PER_NODE": gpus, "SKYPILOT_TASK_ID": "sky-1",
    }  # fmt: skip


def ray(rank: int, size: int) -> Env:
    """python/ray/train/torch/config.py, two workers on one node."""
    return {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        "NODE_RANK": "0", "MASTER_ADDR": "10.2.0.1", "MASTER_PORT": "41001",
    }  # fmt: skip


def pals(rank: int, size: int) -> Env:
    """HPE's pals.h: mpiexec on Cray EX, two ranks on one node."""
    local = {"PALS_LOCAL_RANKID": str(rank), "PALS_LOCAL_SIZE": str(size)}
    pmi = {"PMI_LOCAL_RANK": str(rank), "PMI_LOCAL_SIZE": str(size), "PMI_JOBID": "u", "PMI_UNIVERSE_SIZE": str(size)}
    return {"PALS_RANKID": str(rank), "PALS_NODEID": "0", "PMI_RANK": str(rank), "PMI_SIZE": str(size), **local, **pmi}


def slurm(rank: int, size: int) -> Env:
    """srun's, two tasks on one node."""
    return {
        "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(size), "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_STEP_TASKS_PER_NODE": str(size), "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": str(size),
    }  # fmt: skip


def pmi2(rank: int, size: int) -> Env:
    """src/plugins/mpi/pmi2/mpi_pmi2.c: `srun --mpi=pmi2`."""
    return slurm(rank, size) | {"PMI_FD": "7", "PMI_JOBID": "77.0", "PMI_RANK": str(rank), "PMI_SIZE": str(size)}


def pmix(rank: int, size: int) -> Env:
    """`srun --mpi=pmix`."""
    return slurm(rank, size) | {"PMIX_RANK": str(rank), "PMIX_NAMESPACE": "slurm.pmix.77.0", "PMIX_SERVER_URI3": "u"}


def hydra(rank: int, size: int) -> Env:
    """mpiexec.hydra of MPICH 5.0.2 and Intel MPI 2021.19, as they were seen here."""
    local = {"MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": str(size)}
    return {"PMI_FD": "9", "PMI_RANK": str(rank), "PMI_SIZE": str(size), **local}


def volcano(rank: int, size: int) -> Env:
    """Volcano's pytorch plugin, or a script of one's own: nothing says which ranks share a host."""
    return {**MASTER, "WORLD_SIZE": str(size), "RANK": str(rank)}


def on_two(source: str, address: str) -> tuple[World, World]:
    return World(0, 2, 0, 1, source, address), World(1, 2, 0, 1, source, address)


def on_one(source: str, address: str = "") -> tuple[World, World]:
    return World(0, 2, 0, 2, source, address), World(1, 2, 1, 2, source, address)


def both(make: Any) -> tuple[Env, Env]:
    return make(0, 2), make(1, 2)


JOB = "job-master-0:23456"
CLUSTERS = {
    "Kubeflow PyTorchJob": Cluster(
        kubeflow(0, 1), both(kubeflow), on_two("Kubeflow", JOB), World(0, 1, 0, 1, "torchrun", JOB)
    ),
    "Kubeflow TrainJob": Cluster(trainjob(0, 1), both(trainjob), on_two("Kubeflow", "job-node-0-0.job:29400")),
    "Azure ML, one host": Cluster(
        azure(0, 1), (azure(0, 1, 2), azure(1, 1, 2)), on_one("Azure ML", "10.0.0.4:6105"),
        World(0, 1, 0, 1, "torchrun", "10.0.0.4:6105"),
    ),
    "Azure ML, two hosts": Cluster(
        azure(0, 1), both(azure), on_two("Azure ML", "10.0.0.4:6105"), World(0, 1, 0, 1, "torchrun", "10.0.0.4:6105")
    ),
    "PAI-DLC": Cluster(pai(0, 1, "8"), both(pai), on_two("PAI", JOB), World(0, 1, 0, 1, "torchrun", JOB)),
    "SkyPilot": Cluster(sky(0, 1, "8"), both(sky), on_two("SkyPilot", "10.1.0.1:29500")),
    "Ray Train": Cluster(
        ray(0, 1), both(ray), on_one("torchrun", "10.2.0.1:41001"), World(0, 1, 0, 1, "torchrun", "10.2.0.1:41001")
    ),
    "PALS": Cluster(pals(0, 1), both(pals), on_one("PALS"), World(0, 1, 0, 1, "PALS")),
    "Slurm": Cluster(slurm(0, 1), both(slurm), on_one("Slurm", "n1:20077"), World(0, 1, 0, 1, "Slurm", "n1:20077")),
    "Slurm, PMI2": Cluster(pmi2(0, 1), both(pmi2), on_one("Slurm", "n1:20077"), World(0, 1, 0, 1, "Slurm", "n1:20077")),
    "Slurm, PMIx": Cluster(pmix(0, 1), both(pmix), on_one("Slurm", "n1:20077"), World(0, 1, 0, 1, "Slurm", "n1:20077")),
    "Hydra": Cluster(hydra(0, 1), both(hydra), on_one("Hydra"), World(0, 1, 0, 1, "Hydra")),
    "Volcano": Cluster(
        volcano(0, 1), both(volcano), on_two("the environment", JOB), World(0, 1, 0, 1, "torchrun", JOB)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_clusters_world(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, str]] = []
    monkeypatch.setattr(world, "local_numbers", lambda *words: asked.append(words) or (0, 1))
    cluster = CLUSTERS[name]
    assert from_env(cluster.alone) == cluster.alone_too
    assert tuple(map(from_env, cluster.two)) == cluster.worlds
    assert asked == ([(0, 2, JOB), (1, 2, JOB)] if name == "Volcano" else [])


REFUSED = {
    "one process of two": (kubeflow(0, 1, "2", 2), "WORLD_SIZE=2: Kubeflow gives each host 2 processes"),
    "one of two on two pods": (kubeflow(1, 2, "2", 2), "each of 2 hosts 2 processes, and this one was started alone"),
    "Kubeflow's own numbers apart": (
        kubeflow(1, 2) | {"RANK": "0"}, "RANK=0 of WORLD_SIZE=2 contradicts Kubeflow's host 1 of 2 .*PET_NODE_RANK"
    ),
    "WORLD_SIZE that counts other than pods": (
        kubeflow(0, 2) | {"WORLD_SIZE": "3"}, "WORLD_SIZE=3 contradicts Kubeflow's host 0 of 2"
    ),
    "a TrainJob of four on each": (trainjob(1, 2, "4"), "Kubeflow gives each of 2 hosts 4 processes"),
    "an elastic job": (trainjob(0, 2) | {"PET_NNODES": "1:3"}, "PET_NNODES=1:3 lets the number of hosts change"),
    "PAI with eight devices": (pai(0, 2, "8"), "PAI gives each of 2 hosts 8 processes"),
    "PAI's pods as ranks": (pai(1, 2, "8") | {"LOCAL_RANK": "3"}, "inconsistent: rank 1 of 2, local 3 of 8"),
    "SkyPilot with eight devices": (sky(1, 2, "8"), "SkyPilot gives each of 2 hosts 8 processes"),
    "SkyPilot's counts apart": (sky(1, 2) | {"SKYPILOT_NUM_NODES": "3"}, "SKYPILOT_NODE_IPS names 2 hosts"),
    "Azure ML's rank apart": (azure(3, 2, 2) | {"RANK": "2"}, "RANK=2 contradicts NODE_RANK=1 and LOCAL_RANK=1"),
    "Azure ML's count apart": (azure(1, 2, 2) | {"WORLD_SIZE": "5"}, "is no multiple of AZUREML_NODE_COUNT=2"),
    "PALS without PMI": (
        {name: value for name, value in pals(1, 2).items() if not name.startswith("PMI_")} | {"PMIX_RANK": "1"},
        "PALS gives PALS_RANKID but not PMI_RANK, PMI_SIZE",
    ),
    "a rank beyond": (volcano(2, 2), "inconsistent: rank 2 of 2"),
    "nowhere to meet": ({"RANK": "0", "WORLD_SIZE": "2"}, "set by half.*neither LOCAL_WORLD_SIZE nor MASTER_ADDR"),
    "no number": (trainjob(0, 2) | {"PET_NNODES": "two"}, "PET_NNODES is 'two', not a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_together_is_one_error(name: str) -> None:
    env, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        from_env(env)


def test_ranks_copied_from_pals_are_its_own() -> None:
    copied = {"RANK": "1", "WORLD_SIZE": "2", **MASTER}
    assert from_env(pals(1, 2) | copied) == World(1, 2, 1, 2, "PALS", JOB)
    unsized = {name: value for name, value in pals(1, 2).items() if not name.startswith("PMI_")}
    whole = {**copied, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}  # what `mpiexec --pmi=pmix` needs
    assert from_env(unsized | whole) == World(1, 2, 1, 2, "torchrun", JOB)


# ---- asking one another ----


def ask(rank: int, size: int, port: int, host: str, found: dict[Any, Any], key: Any, patience: float = 20) -> None:
    threading.current_thread().name = str(rank)
    try:
        found[key] = neighbours.local_numbers.__wrapped__(rank, size, f"{host}:{port}", patience)
    except UserError as error:
        found[key] = error


def all_ask(ranks: list[tuple[int, int]], patience: float = 20) -> list[Any]:
    """Each of `ranks`, (rank, size), in a thread of its own."""
    port, found = free_port(), {}
    threads = [
        threading.Thread(target=ask, args=(rank, size, port, "127.0.0.1", found, key, patience))
        for key, (rank, size) in enumerate(ranks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[key] for key in range(len(ranks))]


def test_ranks_meet_at_a_name_too() -> None:
    port, found, name = free_port(), {}, socket.gethostname()
    threads = [threading.Thread(target=ask, args=(rank, 2, port, name, found, rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: (0, 2), 1: (1, 2)}


def test_ranks_learn_who_shares_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_ask([(2, 3), (1, 3), (0, 3)]) == [(2, 3), (1, 3), (0, 3)]
    monkeypatch.setattr(neighbours, "this_host", lambda: "ab"[int(threading.current_thread().name) % 2])
    assert all_ask([(0, 4), (1, 4), (2, 4), (3, 4)]) == [(0, 2), (0, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize(
    ("ranks", "said"),
    [([(0, 3), (1, 3), (1, 3)], "two processes have RANK=1"), ([(0, 2), (1, 3)], "WORLD_SIZE=3, the first process 2")],
)  # fmt: skip
def test_ranks_that_contradict_one_another_all_say_so(ranks: list[tuple[int, int]], said: str) -> None:
    assert all(said in str(one) for one in all_ask(ranks))


def test_ranks_that_do_not_come_are_counted() -> None:
    assert "did not meet the others" in str(all_ask([(0, 3), (1, 3)], 0.6)[0])
    assert "1 did not come" in str(all_ask([(0, 3), (1, 3)], 0.6)[0])


def test_a_rank_that_waits_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(neighbours, "SILENT", 0.05)
    all_ask([(0, 2)], patience=0.5)
    said = capfd.readouterr().err
    assert "rank 0 of 2 waits at 127.0.0.1:" in said
    all_ask([(0, 2), (1, 2)])
    assert said.count("\n") == 1


def test_what_is_no_rank_is_passed_over() -> None:
    port, found = free_port(), {}
    first = threading.Thread(target=ask, args=(0, 2, port, "127.0.0.1", found, 0))
    first.start()
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"", b"[1]\n"):
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(words)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.02)
    ask(1, 2, port, "127.0.0.1", found, 1)
    first.join()
    assert found == {0: (0, 2), 1: (1, 2)}


# ---- devices ----


@pytest.mark.parametrize(
    ("launcher", "count", "env", "index"),
    [
        ("torchrun", 8, {}, 3),
        ("Slurm", 1, {}, 0),  # --gpus-per-task=1: each task sees its own
        ("Slurm", 1, {"SLURM_GPUS_ON_NODE": "4"}, 0),
        ("Slurm", 1, {"SLURM_GPUS_ON_NODE": "1"}, None),  # four tasks, one device
        ("Slurm", 2, {}, None),
        ("PALS", 1, {"ZE_AFFINITY_MASK": "1.1"}, 0),  # a site's script gives each rank its tile
        ("Open MPI", 1, {"CUDA_VISIBLE_DEVICES": "3"}, 0),
        ("Open MPI", 1, {}, None),
        ("torchrun", 1, {"CUDA_VISIBLE_DEVICES": "3"}, None),  # the same variable for all
    ],
)
def test_which_visible_device_is_a_ranks_own(launcher: str, count: int, env: Env, index: int | None) -> None:
    if index is None:
        with pytest.raises(UserError, match=f"local rank 3 has no device: this process sees {count}"):
            own_device(launcher, 3, 4, count, env)
    else:
        assert own_device(launcher, 3, 4, count, env) == index
