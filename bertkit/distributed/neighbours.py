"""Which ranks share a host, asked where all ranks meet: for clusters that tell each process its rank and no more.

The first rank listens at the meeting place until all others have told where they run, answers each with the hosts of
all, and frees the port for what meets there next. One line of JSON each way.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from bertkit.errors import UserError
from bertkit.files.streams import tell

PATIENCE = 600.0  # seconds that ranks may start apart
SILENT = 2.0  # seconds until a rank says that it waits
PAUSE = 0.2  # seconds between attempts to reach the first rank
LONGEST = 1 << 24  # bytes of a line


@functools.cache
def local_numbers(rank: int, size: int, address: str, patience: float = PATIENCE) -> tuple[int, int]:
    """(local rank, local size) of rank `rank` of `size`. A collective, the first time it is asked in a process.

    Raises UserError where the ranks do not meet at `address`, "host:port", or contradict one another.
    """
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise UserError(f"MASTER_PORT = {port!r} is no port", "give a number from 1024 to 65535")
    until = time.monotonic() + patience
    what = f"rank {rank} of {size} waits at {address} for the others, for at most {patience:g} s"
    notice = threading.Timer(SILENT, tell, (f"{what}: RANK and WORLD_SIZE say no more of where they run",))
    notice.daemon = True
    notice.start()
    mine = {"rank": rank, "size": size, "host": this_host()}
    try:
        hosts = _collect(mine, host, int(port), until) if rank == 0 else _tell(mine, host, int(port), until)
    except OSError as error:
        raise UserError(
            f"rank {rank} of {size} did not meet the others at {address} within {patience:g} s: {error}",
            "check that all were started, and that MASTER_ADDR and MASTER_PORT are right and reachable",
        ) from None
    finally:
        notice.cancel()
    same = [other for other, where in enumerate(hosts) if where == mine["host"]]
    return same.index(rank), len(same)


def this_host() -> str:
    """The host's name, and which container on it: those of one machine share neither CPUs nor devices."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node()


def _collect(mine: dict[str, Any], host: str, port: int, until: float) -> list[str]:
    """The hosts of all ranks, which are told so too."""
    told, connections = {0: mine}, []
    with _listen(host, port, min(mine["size"], 4096)) as listener, ExitStack() as opened:
        try:
            while len(told) < mine["size"]:
                connection = opened.enter_context(_accept(listener, until, mine["size"] - len(told)))
                try:
                    other = _read(connection)
                except (OSError, ValueError):
                    continue  # a scanner of ports, say
                connections.append(connection)
                _check(mine, other, told)
                told[other["rank"]] = other
        except UserError as error:
            _answer(connections, {"error": error.cause, "cure": error.cure})
            raise
        hosts = [told[rank]["host"] for rank in range(mine["size"])]
        _answer(connections, {"hosts": hosts})
    return hosts


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """On loopback where the ranks meet there, else on all addresses, of both families where there are both."""
    if host in ("127.0.0.1", "localhost"):
        return socket.create_server((host, port), backlog=backlog)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
    except (OSError, ValueError):  # no IPv6 here; or a taken port, which the next says too
        return socket.create_server(("", port), backlog=backlog)


def _accept(listener: socket.socket, until: float, missing: int) -> socket.socket:
    listener.settimeout(max(0.01, until - time.monotonic()))
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        raise OSError(f"{missing} did not come") from None
    connection.settimeout(10)
    return connection


def _check(mine: dict[str, Any], other: dict[str, Any], told: dict[int, dict[str, Any]]) -> None:
    """Raises UserError where `other` is none of us."""
    cure = "give each process its own RANK, and all the number of processes as WORLD_SIZE"
    if other["size"] != mine["size"]:
        raise UserError(f"{other['host']} has WORLD_SIZE={other['size']}, the first process {mine['size']}", cure)
    if other["rank"] in told:
        raise UserError(
            f"two processes have RANK={other['rank']}, on {told[other['rank']]['host']} and {other['host']}", cure
        )


def _answer(connections: list[socket.socket], answer: dict[str, Any]) -> None:
    for connection in connections:
        with suppress(OSError):  # it has gone: whoever started it will say why
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _tell(mine: dict[str, Any], host: str, port: int, until: float) -> list[str]:
    """What the first rank answers. Until it listens, and where something else does, it is tried again."""
    while True:
        left = until - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(0.01, left)) as connection:
                connection.sendall(json.dumps(mine).encode() + b"\n")
                answer = _read(connection)
                break
        except (OSError, ValueError) as error:
            if time.monotonic() + PAUSE > until:
                raise OSError(str(error)) from None
            time.sleep(PAUSE)
    if "error" in answer:
        raise UserError(answer["error"], answer["cure"])
    return [str(one) for one in answer["hosts"]]


def _read(connection: socket.socket) -> dict[str, Any]:
    """One line of JSON. Raises ValueError for anything else."""
    with connection.makefile("rb") as file:
        line = file.readline(LONGEST)
    found = json.loads(line)
    if not isinstance(found, dict) or not (
        {"rank", "size", "host"} <= found.keys() or {"hosts", "error"} & found.keys()
    ):
        raise ValueError("of another program")
    return found
