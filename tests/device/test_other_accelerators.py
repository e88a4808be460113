"""The backends `xpu` and `accelerator` on software stand-ins of an Intel GPU and of a plug-in's device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertkit.conformance import CHECKS
from conftest import ROOT
from gaudi_standin_env import OTHERS, other_env, require_standin
from made_trees import write

FILES = {
    "xpu": {
        "sys/class/drm/renderD128/device/vendor": "0x8086\n",
        "sys/class/drm/renderD128/device/numa_node": "0\n",
        "dev/dri/renderD128": "",
    },
    "npu": {"dev/davinci0": "", "dev/davinci_manager": ""},
}
CHEAP = ("split", "optimizer", "dropout", "resume", "host_waits", "memory")
SAMPLE = ("-t", "sample", "-m", "tiny", "-s", "32", "-b", "16", "-d", "fp32", "--set", "train.steps=4")
QUICK = ("--set", "data.eval_rows=16", "--set", "log.every=2", "--set", "device.shapes=2")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """`command("xpu", …)`: the command `bertkit` on a machine with that stand-in."""
    require_standin()

    def run(name: str, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        root = write(tmp_path / "root", FILES[name])
        env = other_env(name, root, BERTKIT_CACHE=str(tmp_path / "cache"), **more)
        start = [sys.executable, "-W", "ignore", str(OTHERS / "check.py"), *map(str, words)]
        return subprocess.run(start, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return run


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("name", "backend", "sets", "only"),
    [
        ("xpu", "intel-gpu", (), CHEAP),
        pytest.param("xpu", "xpu", (), (), marks=pytest.mark.slow),
        pytest.param("xpu", "xpu", ("device.graphs=auto",), (*CHEAP, "static_shapes"), marks=pytest.mark.slow),
        pytest.param("npu", "accelerator", (), CHEAP, id="npu"),
        pytest.param("npu", "accelerator", ("device.type=npu",), ("layouts", "lamb"), marks=pytest.mark.slow),
    ],
)
def test_the_contract(
    command: Command, tmp_path: Path, name: str, backend: str, sets: tuple[str, ...], only: tuple[str, ...]
) -> None:
    words = [word for setting in sets for word in ("--set", setting)] + [
        word for one in only for word in ("--only", one)
    ]
    said = tmp_path / "said.json"
    done = command(name, "check", backend, *words, "--json", STANDIN_REPORT=str(said))
    found = report(done)
    assert done.returncode == 0, done.stderr
    skipped = [one["name"] for one in found["results"] if one["outcome"] == "skipped"]
    assert skipped == ([] if only else ["static_shapes"]), done.stderr  # neither compiles here: programs are not told
    assert found["failed"] == 0
    assert found["passed"] == len(only or CHECKS) - len(skipped)
    assert found["engine"]["device"] == f"{name}:0"
    counted = json.loads(said.read_text())
    assert counted["upload"] > 0
    assert bool(counted.get("replay")) == ("device.graphs=auto" in sets)


@pytest.mark.slow
def test_a_run_on_an_intel_gpu_gives_the_losses_of_the_cpu_and_tells_its_device(
    command: Command, sample_dir: Path, tmp_path: Path
) -> None:
    exact = ("--set", "model.hidden_dropout=0.0", "--set", "model.attention_dropout=0.0", "--data-dir", sample_dir)
    losses = []
    for backend in ("auto", "cpu"):
        words = QUICK if backend == "auto" else QUICK[:4]
        done = command("xpu", "train", "--backend", backend, *SAMPLE, *words, *exact, "-o", backend)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / backend / "record.json").read_text())
        losses.append(record["losses"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    record = json.loads((tmp_path / "auto" / "record.json").read_text())
    assert record["hardware"]["engine"]["device"] == "xpu:0"  # `auto` takes it before the CPU
    assert record["hardware"]["device"]["model"] == "Stand-in Max 1550"
    assert record["hardware"]["engine"]["attention"] == "two products and a softmax"


def test_auto_never_takes_what_computes_at_reference_speed(command: Command, sample_dir: Path) -> None:
    done = command("npu", "train", "--backend", "auto", *SAMPLE, "--data-dir", sample_dir, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "backend: cpu (best that is ready" in done.stderr
    listed = command("npu", "backends")
    assert "accelerator: ready: npu, torch" in listed.stdout, listed.stderr
    assert "at reference speed" in listed.stdout


def test_a_type_that_torch_does_not_find_is_refused(command: Command, sample_dir: Path) -> None:
    done = command(
        "npu", "train", "--backend", "accelerator", *SAMPLE, "--data-dir", sample_dir, "--set", "device.type=mps"
    )
    assert done.returncode == 2
    assert "device.type=mps, but torch finds npu; set device.type=auto" in done.stderr


FAITHFUL = """
import torch
name = {name!r}
one = torch.ones(3, device=name)
def raises(words, call):
    try:
        call()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
raises("tensors to be on the", lambda: one + torch.ones(3))
raises("no float64", lambda: torch.zeros(2, device=name, dtype=torch.float64))
raises("active device", lambda: torch.zeros(2, device=name + ":1"))
raises("", lambda: one.numpy())
torch.manual_seed(1); state = torch.get_rng_state(); torch.rand(3, device=name)
assert torch.equal(state, torch.get_rng_state()), "the device drew from the host's stream"
assert torch.accelerator.current_accelerator().type == name
assert one.device == torch.device(name, 0)
weight = torch.ones(3, 3, device=name, requires_grad=True)
(weight @ one).sum().backward()
assert torch.equal(weight.grad.cpu(), torch.ones(3, 3))
"""


@pytest.mark.parametrize("name", FILES)
def test_the_stand_in_is_a_device_of_its_own(name: str, tmp_path: Path) -> None:
    require_standin()
    env = other_env(name, tmp_path)
    # autograd has a thread for the device, which at times outlives the interpreter that frees it
    code = FAITHFUL.format(name=name) + "\nimport os\nos._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["bertkit_xpu", "bertkit_accelerator"])
def test_a_backend_on_the_shared_base_is_short(package: str) -> None:
    files = sorted((ROOT / "backends" / package).glob("*.py"))
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 150
