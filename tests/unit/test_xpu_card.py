"""Which Intel GPUs a machine's files show, which of them a process sees, and what the probe says in each state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import bertkit_xpu
from bertkit.engine.registry import find
from bertkit_torch.build import Build
from bertkit_xpu import XpuBackend, gpus, visible
from made_trees import write

XPU = Build("2.13.0+xpu", {"xpu": "20260100"})
look = XpuBackend().look


def gpu(number: int, node: str = "0", vendor: str = "0x8086") -> dict[str, str]:
    folder = f"sys/class/drm/renderD{number}"
    return {
        f"{folder}/device/vendor": f"{vendor}\n",
        f"{folder}/device/numa_node": f"{node}\n",
        f"sys/class/drm/card{number - 128}/device/vendor": f"{vendor}\n",
        f"dev/dri/renderD{number}": "",
    }


@pytest.fixture(autouse=True)
def xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertkit_xpu, "torch_build", lambda: XPU)


def test_render_nodes_in_the_kernels_order_and_their_memory_nodes(tmp_path: Path) -> None:
    root = write(tmp_path, gpu(128) | gpu(129, "1") | gpu(1000, "-1") | gpu(130, "x") | gpu(131, vendor="0x10de"))
    assert gpus(root) == [("renderD128", 0), ("renderD129", 1), ("renderD130", -1), ("renderD1000", -1)]
    assert gpus(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({}, [0, 1, 2]),
        ({"ZE_AFFINITY_MASK": ""}, [0, 1, 2]),
        ({"ZE_AFFINITY_MASK": "1"}, [1]),
        ({"ZE_AFFINITY_MASK": "2, 0"}, [2, 0]),
        ({"ZE_AFFINITY_MASK": "0.0,0.1"}, [0, 0]),
        ({"ZE_AFFINITY_MASK": "x"}, []),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:0,2"}, [0, 2]),
        ({"ONEAPI_DEVICE_SELECTOR": "*:1"}, [1]),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:gpu"}, [0, 1, 2]),
        ({"ZE_AFFINITY_MASK": "1", "ONEAPI_DEVICE_SELECTOR": "level_zero:0,2"}, [1]),
    ],
)
def test_what_the_runtimes_variables_leave(env: Mapping[str, str], shown: list[int]) -> None:
    assert visible(3, env) == shown
    assert visible(0, env) == []


def test_ready(tmp_path: Path) -> None:
    probe = look(write(tmp_path, gpu(128) | gpu(129, "1")), {})
    assert (probe.ready, probe.cards) == (True, (0, 1))
    assert probe.detail == "2 x Intel GPU, torch 2.13.0+xpu with XPU 20260100"
    assert "bf16" in probe.precisions


@pytest.mark.parametrize(
    ("build", "files", "env", "said"),
    [
        (None, gpu(128), {}, "torch is not installed"),
        (XPU, {}, {}, "no Intel GPU is visible; install Intel's compute runtime"),
        (XPU, gpu(128, vendor="0x1002"), {}, "no Intel GPU is visible"),
        (XPU, gpu(128), {"ZE_AFFINITY_MASK": "none"}, "no Intel GPU is visible (ZE_AFFINITY_MASK=none)"),
        (Build("2.13.0+cpu", {}), gpu(128), {}, "torch 2.13.0+cpu is built without XPU"),
    ],
)
def test_what_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build | None, files: dict[str, str],
    env: dict[str, str], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(bertkit_xpu, "torch_build", lambda: build)
    probe = look(write(tmp_path, files), env)
    assert not probe.ready
    assert said in probe.detail
    assert "\n" not in probe.detail


def test_a_device_file_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, gpu(128))
    monkeypatch.setattr(bertkit_xpu.os, "access", lambda path, mode: False)
    assert "/dev/dri/renderD128 cannot be opened; add this user to the group render" in look(root, {}).detail
    monkeypatch.undo()
    monkeypatch.setattr(bertkit_xpu, "torch_build", lambda: XPU)
    (root / "dev/dri/renderD128").unlink()  # a container that sees the host's /sys alone
    assert not look(root, {}).ready


def test_intel_means_the_cpu_and_a_gpu_is_asked_for_by_its_own_names() -> None:
    assert (find("intel").name, find("xpu").name, find("intel-gpu").name) == ("cpu", "xpu", "xpu")
    assert find("cpu").preference < XpuBackend.preference < find("cuda").preference
