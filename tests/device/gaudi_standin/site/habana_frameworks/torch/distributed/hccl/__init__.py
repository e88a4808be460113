"""The ranks' environment and the backend "hccl", here over gloo. Importing it is what registers both."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from habana_frameworks import _sim

_FROM_MPI = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "LOCAL_RANK",
    "OMPI_COMM_WORLD_SIZE": "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK": "RANK",
}


def _emulated() -> bool:
    return os.environ.get("PT_HPU_EMULATE_DISTRIBUTED", "0").lower() in ("1", "true")


def _setup_module_id(local_rank: int, world_size: int) -> None:
    if "HLS_MODULE_ID" in os.environ or local_rank == -1 or world_size == 1 or _emulated():
        return
    modules = os.environ.get("HABANA_VISIBLE_MODULES")
    if modules is None:
        os.environ["HLS_MODULE_ID"] = str(local_rank)
        return
    visible = modules.split(",")
    assert local_rank < len(visible), (
        "There is not enough devices available for training. Please verify if HABANA_VISIBLE_MODULES is set correctly."
    )
    os.environ["HLS_MODULE_ID"] = visible[local_rank]


def _setup_environment_from_mpi() -> None:
    if all(name in os.environ for name in _FROM_MPI.values()):
        return
    if all(name in os.environ for name in _FROM_MPI):
        for theirs, ours in _FROM_MPI.items():
            os.environ[ours] = os.environ[theirs]
    # right for one box only
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", "12345")


def initialize_distributed_hpu(
    world_size: int | None = None, rank: int | None = None, local_rank: int | None = None
) -> tuple[int, int, int]:
    """World size, rank and local rank; (1, -1, -1) means not distributed."""
    if world_size is not None and rank is not None and local_rank is not None:
        os.environ |= {"WORLD_SIZE": str(world_size), "RANK": str(rank), "LOCAL_RANK": str(local_rank)}
    else:
        _setup_environment_from_mpi()
    size = int(os.environ.get("WORLD_SIZE", 1))
    here, local = int(os.environ.get("RANK", -1)), int(os.environ.get("LOCAL_RANK", -1))
    _setup_module_id(local, size)
    if here != -1:
        os.environ["ID"] = str(here)
    return size, here, local


initialize_distributed_hpu()


def _create_process_group_hccl(options: Any, pg_options: Any) -> Any:
    group = dist.ProcessGroup(options.store, options.group_rank, options.group_size)
    gloo = dist.ProcessGroupGloo(options.store, options.group_rank, options.group_size, timeout=options.timeout)
    group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
    group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, gloo)
    return _sim.C.make_hccl(group)


if dist.is_available() and not hasattr(dist.Backend, "HCCL"):
    dist.Backend.register_backend("hccl", _create_process_group_hccl, extended_api=True, devices=["hpu"])
