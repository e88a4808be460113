"""Network namespaces for tests: whether there can be any, who runs in one, and how one is taken away with all in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

PREFIX = "bertkit"  # of the namespaces' names: PREFIX-PID-NUMBER-BOX
numbers = itertools.count(1)


def missing() -> str:
    """Why there can be no boxes here; empty: there can."""
    if os.geteuid() != 0:
        return "two boxes need root"
    absent = [name for name in ("ip", "unshare", "sshd", "ssh", "ssh-keygen") if program(name) is None]
    if absent:
        return f"two boxes need {', '.join(absent)} (Debian: apt-get install openssh-server iproute2)"
    name = f"{PREFIX}-{os.getpid()}-{next(numbers)}-try"
    program_ip = need("ip")
    try:
        for words in (
            ["netns", "add", name],
            ["-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"],
            ["netns", "exec", name, need("unshare"), "--uts", "hostname", name],
        ):
            tried = subprocess.run([program_ip, *words], capture_output=True, text=True, check=False)
            if tried.returncode:
                return f"no network namespaces here: ip {' '.join(words)}: {tried.stderr.strip()}"
    finally:
        remove(name)
    return ""


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def need(name: str) -> str:
    found = program(name)  # sshd must be started by its absolute path
    assert found, f"{name} is missing"
    return found


def ip(*words: str) -> None:
    done = subprocess.run([need("ip"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def processes_in(namespace: int) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.readlink(entry / "ns" / "net") == f"net:[{namespace}]":
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line:  # a zombie has none
                    found[int(entry.name)] = line
    return found


def remove(name: str) -> None:
    shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)
    path = Path("/run/netns") / name
    if not path.exists():
        return
    with contextlib.suppress(OSError):
        namespace = path.stat().st_ino
        end = time.monotonic() + 10
        while (left := processes_in(namespace)) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    with contextlib.suppress(RuntimeError):
        ip("netns", "del", name)


def sweep() -> None:
    """Remove boxes whose tests were killed: the process that their name holds is gone."""
    for path in Path("/run/netns").glob(f"{PREFIX}-*"):
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-\d+-\w+", path.name)
        if owner and not Path("/proc", owner[1]).exists():
            remove(path.name)
