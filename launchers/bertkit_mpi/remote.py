"""The other hosts of a job: which they are, and whether each can take part, asked before anything is started there."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bertkit.plugin import UserError, parse_json

COMPARED = ("bertkit", "torch", "mpi4py", "python")
CURE = "look what its login prints, and whether bertkit starts there"
MARK = "bertkit-versions "  # login shells may print lines of their own
# One line, without ' and !, which some login shells cannot quote. bertkit's version is that of what would run; torch is
# not imported, which takes seconds.
PROBE = (
    "import json,sys;from importlib.metadata import distributions as d;from importlib.util import find_spec as s;"
    'v={n:next((x.version for x in d(name=n)),"") for n in ("torch","mpi4py")};'
    'v["bertkit"]=getattr(__import__("bertkit"),"__version__","") if s("bertkit") else "";'
    f'v["python"]="%d.%d"%sys.version_info[:2];print("{MARK}"+json.dumps(v))'
)


@dataclass(frozen=True)
class Ssh:
    """How hosts are logged in to."""

    port: int = 0  # 0: ssh's own
    config: str = ""  # a file for `ssh -F`; empty: the user's

    def options(self) -> list[str]:
        port = ["-p", str(self.port)] if self.port else []
        return (["-F", self.config] if self.config else []) + port


def is_here(host: str) -> bool:
    """Whether `host` is this machine: one of its addresses can be listened on. False where the name has no address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, address) for family, _, _, _, address in found)


def _is_own(family: int, address: tuple[str | int | bytes, ...]) -> bool:
    if ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback:
        return True
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True


def check_hosts(
    hosts: Sequence[str], ssh: Ssh, python: str, seconds: float = 10, forwarded: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Versions by host, of bertkit, torch, mpi4py and python (as "3.12"); all hosts are asked at the same time.

    This machine is asked without ssh. `forwarded`: variables that the job's processes will get, as PYTHONPATH.
    `seconds` is for connecting; a Python that then takes over three times as long counts as stuck. Raises UserError for
    the first host, as given, that cannot be reached or differs from this process; it names the others that failed too.
    """

    def ask(host: str) -> dict[str, str] | UserError:
        try:
            versions = _ask(host, ssh, python, seconds, dict(forwarded or {}))
            _compare(host, python, versions, here)
        except UserError as error:
            return error
        return versions

    here = _versions_here()
    with ThreadPoolExecutor(max_workers=min(32, len(hosts) or 1)) as pool:
        answers = dict(zip(hosts, pool.map(ask, hosts), strict=True))
    failed = {host: answer for host, answer in answers.items() if isinstance(answer, UserError)}
    if failed:
        first, *others = failed
        more = f" (not ready either: {', '.join(others)})" if others else ""
        raise UserError(failed[first].cause + more, failed[first].cure) from failed[first]
    return {host: answer for host, answer in answers.items() if not isinstance(answer, UserError)}


def _versions_here() -> dict[str, str]:
    """What this process runs, by the same words as elsewhere."""
    path = os.pathsep.join(entry for entry in sys.path if entry)  # bertkit may be known to this process only
    return _ask_here(sys.executable, {"PYTHONPATH": path}, 60, "this machine")


def _ask(host: str, ssh: Ssh, python: str, seconds: float, env: Mapping[str, str]) -> dict[str, str]:
    if is_here(host):
        return _ask_here(python, env, 3 * seconds, host)
    words = ["env", *(f"{name}={value}" for name, value in env.items()), python, "-P", "-c", PROBE]
    # ControlMaster: a master that stayed behind would hold our end of the pipe open
    options = ["BatchMode=yes", f"ConnectTimeout={max(1, round(seconds))}", "ControlMaster=no", "LogLevel=ERROR"]
    argv = ["ssh", *ssh.options(), *(word for option in options for word in ("-o", option)), "--", host]
    try:
        done = _run([*argv, shlex.join(words)], {"LC_ALL": "C"}, 4 * seconds)
    except FileNotFoundError:
        raise UserError(f"ssh is not installed here, so {host} cannot be reached", "install an ssh client") from None
    except subprocess.TimeoutExpired:
        raise _silent(host, 4 * seconds) from None
    if done.returncode == 255:
        raise _connection_error(host, ssh, seconds, done.stderr)
    return _parse(host, python, done)


def _ask_here(python: str, env: Mapping[str, str], seconds: float, host: str) -> dict[str, str]:
    try:
        return _parse(host, python, _run([python, "-P", "-c", PROBE], env, seconds))
    except OSError as error:
        raise _no_python(host, python, error.strerror or str(error)) from None
    except subprocess.TimeoutExpired:
        raise _silent(host, seconds) from None


def _run(argv: list[str], env: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        env={**os.environ, **env},
    )  # fmt: skip


def _parse(host: str, python: str, done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode == 0 and lines:
        said = parse_json(lines[-1].removeprefix(MARK), f"{host}: what {python} says of its versions", CURE)
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise UserError(f"{host}: {python} does not report its versions", CURE)
        return said
    words = _last_line(done.stderr) if done.stderr.strip() else f"exit code {done.returncode}"
    if done.returncode in (126, 127) or "command not found" in done.stderr.lower():
        raise _no_python(host, python, words)
    raise UserError(
        f"{host}: {python} cannot report its versions: {words}", f"try it there: {python} -m bertkit --version"
    )


def _no_python(host: str, python: str, said: str) -> UserError:
    return UserError(
        f"{host}: {python} cannot be started there: {said}",
        "install bertkit at the same path on every host, or name the Python of all with --python",
    )


def _silent(host: str, seconds: float) -> UserError:
    return UserError(f"{host}: no answer within {seconds:g} s", "look whether logging in and Python start there")


def _compare(host: str, python: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    for name in ("bertkit", "torch", "mpi4py"):
        if here[name] and not there.get(name):
            raise UserError(f"{host}: {name} is not installed for {python} there", f"install {name} {here[name]} there")
    differing = [f"{name} {there.get(name)} (here {here[name]})" for name in COMPARED if there.get(name) != here[name]]
    if differing:
        raise UserError(f"{host} has {', '.join(differing)}", "install the same versions on every host")


def _connection_error(host: str, ssh: Ssh, seconds: float, said: str) -> UserError:
    """What ssh's words mean. `said` is ssh's stderr in English (LC_ALL=C)."""
    where = _effective(host, ssh)
    port = where.get("port", "22")
    known = where.get("userknownhostsfile", "~/.ssh/known_hosts").split()[0]
    entry = host if port == "22" else f"[{host}]:{port}"
    cases = {
        r"Could not resolve hostname": ("its name is not known here", "correct it, or add it to /etc/hosts"),
        r"IDENTIFICATION HAS CHANGED|REVOKED HOST KEY": (
            f"its host key is not the one in {known}: another machine may answer in its place",
            f"if its key was renewed: ssh-keygen -f {known} -R '{entry}', then accept the new one",
        ),
        r"Host key verification failed|No \S+ host key is known": (
            "its host key is not known here",
            f"ssh-keyscan -p {port} {host} >> {known} after checking the fingerprint",
        ),
        r"Permission denied|Too many authentication failures": (
            "it does not accept your ssh key",
            f"ssh-copy-id -p {port} {host}; a key with a passphrase needs ssh-agent",
        ),
        r"Connection refused": (f"nothing listens on its port {port}", "start its ssh server, or set --ssh-port"),
        r"timed out|No route to host|Network is unreachable|Host is down|Connection (closed|reset)": (
            f"not reachable on port {port} within {seconds:g} s",
            "check that it runs, and the network and firewall between",
        ),
    }
    for pattern, (cause, cure) in cases.items():
        if re.search(pattern, said):
            return UserError(f"{host}: {cause} (ssh: {_last_line(said)})", cure)
    return UserError(f"{host}: ssh failed: {_last_line(said)}", f"try it: ssh {shlex.join(ssh.options())} {host} true")


def _effective(host: str, ssh: Ssh) -> dict[str, str]:
    """ssh's settings for a host, its configuration files read; at least its port, if given."""
    settings = {"port": str(ssh.port)} if ssh.port else {}
    try:
        shown = _run(["ssh", *ssh.options(), "-G", "--", host], {"LC_ALL": "C"}, 10)
    except (OSError, subprocess.TimeoutExpired):
        return settings
    return settings | {key: value for key, _, value in (line.partition(" ") for line in shown.stdout.splitlines())}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
