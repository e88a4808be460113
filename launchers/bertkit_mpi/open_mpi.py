"""Open MPI's options: version 4 (ORTE) and version 5 (PRRTE) call the same things by different names."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence

from bertkit.plugin import Binding, Core, Domain, Machine
from bertkit.plugin import placing_domains as domains
from bertkit_mpi.job import Job, Line, ssh_words

# 4.1 rejects "package"; 5 still takes "socket" for it.
LEVELS: dict[Domain, str] = {"socket": "socket", "numa": "numa", "machine": "node"}
# A peer that is silent for 5 s is asked every 2 s and given up after 3 questions; Open MPI's own is 8 minutes.
KEEPALIVE = (("time", 5), ("intvl", 2), ("probes", 3))
# With what version 5's runtime aborts a rank that has lost another: MPI_ERR_UNKNOWN of its mpi.h.
UNKNOWN_ERROR = 14
# Ranks of one host meet in its memory: without these none of them listens on the network. mpirun itself does, on all
# addresses: neither version can bind that port.
ALONE = {"OMPI_MCA_btl": "^tcp,ofi", "OMPI_MCA_mtl": "^ofi"}


def open_mpi_4(job: Job) -> Line:
    """`odls_base_sigkill_timeout` is left alone: version 4 waits that long before SIGTERM too, after any failure."""
    mapping, words, notes = _mapping(job)
    options: list[str] = []
    if not job.bound:
        options.append("--oversubscribe")
    if job.request.hosts:
        options += ["--mca", "plm_rsh_args", ssh_words(job.request)]
        for name, value in KEEPALIVE:
            options += ["--mca", f"oob_tcp_keepalive_{name}", str(value)]
        if job.request.interface:
            options += ["--mca", "oob_tcp_if_include", job.request.interface]
    return _line(job, mapping, options, words, notes)


def open_mpi_5(job: Job) -> Line:
    """Version 5 takes what concerns its daemons by --prtemca, and sends SIGKILL at once after SIGTERM."""
    mapping, words, notes = _mapping(job)
    options = []
    if not job.bound:
        mapping = (mapping[0], f"{mapping[1]}:OVERSUBSCRIBE", *mapping[2:])
    if job.request.hosts:
        options += ["--prtemca", "plm_ssh_args", ssh_words(job.request)]
        for name, value in KEEPALIVE:
            options += ["--prtemca", f"oob_tcp_keepalive_{name}", str(value)]
        if job.request.interface:
            options += ["--prtemca", "prte_if_include", job.request.interface]
    return dataclasses.replace(_line(job, mapping, options, words, notes), lost_peer_codes=(UNKNOWN_ERROR,))


def _line(job: Job, mapping: Sequence[str], options: Sequence[str], words: str, notes: Sequence[str]) -> Line:
    """What both versions are told in the same words, and the parts that differ."""
    head = ["--allow-run-as-root"] if job.is_root else []
    if job.request.hosts:
        # One slot for each process: with ppr both versions count processes, not their cores.
        head += ["-H", ",".join(f"{host}:{len(job.where)}" for host in job.request.hosts)]
    if job.request.interface:
        head += ["--mca", "btl_tcp_if_include", job.request.interface]
    names = [word for name in job.names for word in ("-x", name)]
    root = ("started as root: Open MPI is told that this is meant",) if job.is_root else ()
    return Line(
        ("-n", str(job.processes), *mapping, *head, *options, *names),
        words,
        binds="core" in mapping,
        usual={} if job.request.hosts else ALONE,
        notes=(*notes, *root),
        # mpirun hands SIGUSR1 on and waits. After a SIGTERM version 5 kills within half a second, before any save.
        stop_signal=signal.SIGUSR1,
    )


def _mapping(job: Job) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The options that place ranks, the same in words, and notes."""
    count = len(job.where)
    if not job.bound:
        return _unbound(count), f"processes on each host: {count}, not bound", ()
    if native := native_mapping(job.machine, job.where, job.request.domain):
        per_domain, domain, cores = native
        level = LEVELS[domain]
        options = ("--map-by", f"ppr:{per_domain}:{level}:PE={cores}", "--bind-to", "core")
        return options, f"processes for each {domain}: {per_domain}, cores for each: {cores}, bound by mpirun", ()
    why = "these cores cannot be said in Open MPI's words: each rank binds itself (BERTKIT_PLACES)"
    return _unbound(count), f"processes on each host: {count}, each bound to its own cores", (why,)


def _unbound(count: int) -> tuple[str, ...]:
    return ("--map-by", f"ppr:{count}:node", "--bind-to", "none")


def native_mapping(machine: Machine, where: Sequence[Binding], first: Domain) -> tuple[int, Domain, int] | None:
    """(n, domain, k) so that ``ppr:n:domain:PE=k`` gives exactly these places, or None where nothing does.

    Open MPI fills each domain from its first core, k cores a rank, domains in hwloc's order. Version 5 refuses a rank
    on two sockets. On a part of a machine the two versions count cores differently, so nothing is said there.
    """
    if not machine.whole or not _in_hwlocs_order(machine):
        return None
    wanted = [set(place.cpus) for place in where]
    cores = sum(set(core.cpus) <= wanted[0] for core in machine.cores)
    if any(len({core.socket for core in machine.cores if set(core.cpus) & cpus}) > 1 for cpus in wanted):
        return None
    levels: tuple[Domain, ...] = ("socket", "numa", "machine")
    for domain in (first, *(level for level in levels if level != first)):
        groups = domains(machine, domain)
        count, rest = divmod(len(where), len(groups))
        unknown = domain != "machine" and any((c.socket if domain == "socket" else c.node) < 0 for c in machine.cores)
        if rest or unknown:
            continue
        given = [
            {cpu for core in group[n * cores : (n + 1) * cores] for cpu in core.cpus}
            for group in groups
            for n in range(count)
        ]
        if given == wanted:
            return count, domain, cores
    return None


def _in_hwlocs_order(machine: Machine) -> bool:
    """hwloc numbers sockets, nodes and cores by the first CPU in each; `Machine` by their own numbers."""
    first: dict[tuple[str, int], int] = {}
    for core in machine.cores:
        for key in (("socket", core.socket), ("node", core.node)):
            first[key] = min(first.get(key, core.cpus[0]), core.cpus[0])

    def order(core: Core) -> tuple[int, int, int]:
        return first["socket", core.socket], first["node", core.node], core.cpus[0]

    return [*machine.cores] == sorted(machine.cores, key=order)
