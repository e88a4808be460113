"""The hosts of a job, as the command line or the environment names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bertkit.errors import UserError
from bertkit.files.inputs import whole_number

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


def network_of(hosts: str, ssh_port: int, interface: str, env: Mapping[str, str]) -> Network:
    """What the options say, else what the environment does. Raises UserError for names that are none."""
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
