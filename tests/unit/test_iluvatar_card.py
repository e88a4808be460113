"""What an Iluvatar machine's files say, state by state, and what the probe answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bertkit.engine.interface import Probe
from bertkit.training.setup import choose_precision
from bertkit_iluvatar import IluvatarBackend
from bertkit_torch import gpu_backend
from bertkit_torch.build import Build

COREX = Build("2.4.1+corex.4.2.0", {"cuda": "10.2"})
CPU = Build("2.13.0+cpu", {})
NVIDIAS = Build("2.13.0+cu128", {"cuda": "12.8"})
PRECISIONS = ("fp32", "bf16", "fp16")
look, count = IluvatarBackend().look, IluvatarBackend().count


def machine(root: Path, cards: int = 0, corex: bool = True) -> Path:
    (root / "dev").mkdir(parents=True)
    for name in (*(f"iluvatar{number}" for number in range(cards)), "iluvatar", "iluvatar_ctl", "null"):
        (root / "dev" / name).touch()
    if corex:
        (root / "usr/local/corex").mkdir(parents=True)
    return root


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """An environment in which no tool is found."""
    monkeypatch.setattr(gpu_backend, "torch_build", lambda: COREX)
    return {"PATH": "/nowhere"}


def test_without_corex_one_line_says_how_to_get_it(tmp_path: Path, see: Mapping[str, str]) -> None:
    probe = look(machine(tmp_path, cards=2, corex=False), see)
    assert not probe.ready
    assert probe.detail.startswith("CoreX is not installed; ")
    for way in ("container", "installer", "build of torch"):
        assert way in probe.detail
    assert "\n" not in probe.detail


def test_its_tool_alone_means_that_it_is_installed(tmp_path: Path, see: Mapping[str, str]) -> None:
    tool = tmp_path / "bin" / "ixsmi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    probe = look(machine(tmp_path / "root", cards=1, corex=False), {"PATH": str(tool.parent)})
    assert probe == Probe(True, "1 device, torch 2.4.1+corex.4.2.0", PRECISIONS, (-1,))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (None, "torch is missing"),
        (CPU, "torch 2.13.0+cpu is another's"),
        (NVIDIAS, "torch 2.13.0+cu128 is another's"),
    ],
)
def test_a_torch_of_another_or_none(
    tmp_path: Path, see: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, build: Build | None, said: str
) -> None:
    monkeypatch.setattr(gpu_backend, "torch_build", lambda: build)
    probe = look(machine(tmp_path, cards=1), see)
    assert not probe.ready
    assert probe.detail == f"CoreX is here, but {said}; install the torch wheel of the CoreX release"


def test_no_card(tmp_path: Path, see: Mapping[str, str]) -> None:
    probe = look(machine(tmp_path), see)
    assert not probe.ready
    for word in ("no device is visible", "ixsmi", "/dev/iluvatar*", "CUDA_VISIBLE_DEVICES"):
        assert word in probe.detail


def test_ready(tmp_path: Path, see: Mapping[str, str]) -> None:
    probe = look(machine(tmp_path, cards=16), see)
    assert probe == Probe(True, "16 devices, torch 2.4.1+corex.4.2.0", PRECISIONS, (-1,) * 16)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (None, 4), ("0,1,2,3", 4), ("2", 1), (" 3 , 0", 2), ("", 0), ("-1", 0), ("4", 0), ("1,9,0", 1), ("0,,1", 1),
        ("GPU-1a,GPU-2b", 2), ("all", 0), ("0,1,2,3,0", 4), ("²", 0),
    ],
)  # fmt: skip
def test_devices_that_the_variable_leaves(tmp_path: Path, shown: str | None, wanted: int) -> None:
    env = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    assert count(machine(tmp_path, cards=4), env) == wanted


@pytest.mark.parametrize("name", ["IX_VISIBLE_DEVICES", "ILUVATAR_COREX_VISIBLE_DEVICES"])
@pytest.mark.parametrize(
    ("given", "numbers", "wanted"),
    [
        ("all", None, 4), ("", None, 4), ("2", None, 1), ("6,7", None, 2), ("GPU-1a,GPU-2b,GPU-3c", None, 3),
        ("none", None, 0), ("void", None, 0), ("0,1,2,3,4,5,6,7", None, 4), ("2,3", "1", 1), ("2,3", "2", 0),
        ("all", "0,3", 2),
    ],
)  # fmt: skip
def test_devices_that_a_container_was_given(
    tmp_path: Path, name: str, given: str, numbers: str | None, wanted: int
) -> None:
    """The container's variable counts the host's devices; CUDA_VISIBLE_DEVICES then those that are left."""
    env = {name: given} | ({} if numbers is None else {"CUDA_VISIBLE_DEVICES": numbers})
    assert count(machine(tmp_path, cards=4), env) == wanted


def test_a_variable_that_leaves_none_is_named(tmp_path: Path, see: Mapping[str, str]) -> None:
    probe = look(machine(tmp_path, cards=2), {**see, "IX_VISIBLE_DEVICES": "none"})
    assert not probe.ready
    assert "IX_VISIBLE_DEVICES=none" in probe.detail


def test_its_variables_reach_every_process() -> None:
    for name in ("IX_VISIBLE_DEVICES", "ILUVATAR_COREX_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "COREX_HOME"):
        assert name.startswith(IluvatarBackend.capabilities.environment)


def test_auto_computes_in_bf16(tmp_path: Path, see: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = IluvatarBackend()
    ready = look(machine(tmp_path, cards=1), see)
    monkeypatch.setattr(backend, "probe", lambda: ready)
    assert choose_precision(backend, "auto") == ("bf16", "auto: this device computes it natively")


def test_it_comes_before_a_card_whose_interface_it_answers() -> None:
    """CoreX's torch says that it has CUDA, so that `auto` must ask this card first."""
    from bertkit_cuda import CudaBackend

    assert IluvatarBackend.preference > CudaBackend.preference
