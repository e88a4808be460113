"""MPI: processes started by the machine's own mpirun, and collectives between them. Importing it imports no mpi4py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace

from bertkit.plugin import LaunchPlan, Machine, Request, find_allocator, free_port
from bertkit_mpi.matching import own_library
from bertkit_mpi.mpirun import probe
from bertkit_mpi.plan import mpi_plan
from bertkit_mpi.remote import Ssh, check_hosts

LIBRARY = "MPI4PY_LIBMPI"  # read by mpi4py


class MpiLauncher:
    """Asks which mpirun there is, then plans for it."""

    name = "mpi"

    def check(self, request: Request, env: Mapping[str, str]) -> None:
        if request.hosts:
            ssh = Ssh(request.ssh_port, request.ssh_config)
            path = {"PYTHONPATH": env["PYTHONPATH"]} if env.get("PYTHONPATH") else {}
            check_hosts(request.hosts, ssh, request.python, forwarded=path)

    def plan(self, request: Request, machine: Machine, env: Mapping[str, str]) -> LaunchPlan:
        found = probe(env, request.python)
        if not request.port and not env.get("MASTER_PORT"):
            request = replace(request, port=free_port(0))
        library, warning = ("", "") if env.get(LIBRARY) else own_library(found, env)
        added = {LIBRARY: library} if library else {}
        request = replace(request, forward=(*request.forward, LIBRARY))
        env = {**env, **added}
        plan = mpi_plan(
            request,
            machine,
            found,
            env,
            is_root=hasattr(os, "geteuid") and os.geteuid() == 0,
            allocator=find_allocator(request.allocator),
            numactl=shutil.which("numactl", path=env.get("PATH")) is not None,
        )
        return replace(
            plan,
            env={**plan.env, **added},
            notes=(f"{found.words}, {found.path}", *plan.notes),
            warnings=(*plan.warnings, *([warning] if warning else [])),
        )
