"""Two "boxes" on one machine: network namespaces joined by one cable, each with an ssh server of its own.

What runs in a box reaches the other only through the cable, which can be cut and mended. Each has a host name of its
own (box-a, box-b), which both can resolve: Open MPI 5.0.11 hangs in its first message between hosts of the same name.
They share the file system, the process table and the clock. The fixture `boxes` needs root; `missing` says what else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from namespaces import PREFIX, ip, missing, need, numbers, processes_in, remove, sweep

PORT = 3022  # of both ssh servers
INTERFACE = "eth0"  # each box's end of the cable
NOBODY = "02:00:00:00:00:01"  # a hardware address that neither end has


class Boxes:
    """Two running boxes, "a" and "b". Use as a context, which leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # keys, server logs and the ssh client's file lie here
        number = next(numbers)
        # Namespaces share no addresses, so two pairs with the same third number do not meet either.
        third = 1 + (os.getpid() * 7 + number) % 250
        self.subnet = f"10.77.{third}.0/24"
        self.interface = INTERFACE
        self.port = PORT
        self.hosts = {"a": f"10.77.{third}.1", "b": f"10.77.{third}.2"}
        self.names = {box: f"{PREFIX}-{os.getpid()}-{number}-{box}" for box in self.hosts}
        self.ssh_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Boxes:
        try:
            sweep()
            self._lay_cable()
            self._make_keys()
            for box in self.hosts:
                self._start_server(box)
            for box in self.hosts:
                self._wait_for_login(box)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, box: str, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start `argv` in a box; `options` are Popen's. The returned process is `argv` itself, no wrapper's."""
        return subprocess.Popen(self.inside(box, argv), **options)

    def inside(self, box: str, argv: Sequence[str | Path]) -> list[str]:
        """The words that start `argv` in a box."""
        rename = 'hostname "$0" && exec "$@"'
        words = [need("unshare"), "--uts", "sh", "-c", rename, f"box-{box}", *map(str, argv)]
        return [need("ip"), "netns", "exec", self.names[box], *words]

    def ssh(self, source: str, target: str, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Log in from one box to another and run a shell line there."""
        argv = [need("ssh"), "-F", str(self.ssh_config), self.hosts[target], *words]
        return subprocess.run(
            self.inside(source, argv),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def cut(self, silent: bool = False) -> None:
        """Nothing arrives any more, and open connections are not told.

        Both ends of the cable go down, so that a new connection fails at once ("Network is unreachable"); with `silent`
        they stay up but know a wrong hardware address of each other, as if the other box had lost its power.
        """
        for box, name in self.names.items():
            other = self.hosts["b" if box == "a" else "a"]
            if silent:
                ip("-n", name, "neigh", "replace", other, "lladdr", NOBODY, "dev", INTERFACE, "nud", "permanent")
            else:
                ip("-n", name, "link", "set", INTERFACE, "down")

    def mend(self) -> None:
        """Undo either cut. Returns when the cable carries again."""
        for name in self.names.values():
            ip("-n", name, "link", "set", INTERFACE, "up")
            ip("-n", name, "neigh", "flush", "dev", INTERFACE, "nud", "permanent")
        _wait_until(lambda: all(self._carrier(box) for box in self.hosts), 5, "the cable does not come up")

    def limit(self, mbit: float) -> bool:
        """Let at most `mbit` million bits a second through, each way. False where the kernel has no tbf."""
        for name in self.names.values():
            words = ["-n", name, "qdisc", "replace", "dev", INTERFACE, "root"]
            shape = ["tbf", "rate", f"{round(mbit * 1000)}kbit", "burst", "256kb", "latency", "50ms"]
            tc = shutil.which("tc")
            if tc is None or subprocess.run([tc, *words, *shape], capture_output=True, check=False).returncode:
                return False
        return True

    def unlimit(self) -> None:
        for name in self.names.values():
            subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", INTERFACE, "root"], check=True)

    def namespace(self, box: str) -> int:
        """The number by which the kernel knows the box's network."""
        return os.stat(f"/run/netns/{self.names[box]}").st_ino

    def processes(self, box: str) -> dict[int, str]:
        """Who runs in a box, zombies left out: process number -> its command line. Its ssh server is not counted."""
        servers = {server.pid for server in self.servers}
        return {pid: line for pid, line in processes_in(self.namespace(box)).items() if pid not in servers}

    def close(self) -> None:
        """End what runs in the boxes, and take them away. May be called twice and on half-made boxes."""
        for name in self.names.values():
            remove(name)
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()

    def _lay_cable(self) -> None:
        for name in self.names.values():
            etc = Path("/etc/netns", name)  # `ip netns exec` lays what is in it over /etc
            etc.mkdir(parents=True)
            known = "".join(f"{address} box-{box}\n" for box, address in self.hosts.items())
            (etc / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
            ip("netns", "add", name)
        ends = list(self.names.values())
        ip("link", "add", INTERFACE, "netns", ends[0], "type", "veth", "peer", "name", INTERFACE, "netns", ends[1])
        for box, name in self.names.items():
            ip("-n", name, "address", "add", f"{self.hosts[box]}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", INTERFACE, "up")

    def _make_keys(self) -> None:
        for name in ("host_key", "user_key"):
            subprocess.run(
                [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)],
                check=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        public = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text("".join(f"[{host}]:{PORT} {public}" for host in self.hosts.values()))
        self.ssh_config.write_text(
            f"Host *\n  Port {PORT}\n  User root\n  IdentityFile {self.folder / 'user_key'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 5\n  LogLevel ERROR\n"
        )

    def _start_server(self, box: str) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it; what starts it at boot makes it
        options = {
            "ListenAddress": self.hosts[box], "AuthorizedKeysFile": self.folder / "authorized_keys",
            "StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password", "MaxStartups": "100",
        }  # fmt: skip
        argv = [need("sshd"), "-D", "-e", "-f", "/dev/null", "-p", str(PORT), "-h", str(self.folder / "host_key")]
        argv += [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        with (self.folder / f"sshd-{box}.log").open("wb") as log:
            self.servers.append(self.run(box, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _wait_for_login(self, box: str) -> None:
        end = time.monotonic() + 20
        while (tried := self.ssh(box, box, "true")).returncode:
            if time.monotonic() > end:
                log = (self.folder / f"sshd-{box}.log").read_text()
                raise RuntimeError(f"no login to box {box}: {tried.stderr}{log}")
            time.sleep(0.05)

    def _carrier(self, box: str) -> bool:
        shown = subprocess.run(
            [need("ip"), "-n", self.names[box], "-json", "link", "show", INTERFACE],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(shown.stdout)[0]["operstate"] == "UP"


@pytest.fixture(scope="module", name="boxes")
def two_boxes() -> Iterator[Boxes]:
    """Two boxes for the tests of one file; skipped with the reason where there can be none."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    # not under pytest's own folders, which outlive the tests: there is a private key in it
    with tempfile.TemporaryDirectory(prefix="bertkit-boxes-") as folder, Boxes(Path(folder)) as boxes:
        yield boxes


def _wait_until(condition: Any, seconds: float, complaint: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(complaint)
        time.sleep(0.01)
