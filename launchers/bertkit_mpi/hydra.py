"""Options of the two Hydra launchers, Intel MPI's and MPICH's: both take the CPUs of each local rank by number."""

from __future__ import annotations

import sys

from bertkit.plugin import UserError
from bertkit_mpi.job import Job, Line, ssh_words

# For a job of one host: where UCX and libfabric listen, which MPICH builds on. Intel MPI's ranks listen nowhere.
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
ALONE = {"UCX_NET_DEVICES": LOOPBACK, "FI_TCP_IFACE": LOOPBACK}


def intel(job: Job) -> Line:
    """Intel MPI pins by a mask for each local rank, which must begin with 0x."""
    masks = ",".join(f"{sum(1 << cpu for cpu in place.cpus):#x}" for place in job.where)
    env = {"I_MPI_PIN_DOMAIN": f"[{masks}]"} if job.bound else {"I_MPI_PIN": "0"}
    options = _common(job, tuple(env))
    if job.request.hosts:
        options += ["-bootstrap", "ssh", "-bootstrap-exec-args", ssh_words(job.request)]
    return Line(tuple(options), _words(job, "I_MPI_PIN_DOMAIN"), job.bound, env)


def mpich(job: Job) -> Line:
    """MPICH's Hydra takes ``user:0+1,2+3``, and ssh's options by its environment."""
    usual = {} if job.request.hosts else ALONE
    options, env = _common(job, tuple(usual)), {}
    if job.bound:
        cpus = ",".join("+".join(map(str, place.cpus)) for place in job.where)
        options += ["-bind-to", f"user:{cpus}"]
    if job.request.hosts:
        options += ["-launcher", "ssh"]
        env["HYDRA_LAUNCHER_EXTRA_ARGS"] = ssh_words(job.request)
    return Line(tuple(options), _words(job, "-bind-to user"), job.bound, env, usual)


def _common(job: Job, own_names: tuple[str, ...]) -> list[str]:
    """Hydra's own words, which both take."""
    options = ["-n", str(job.processes), "-ppn", str(len(job.where))]
    if job.request.hosts:
        options += ["-hosts", ",".join(job.request.hosts)]
    if job.request.interface:
        if "/" in job.request.interface or "," in job.request.interface:
            raise UserError(
                f"{job.mpirun.words} takes one interface, not {job.request.interface}", "name it as in `ip link`: eth0"
            )
        options += ["-iface", job.request.interface]
    return [*options, "-genvlist", ",".join(sorted({*job.names, *own_names}))]


def _words(job: Job, how: str) -> str:
    bound = f"each bound to its own cores by {how}" if job.bound else "not bound"
    return f"processes on each host: {len(job.where)}, {bound}"
