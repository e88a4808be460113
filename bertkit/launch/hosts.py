"""The hosts of a job, as the command line, a file or the environment names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bertkit.distributed.clusters import PORT, Nodes, address_of, nodes_of
from bertkit.errors import UserError
from bertkit.files.inputs import read_text, whole_number

# What users of multi-host containers have in their environment: addresses, the containers' sshd, and the network.
HOSTS, SSH_PORT = "MULTI_HLS_IPS", "DOCKER_SSHD_PORT"
INTERFACES = ("MPI_TCP_INCLUDE", "MPI_TPC_INCLUDE")  # the second is how the documents misspell it
CONTAINER_SSH_PORT = "3022"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Network:
    """Where the processes are started, and how they are reached."""

    hosts: tuple[str, ...] = ()  # empty: here
    ssh_port: int = 0  # 0: ssh's own
    interface: str = ""
    slots: int = 0  # processes of each, as a file of hosts says; 0: not said


def network_of(
    hosts: str, ssh_port: int, interface: str, env: Mapping[str, str], hostfile: Path | None = None
) -> Network:
    """What the options say, else what the environment does. Raises UserError for names that are none."""
    if hostfile is not None:
        if hosts:
            raise UserError("hosts are named by --hosts and by --hostfile", "drop one of them")
        names, slots = read_hostfile(hostfile)
        return Network(names, ssh_port, interface, slots)
    source, text = ("--hosts", hosts) if hosts else (HOSTS, env.get(HOSTS, ""))
    if not hosts and not text.strip():
        return Network((), ssh_port, interface)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"{source}: {name!r} is no host", "write names or addresses with commas between")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{source}: {twice[0]} stands twice", "name each host once; -n sets the processes per host")
    if not hosts:
        ssh_port = ssh_port or _port(env.get(SSH_PORT, CONTAINER_SSH_PORT))
        interface = interface or next((env[name] for name in INTERFACES if env.get(name)), "")
    return Network(names, ssh_port, interface)


def _port(text: str) -> int:
    return whole_number(text, SSH_PORT, 1, 65535, "set it to the port of sshd on the hosts")


# ---- a file of hosts ----


def read_hostfile(path: Path) -> tuple[tuple[str, ...], int]:
    """(hosts, processes of each; 0: not said) of a file as Open MPI's `node1 slots=4` or MPICH's `node1:4`.

    A host on several lines has their slots in sum. Raises UserError, with the line, for what bertkit would not heed.
    """
    slots: dict[str, int] = {}
    for at, line in enumerate(read_text(path, "name a file of hosts").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, colon, number = words[0].partition(":")
        if not _NAME.fullmatch(name):
            raise UserError(f"{path}:{at}: {name!r} is no host", "write its name or address alone")
        count = whole_number(number, f"{path}:{at}: slots", 1, 1 << 20, "as node1:4") if colon else 0
        for word in words[1:]:
            key, _, value = word.partition("=")
            if key != "slots":
                raise UserError(f"{path}:{at}: {word!r} is not understood", "write node1 slots=4, or node1:4")
            count = whole_number(value, f"{path}:{at}: slots", 1, 1 << 20, "as slots=4")
        slots[name] = max(slots[name], 1) + max(count, 1) if name in slots else count
    if not slots:
        raise UserError(f"{path}: names no host", "write one on each line")
    if len(set(slots.values())) > 1:
        fewest, most = (pick(slots, key=lambda name: slots[name]) for pick in (min, max))
        raise UserError(
            f"{path}: {fewest} has {slots[fewest]} slots, {most} {slots[most]}",
            "give each host as many: every host gets the same number of processes",
        )
    return tuple(slots), next(iter(slots.values()))


# ---- hosts that start their own processes ----


def nodes_asked(count: int | None, rank: int | None, master: str, port: int, env: Mapping[str, str]) -> Nodes | None:
    """What --nnodes, --node-rank and --master say, and what they leave out as the cluster does; None: this host alone.

    `port`: for a master without one; 0: torchrun's. Raises UserError for half of it.
    """
    found = nodes_of(env)
    if count is None and rank is None and not master:
        return _met(found) if found is not None and found.count > 1 else None
    if count == 1 and not rank:
        return None
    count = found.count if count is None and found else count
    rank = found.rank if rank is None and found else rank
    address = master or (found.address if found else "") or address_of(env)
    asked = {"--nnodes": count, "--node-rank": rank, "--master": address or None}
    missing = [name for name, value in asked.items() if value is None]
    if count is None or rank is None or missing:
        raise UserError(f"{' and '.join(missing)} is not given", "as --nnodes 2 --node-rank 0 --master HOST:29500")
    if not 0 <= rank < count:
        raise UserError(f"--node-rank {rank} of --nnodes {count}", f"number the hosts from 0 to {count - 1}")
    if ":" not in address:
        address = f"{address}:{port or PORT}"
    return _met(Nodes("the command line", "--nnodes, --node-rank, --master", count, rank, 0, address))


def _met(nodes: Nodes) -> Nodes:
    """`nodes` with an address that can be met at. Raises UserError where it has none."""
    host, _, port = nodes.address.rpartition(":")
    if not _NAME.fullmatch(host):
        raise UserError(
            f"{nodes.source} does not say where {nodes.count} hosts meet ({nodes.address!r} is no HOST:PORT)",
            "give --master HOST:PORT: the first host's name or address, and a free port there",
        )
    return replace(nodes, address=f"{host}:{whole_number(port, 'the port of --master', 1, 65535, 'as HOST:29500')}")
