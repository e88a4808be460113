"""Machines that are not here, and what is asked of them: shared by the golden tests and the real mpiruns."""

from __future__ import annotations

from pathlib import Path

from bertkit.distributed.hwloc import from_hwloc
from bertkit.distributed.topology import Machine
from bertkit.launch.interface import Request

GOLDEN = Path(__file__).resolve().parent / "golden"
COMMAND = ("train", "-t", "mrpc")
# name: (file in golden/topologies, request). All are possible.
CASES: dict[str, tuple[str, Request]] = {
    "1socket": ("1socket", Request(COMMAND, processes=2, reserve_cores=1)),
    "1socket_alone": ("1socket", Request(COMMAND)),
    "2sockets": ("2sockets", Request(COMMAND, domain="socket")),
    "2sockets_two_each": ("2sockets", Request(COMMAND, domain="socket", per_domain=2)),
    "2sockets_idle_core": ("2sockets", Request(COMMAND, domain="socket", per_domain=3)),
    "2sockets_evenly": ("2sockets", Request(COMMAND, processes=4)),
    "2sockets_across": ("2sockets", Request(COMMAND, processes=3)),
    "2sockets_astride": ("2sockets", Request(COMMAND)),
    "2sockets_smt": (
        "2sockets_smt",
        Request(COMMAND, domain="socket", per_domain=2, thread_rule="logical-minus-2"),
    ),
    "2sockets_interleaved": ("2sockets_interleaved", Request(COMMAND, domain="socket", per_domain=2)),
    "4sockets": ("4sockets", Request(COMMAND, domain="socket", thread_rule="physical-minus-2")),
    "8sockets": ("8sockets", Request(COMMAND, domain="socket", per_domain=2)),
    "2sockets_4nodes": ("2sockets_4nodes", Request(COMMAND, domain="numa")),
    "2sockets_4nodes_socket": ("2sockets_4nodes", Request(COMMAND, domain="socket")),
    "2sockets_cpuset": ("2sockets_cpuset", Request(COMMAND, domain="socket")),
    "cards_even": ("2sockets_smt", Request(COMMAND, cards=(0, 0, 1, 1))),
    "cards_uneven": ("2sockets", Request(COMMAND, cards=(0, 0, 0, 1))),
    "cards_unknown": ("2sockets", Request(COMMAND, cards=(-1, -1))),
    "oversubscribed": ("1socket", Request(COMMAND, processes=6, oversubscribe=True)),
    "two_hosts": (
        "2sockets_smt",
        Request(
            COMMAND,
            domain="socket",
            hosts=("alpha", "10.0.0.2"),
            interface="eth0",
            ssh_port=3022,
            ssh_config="/etc/bertkit/ssh",
            forward=("TOKEN", "ABSENT"),
            port=12345,
            python="/opt/bertkit/bin/python",
        ),
    ),
}


def machine_of(topology: str) -> Machine:
    return from_hwloc(GOLDEN / "topologies" / f"{topology}.xml")
