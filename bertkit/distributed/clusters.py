"""What clusters say in the environment of one host's process: how many hosts, which is this, how many processes each.

Clusters that start a command once on each host leave the processes of a host to it. Read from their own sources:
Kubeflow's training operator 1.x (PyTorchJob: WORLD_SIZE = pods x nprocPerNode, RANK and PET_NODE_RANK = the pod's
number) and Trainer 2 (TrainJob: PET_* alone), SkyPilot, Alibaba PAI-DLC (WORLD_SIZE = pods, RANK = the pod's number,
NPROC_PER_NODE = devices of a pod), Azure ML (AZUREML_NODE_COUNT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertkit.errors import UserError
from bertkit.files.inputs import whole_number

PORT = "29500"  # torchrun's
MOST = 1 << 31  # no job has as many processes, nor any of these variables a larger value
HELP = "start the job through its launcher again, or unset these variables"
ONE_DEVICE = ("Open MPI", "Hydra", "PALS")  # whose ranks a script of the site often gives one device each


@dataclass(frozen=True)
class Nodes:
    """The hosts of a job as a cluster describes them to each."""

    source: str  # the cluster
    names: str  # the variables that say it
    count: int
    rank: int  # of this host
    processes: int = 0  # on each host; 0: not said
    address: str = ""  # "host:port" where they may meet; empty: not said


def nodes_of(env: Mapping[str, str]) -> Nodes | None:
    """None: no cluster that is known speaks of hosts here. Raises UserError for what does not fit together."""
    for read in (_kubeflow, _skypilot, _azure, _pai):
        found = read(env)
        if found is None:
            continue
        if not 0 <= found.rank < found.count:
            raise UserError(f"{found.source}'s environment is inconsistent: host {found.rank} of {found.count}", HELP)
        return found
    return None


def address_of(env: Mapping[str, str]) -> str:
    """ "host:port" of the first process, as MASTER_ADDR and MASTER_PORT say, or Kubeflow's names; "" without both."""
    for prefix in ("", "PET_"):
        host, port = env.get(f"{prefix}MASTER_ADDR"), env.get(f"{prefix}MASTER_PORT")
        if host and port:
            return f"{host}:{port}"
    return ""


def number(source: str, name: str, env: Mapping[str, str]) -> int:
    return whole_number(env[name], f"{source}'s {name}", 0, MOST - 1, HELP)


def _kubeflow(env: Mapping[str, str]) -> Nodes | None:
    """PET_*: what torchrun takes for its options. PET_NPROC_PER_NODE may be "auto"; PET_NNODES "1:4" if elastic."""
    if not (env.get("PET_NNODES") and env.get("PET_NODE_RANK")):
        return None
    if ":" in env["PET_NNODES"]:
        raise UserError(
            f"PET_NNODES={env['PET_NNODES']} lets the number of hosts change", "start with torchrun, or fix the number"
        )
    said = env.get("PET_NPROC_PER_NODE", "")
    each = number("Kubeflow", "PET_NPROC_PER_NODE", env) if said.strip().isdecimal() else 0
    count, rank = number("Kubeflow", "PET_NNODES", env), number("Kubeflow", "PET_NODE_RANK", env)
    return Nodes("Kubeflow", "PET_NNODES, PET_NODE_RANK", count, rank, each, address_of(env))


def _skypilot(env: Mapping[str, str]) -> Nodes | None:
    if not (env.get("SKYPILOT_NODE_RANK") and env.get("SKYPILOT_NODE_IPS", "").split()):
        return None
    hosts = env["SKYPILOT_NODE_IPS"].split()  # a line for each; no port is given
    if env.get("SKYPILOT_NUM_NODES") and number("SkyPilot", "SKYPILOT_NUM_NODES", env) != len(hosts):
        raise UserError(
            f"SKYPILOT_NUM_NODES={env['SKYPILOT_NUM_NODES']}, but SKYPILOT_NODE_IPS names {len(hosts)} hosts", HELP
        )
    each = number("SkyPilot", "SKYPILOT_NUM_GPUS_PER_NODE", env) if env.get("SKYPILOT_NUM_GPUS_PER_NODE") else 0
    address = address_of(env) or f"{hosts[0]}:{env.get('MASTER_PORT') or PORT}"
    rank = number("SkyPilot", "SKYPILOT_NODE_RANK", env)
    return Nodes("SkyPilot", "SKYPILOT_NODE_IPS, SKYPILOT_NODE_RANK", len(hosts), rank, each, address)


def _azure(env: Mapping[str, str]) -> Nodes | None:
    """Azure ML with one process for each instance, as it starts a launcher."""
    names = ("AZUREML_NODE_COUNT", "WORLD_SIZE", "NODE_RANK")
    if not all(env.get(name) for name in names):
        return None
    count, size, rank = (number("Azure ML", name, env) for name in names)
    if count != size:
        return None
    return Nodes("Azure ML", "AZUREML_NODE_COUNT, NODE_RANK", count, rank, 0, address_of(env))


def _pai(env: Mapping[str, str]) -> Nodes | None:
    names = ("NPROC_PER_NODE", "WORLD_SIZE", "RANK")
    if env.get("LOCAL_RANK") or not all(env.get(name) for name in names):
        return None
    each, count, rank = (number("PAI", name, env) for name in names)
    return Nodes("PAI", "WORLD_SIZE, RANK, NPROC_PER_NODE", count, rank, each, address_of(env))


def per_host(env: Mapping[str, str]) -> tuple[int, str]:
    """(processes on each host where each process is told its own rank, the variable that says it); 0: none does."""
    source = "the environment"
    for name in ("PET_NPROC_PER_NODE", "NPROC_PER_NODE"):
        if env.get(name, "").strip().isdecimal():
            return number(source, name, env), name
    for name in ("PET_NNODES", "AZUREML_NODE_COUNT"):
        if env.get(name, "").strip().isdecimal():
            hosts, size = number(source, name, env), number(source, "WORLD_SIZE", env)
            if hosts < 1 or size % hosts:
                raise UserError(f"WORLD_SIZE={size} is no multiple of {name}={hosts}", HELP)
            return size // hosts, name
    return 0, ""


def own_device(launcher: str, local_rank: int, local_size: int, count: int, env: Mapping[str, str]) -> int:
    """Which of the `count` devices that this process sees is its own. Raises UserError where there is none.

    A batch system, or a site's script behind mpirun, may show each process its own device alone: it is number 0 there.
    """
    if local_rank < count:
        return local_rank
    if count == 1:
        # on this host, for the whole step: fewer than processes means that two share one
        there = env.get("SLURM_GPUS_ON_NODE", "").strip()
        if launcher == "Slurm" and not (there.isdecimal() and int(there) < local_size):
            return 0
        if launcher in ONE_DEVICE and any(_names_one(name, value) for name, value in env.items()):
            return 0
    raise UserError(
        f"local rank {local_rank} has no device: this process sees {count}",
        "start one process for each, or show it more of them",
    )


def _names_one(name: str, value: str) -> bool:
    """Whether this is a variable that shows a process its devices, and it shows one."""
    return name.endswith(("_VISIBLE_DEVICES", "_AFFINITY_MASK")) and bool(value.strip()) and "," not in value
