"""What is said of each way in which one cannot take part (ssh is a stub)."""

from __future__ import annotations

import json
import shlex
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit_mpi import remote
from bertkit_mpi.remote import Ssh, check_hosts, is_here

HERE = {"bertkit": "0.1.0", "torch": "2.13.0", "mpi4py": "4.1.2", "python": "3.11"}
STUB = """#!{python}
import json, os, pathlib, subprocess, sys, time
folder = pathlib.Path({folder!r})
if "-G" in sys.argv:
    print("port 3022\\nuserknownhostsfile /keys/known /keys/known2")
    sys.exit()
host, command = sys.argv[-2:]
(folder / (host + ".json")).write_text(json.dumps(sys.argv[1:]))
answer = json.loads((folder / "answers").read_text())[host]
time.sleep(answer.get("sleep", 0))
if answer.get("shell"):
    sys.exit(subprocess.run(["sh", "-c", command]).returncode)
print(answer.get("out", ""))
print(answer.get("err", ""), file=sys.stderr)
sys.exit(answer.get("rc", 0))
"""


class Stub:
    """A program `ssh` on PATH: `answers` say what each host does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "ssh"
        program.write_text(STUB.format(python=sys.executable, folder=str(folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def answer(self, **answers: dict[str, object]) -> None:
        (self.folder / "answers").write_text(json.dumps(answers))

    def argv(self, host: str) -> list[str]:
        words: list[str] = json.loads((self.folder / f"{host}.json").read_text())
        return words


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(remote, "_versions_here", lambda: dict(HERE))
    return Stub(tmp_path)


def versions(**changed: str) -> dict[str, object]:
    """What a host prints, after a greeting of its login shell."""
    return {"out": "Welcome!\n" + remote.MARK + json.dumps(HERE | changed)}


def refusal(host: str = "far") -> str:
    with pytest.raises(UserError) as caught:
        check_hosts([host], Ssh(), "python3", seconds=1)
    assert "\n" not in str(caught.value)
    assert host in caught.value.cause
    assert caught.value.cure
    return str(caught.value)


def test_equal_versions_pass_and_options_reach_ssh(stub: Stub) -> None:
    stub.answer(far=versions(), near=versions())
    found = check_hosts(["far", "near"], Ssh(3022, "/x/my config"), "/opt/a b/python", 7, {"PYTHONPATH": "/q w:/r"})
    assert found == {"far": HERE, "near": HERE}
    words = stub.argv("far")
    assert words[:4] == ["-F", "/x/my config", "-p", "3022"]
    assert {"BatchMode=yes", "ConnectTimeout=7", "ControlMaster=no"} <= set(words)
    assert words[-3:-1] == ["--", "far"]
    assert shlex.split(words[-1])[:5] == ["env", "PYTHONPATH=/q w:/r", "/opt/a b/python", "-P", "-c"]


def test_the_question_runs_in_a_shell(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(stub.folder), prepend=":")
    stub.answer(far={"shell": True})
    path = ":".join(entry for entry in sys.path if entry)
    found = check_hosts(["far"], Ssh(), sys.executable, 20, {"PYTHONPATH": path})["far"]
    assert found["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found["bertkit"] == __import__("bertkit").__version__


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ssh: Could not resolve hostname far: Name or service not known", "name is not known"),
        ("ssh: connect to host far port 3022: Connection refused", "nothing listens on its port 3022"),
        ("ssh: connect to host far port 22: Connection timed out", "not reachable on port 3022 within 1 s"),
        ("ssh: connect to host far port 22: No route to host", "not reachable"),
        ("ssh: connect to host far port 22: Network is unreachable", "not reachable"),
        ("kex_exchange_identification: Connection closed by remote host", "not reachable"),
        (
            "No ED25519 host key is known for far and you have requested strict checking.\n"
            "Host key verification failed.",
            "ssh-keyscan -p 3022 far >> /keys/known after checking the fingerprint",
        ),
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
            "ssh-keygen -f /keys/known -R '[far]:3022'",
        ),
        ("root@far: Permission denied (publickey).", "does not accept your ssh key"),
        ("/x/config: line 3: Bad configuration option: prot", "Bad configuration option: prot"),
        ("", "no message"),
    ],
)
def test_each_way_of_not_getting_there(stub: Stub, said: str, words: str) -> None:
    stub.answer(far={"rc": 255, "err": said})
    message = refusal()
    assert words in message
    assert (said.splitlines() or ["no message"])[-1] in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"rc": 127, "err": "bash: line 1: python3: command not found"}, "python3 cannot be started there"),
        ({"rc": 126, "err": "env: python3: Permission denied"}, "python3 cannot be started there"),
        ({"rc": 1, "err": "python3: Command not found."}, "python3 cannot be started there"),
        (versions(bertkit=""), "bertkit is not installed for python3 there; install bertkit 0.1.0"),
        (versions(torch=""), "torch is not installed"),
        (versions(bertkit="0.2.0"), "far has bertkit 0.2.0 (here 0.1.0)"),
        (versions(torch="2.12.0", python="3.12"), "far has torch 2.12.0 (here 2.13.0), python 3.12 (here 3.11)"),
        (versions(mpi4py="3.1"), "mpi4py 3.1 (here 4.1.2)"),
        ({"rc": 1, "err": "Traceback\nSyntaxError: invalid syntax"}, "cannot report its versions: SyntaxError"),
        ({"rc": 0, "out": "hello"}, "cannot report its versions: exit code 0"),
        pytest.param({"sleep": 30}, "no answer within 4 s", marks=pytest.mark.slow),
    ],
)
def test_each_way_of_not_being_fit(stub: Stub, answer: dict[str, object], words: str) -> None:
    stub.answer(far=answer)
    assert words in refusal()


def test_all_are_asked_at_once_and_all_that_failed_are_named(stub: Stub) -> None:
    names = [f"host{number}" for number in range(6)]
    late = {"sleep": 0.6}
    stub.answer(**{name: versions() | late for name in names} | {"host2": versions(torch="1") | late, "host4": late})
    began = time.monotonic()
    with pytest.raises(UserError, match=r"host2 has torch 1 \(here 2.13.0\) \(not ready either: host4\)"):
        check_hosts(names, Ssh(), "python3")
    assert time.monotonic() - began < 3.6


def test_this_machine_is_asked_without_ssh(stub: Stub) -> None:
    assert check_hosts([], Ssh(), "python3") == {}
    with pytest.raises(UserError, match=r"127.0.0.1: /no/python cannot be started there: No such file"):
        check_hosts(["127.0.0.1"], Ssh(), "/no/python")
    assert not (stub.folder / "127.0.0.1.json").exists()


def test_no_ssh_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "_versions_here", lambda: dict(HERE))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ssh is not installed here" in refusal()


def test_is_here() -> None:
    assert is_here("localhost")
    assert is_here("127.0.1.1")
    assert is_here("::1")
    assert not is_here("192.0.2.7")  # for documentation, RFC 5737
    assert not is_here("no-such-host.invalid")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.7", 9))
        except OSError:
            return  # no network but loopback
        assert is_here(probe.getsockname()[0])


def test_options() -> None:
    assert Ssh().options() == []
    assert Ssh(3022, "f").options() == ["-F", "f", "-p", "3022"]
