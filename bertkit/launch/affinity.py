"""Which cores, threads and environment each process of a host gets. Nothing here starts or binds anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from bertkit.distributed.topology import Core, Machine, format_cpu_list, parse_cpu_list
from bertkit.errors import UserError
from bertkit.launch.interface import Allocator, Binding, Domain, Request

# Where Linux distributions and Homebrew keep shared libraries.
LIBRARY_FOLDERS = tuple(
    Path(name)
    for name in """/usr/local/lib /usr/local/lib64 /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64
    /usr/lib /lib64 /lib /opt/homebrew/lib""".split()
)
PLACES = "BERTKIT_PLACES"  # the variable that tells each process its place, as `format_places` writes them
_ALLOCATORS = {
    "tcmalloc": ("libtcmalloc.so*", "libtcmalloc_minimal.so*"),
    "jemalloc": ("libjemalloc.so*",),
}


def places(machine: Machine, request: Request) -> tuple[Binding, ...]:
    """The place of each local process of one host, by local rank; shares are disjoint and equally large.

    Raises UserError where the request does not fit the machine.
    """
    groups = domains(machine, request.domain)
    count = _processes(request, len(groups))
    if count > len(machine.cores):
        if request.oversubscribe:
            return (Binding(),) * count
        raise _too_many(f"{count} processes for {_cores(len(machine.cores))}")
    if request.domain != "machine":
        pools, share = groups, min(map(len, groups)) // request.per_domain
        if share == 0:
            if request.oversubscribe:
                return (Binding(),) * count
            smallest = _cores(min(map(len, groups)))
            raise _too_many(f"{request.per_domain} processes for each {request.domain}, one of which has {smallest}")
        picked = [cores[n * share : (n + 1) * share] for cores in pools for n in range(request.per_domain)]
    elif request.cards:
        picked = _beside_cards(machine, request.cards[:count])
    else:
        picked = _evenly(machine.cores, count)
    return tuple(_place(cores, machine.quota, count) for cores in picked)


def domains(machine: Machine, domain: Domain) -> list[tuple[Core, ...]]:
    """The machine's cores by socket or memory node, or all in one; only domains that have any."""
    if domain == "machine":
        return [machine.cores]
    # A number of a node is one node, whatever its sockets: the order of the cores does not part them here.
    ordered = sorted(machine.cores, key=lambda core: _domain_of(core, domain))
    return [tuple(group) for _, group in groupby(ordered, key=lambda core: _domain_of(core, domain))]


def _domain_of(core: Core, domain: Domain) -> int:
    return core.socket if domain == "socket" else core.node


def _processes(request: Request, domain_count: int) -> int:
    """How many processes of one host the request asks for. Raises UserError where it contradicts itself."""
    if (request.processes is not None and request.processes < 1) or request.per_domain < 1:
        raise UserError("fewer than one process is asked for", "ask for one at least")
    if request.domain == "machine":
        count = request.processes or max(1, len(request.cards))
    else:
        count = domain_count * request.per_domain
        if request.processes not in (None, count):
            raise UserError(
                f"{request.processes} processes are asked for, but {request.per_domain} for each of"
                f" {domain_count} {request.domain} domains make {count}",
                f"say --processes {count} or leave it out, or choose another number for each {request.domain}",
            )
    if 0 < len(request.cards) < count:
        raise UserError(
            f"{count} processes for {len(request.cards)} accelerators", "start one for each accelerator, or fewer"
        )
    return count


def _beside_cards(machine: Machine, nodes: Sequence[int]) -> list[tuple[Core, ...]]:
    """Cores of the memory node of each card; evenly and in order where a card's node or its cores are not known."""
    of_node = {node: [core for core in machine.cores if core.node == node] for node in nodes}
    share = min(len(cores) // nodes.count(node) for node, cores in of_node.items())
    if -1 in nodes or share == 0:
        return _evenly(machine.cores, len(nodes))
    picked = []
    for rank, node in enumerate(nodes):
        start = nodes[:rank].count(node) * share
        picked.append(tuple(of_node[node][start : start + share]))
    return picked


def _evenly(cores: Sequence[Core], count: int) -> list[tuple[Core, ...]]:
    share = len(cores) // count
    return [tuple(cores[n * share : (n + 1) * share]) for n in range(count)]


def _place(cores: Sequence[Core], quota: float | None, count: int) -> Binding:
    """A quota lowers the cores that a process may count on, not where it may run."""
    cpus = tuple(sorted(cpu for core in cores for cpu in core.cpus))
    nodes = tuple(sorted({core.node for core in cores} - {-1}))
    share = len(cores) if quota is None else min(len(cores), math.floor(quota / count))
    return Binding(cpus, nodes, max(1, share))


def _too_many(cause: str) -> UserError:
    return UserError(cause, "start fewer, or add --oversubscribe: they then share cores, unbound and slower")


def _cores(number: int) -> str:
    return f"{number} physical core{'' if number == 1 else 's'}"


def thread_count(machine: Machine, place: Binding, processes_per_host: int, request: Request) -> tuple[int, str]:
    """Compute threads of the process at `place`, at least 1, and the formula in words.

    The two `minus-2` rules are Intel's, which contradict each other: one counts the cores of a socket, the other
    its logical CPUs. They take no notice of how many processes share the socket.
    """
    if request.thread_rule == "share":
        count = max(1, place.cores - request.reserve_cores)
        reserved = f"; less {request.reserve_cores} kept for communication" if request.reserve_cores else ""
        return count, f"{place.cores} of {_cores(len(machine.cores))}, processes: {processes_per_host}{reserved}"
    home = next((core.socket for core in machine.cores if set(core.cpus) & set(place.cpus)), machine.cores[0].socket)
    socket = [core for core in machine.cores if core.socket == home]
    if request.thread_rule == "physical-minus-2":
        return max(1, len(socket) - 2), f"{_cores(len(socket))} of a socket - 2"
    logical = sum(len(core.cpus) for core in socket)
    return max(1, logical - 2), f"{logical} logical CPUs of a socket - 2"


def rank_env(threads: int, allocator_path: str = "", env: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every process needs in its environment for its threads and allocator; `env` is the one there is."""
    found = {
        "OMP_NUM_THREADS": str(threads),
        # Read by Intel's OpenMP only: neighbours on neighbouring cores, and no spinning for the default 200 ms.
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "KMP_BLOCKTIME": "1",
    }
    if allocator_path:
        loaded = (env or {}).get("LD_PRELOAD", "")
        names = loaded.replace(":", " ").split()  # the loader takes both
        found["LD_PRELOAD"] = loaded if allocator_path in names else ":".join([*names, allocator_path])
    return found


def find_allocator(choice: Allocator, roots: Iterable[Path] = LIBRARY_FOLDERS) -> str:
    """Path of the allocator's library in the first of the folders `roots` that has it; "" for the system's own.

    `auto` takes tcmalloc, else jemalloc, else none. Raises UserError where a named one is absent.
    """
    if choice == "system":
        return ""
    folders = tuple(roots)
    for name in _ALLOCATORS if choice == "auto" else (choice,):
        for pattern in _ALLOCATORS[name]:
            for folder in folders:
                if files := sorted(path for path in folder.glob(pattern) if path.is_file()):
                    return str(files[0])
    if choice == "auto":
        return ""
    raise UserError(
        f"the allocator {choice} is in none of {', '.join(map(str, folders)) or 'no folder'}",
        f"install lib{choice} with the system's package manager, or say --allocator system",
    )


def format_places(where: Iterable[Binding]) -> str:
    """``0-3@0;4-7@1``: CPUs @ memory nodes of each place, by local rank; an empty item is not bound."""
    items = ((format_cpu_list(place.cpus), format_cpu_list(place.nodes)) for place in where)
    return ";".join(f"{cpus}@{nodes}" if nodes else cpus for cpus, nodes in items)


def parse_places(text: str) -> tuple[Binding, ...]:
    """The inverse of `format_places`, without `cores`, which it does not hold; raises ValueError.

    Empty text is one place that is not bound.
    """
    found = []
    for item in text.split(";"):
        cpus, separator, nodes = item.partition("@")
        if separator and not nodes.strip():
            raise ValueError(f"{item!r} names no memory node after the @")
        found.append(Binding(parse_cpu_list(cpus), parse_cpu_list(nodes)))
    return tuple(found)
