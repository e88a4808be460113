"""What `bertkit launch` was given, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LaunchOptions:
    """The options of `bertkit launch`, in the order of its signature."""

    command: tuple[str, ...]
    processes: int | None
    mpi_sockets: bool
    per_socket: int
    numa: bool
    hosts: str
    hostfile: Path | None
    nnodes: int | None
    node_rank: int | None
    master: str
    slurm: Path | None
    submit: bool
    nodes: int
    sbatch: tuple[str, ...]
    container: str
    container_engine: str
    container_options: tuple[str, ...]
    mounts: tuple[str, ...]
    shm_size: str
    launcher: str
    threads: str
    reserve_cores: int
    allocator: str
    oversubscribe: bool
    ssh_port: int
    ssh_config: str
    interface: str
    forward: tuple[str, ...]
    port: int
    max_restarts: int
    grace: float
    tag_output: bool
    logs: Path | None
    topology: Path | None
    dry_run: bool
    json: bool
