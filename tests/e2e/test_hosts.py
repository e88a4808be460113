"""Whether another host can take part, asked over real ssh between two boxes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertkit_mpi.remote import MARK
from boxes import Boxes, two_boxes  # noqa: F401  (the fixture `boxes`)

PATH = os.pathsep.join(entry for entry in sys.path if entry)
CHECK = """
import json, sys
from bertkit.errors import UserError
from bertkit_mpi.remote import Ssh, check_hosts, is_here
hosts, port, config, python, path = json.loads(sys.argv[1])
try:
    found = check_hosts(hosts, Ssh(port, config), python, 3, {"PYTHONPATH": path} if path else None)
    print(json.dumps({"found": found, "here": [is_here(host) for host in hosts]}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(autouse=True)
def mended(boxes: Boxes) -> Iterator[None]:
    yield
    boxes.mend()


def check(
    boxes: Boxes, *hosts: str, config: Path | None = None, port: int = 0, python: str = sys.executable, path: str = PATH
) -> dict[str, object]:
    """What box a says of hosts."""
    given = json.dumps([hosts, port, str(config or boxes.ssh_config), python, path])
    process = boxes.run(
        "a", [sys.executable, "-c", CHECK, given],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": PATH},
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    answer: dict[str, object] = json.loads(out)
    return answer


def error(boxes: Boxes, *hosts: str, **how: object) -> str:
    answer = check(boxes, *hosts, **how)  # type: ignore[arg-type]
    assert "error" in answer, answer
    return str(answer["error"])


def config_with(boxes: Boxes, folder: Path, **changed: object) -> Path:
    """The boxes' ssh configuration with other values."""
    lines = [line.split(maxsplit=1) for line in boxes.ssh_config.read_text().splitlines()]
    path = folder / "config"
    path.write_text("".join(f"{key} {changed.get(key, value)}\n" for key, value in lines))
    return path


def stub_python(folder: Path, **versions: str) -> str:
    """A program that tells other versions, as another installation would."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\necho '{MARK}{json.dumps(versions)}'\n")
    program.chmod(0o755)
    return str(program)


def test_a_host_that_can_take_part(boxes: Boxes) -> None:
    near, far = boxes.hosts.values()
    answer = check(boxes, near, far, "box-b", "box-a", config=with_names(boxes))
    assert answer["here"] == [True, False, False, True]
    found = answer["found"]
    assert isinstance(found, dict)
    assert found[far]["python"] == ".".join(map(str, sys.version_info[:2]))
    assert found[near] == found[far] == found["box-b"]


def with_names(boxes: Boxes) -> Path:
    """A configuration by which the boxes' names are known too."""
    key = boxes.known_hosts.read_text().split("\n")[0].split(" ", 1)[1]
    known = boxes.folder / "known_names"
    known.write_text(boxes.known_hosts.read_text() + f"[box-b]:{boxes.port} {key}\n")
    return config_with(boxes, boxes.folder, UserKnownHostsFile=known)


@pytest.mark.slow_but("False")
@pytest.mark.parametrize("silent", [False, True])
def test_a_cut_cable(boxes: Boxes, silent: bool) -> None:
    boxes.cut(silent)
    began = time.monotonic()
    assert "not reachable on port 3022 within 3 s" in error(boxes, boxes.hosts["b"])
    assert time.monotonic() - began < 15


def test_a_wrong_port(boxes: Boxes) -> None:
    assert "nothing listens on its port 3023" in error(boxes, boxes.hosts["b"], port=3023)


def test_an_unknown_host_key(boxes: Boxes, tmp_path: Path) -> None:
    empty = tmp_path / "known"
    empty.touch()
    host = boxes.hosts["b"]
    for strict in ("yes", "ask"):
        config = config_with(boxes, tmp_path, UserKnownHostsFile=empty, StrictHostKeyChecking=strict)
        said = error(boxes, host, config=config)
        assert "its host key is not known here" in said, strict
        assert f"ssh-keyscan -p 3022 {host} >> {empty} after checking the fingerprint" in said
    subprocess.run(boxes.inside("a", ["sh", "-c", f"ssh-keyscan -p 3022 {host} 2>/dev/null >> {empty}"]), check=True)
    assert "found" in check(boxes, host, config=config)  # the advice helps


def test_a_changed_host_key(boxes: Boxes, tmp_path: Path) -> None:
    host = boxes.hosts["b"]
    other = (boxes.folder / "user_key.pub").read_text()
    known = tmp_path / "known"
    known.write_text(f"[{host}]:3022 {other}")
    said = error(boxes, host, config=config_with(boxes, tmp_path, UserKnownHostsFile=known))
    assert f"its host key is not the one in {known}" in said
    assert f"ssh-keygen -f {known} -R '[{host}]:3022'" in said


def test_a_key_that_is_not_accepted(boxes: Boxes, tmp_path: Path) -> None:
    config = config_with(boxes, tmp_path, IdentityFile=boxes.folder / "host_key")
    assert "does not accept your ssh key" in error(boxes, boxes.hosts["b"], config=config)


def test_a_name_that_is_not_known(boxes: Boxes) -> None:
    assert "nowhere: its name is not known here" in error(boxes, "nowhere")


def test_a_configuration_that_is_none(boxes: Boxes, tmp_path: Path) -> None:
    assert "Can't open user config file" in error(boxes, boxes.hosts["b"], config=tmp_path / "absent")


def test_no_python_there(boxes: Boxes) -> None:
    assert "/no/python cannot be started there" in error(boxes, boxes.hosts["b"], python="/no/python")


def test_no_bertkit_there(boxes: Boxes, tmp_path: Path) -> None:
    found = check(boxes, boxes.hosts["b"])["found"]
    assert isinstance(found, dict)
    versions = found[boxes.hosts["b"]]
    python = stub_python(tmp_path, **versions | {"bertkit": ""})
    said = error(boxes, boxes.hosts["b"], python=python)
    assert f"bertkit is not installed for {python} there" in said
    python = stub_python(tmp_path, **versions | {"torch": "1.0.0"})
    assert f"{boxes.hosts['b']} has torch 1.0.0 (here {versions['torch']})" in error(
        boxes, boxes.hosts["b"], python=python
    )
