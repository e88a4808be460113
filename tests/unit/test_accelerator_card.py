"""Which devices of torch.accelerator a machine's files and packages show, and what the probe says."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

import bertkit_accelerator
from bertkit.engine.registry import installed
from bertkit_accelerator import KINDS, AcceleratorBackend, devices
from bertkit_torch.build import Build
from made_trees import write

look = AcceleratorBackend().look


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Linux with torch and no plug-in, whatever this machine has."""
    monkeypatch.setattr(bertkit_accelerator, "torch_build", lambda: Build("2.13.0", {}))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(bertkit_accelerator.metadata, "entry_points", lambda group: [])


def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write(tmp_path / "site", {f"{name}/__init__.py": "raise SystemExit('imported merely to look')"})
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.parametrize(
    ("package", "files", "found"),
    [
        ("torch_npu", ("davinci0", "davinci1", "davinci_manager", "hisi_hdc"), [("npu", 2)]),
        ("torch_mlu", ("cambricon_dev0", "cambricon_ctl"), [("mlu", 1)]),
        ("torch_musa", ("mtgpu.0", "mtgpu.1", "mtgpu.2"), [("musa", 3)]),
        ("torch_npu", ("cambricon_dev0",), []),  # a plug-in without its device
        ("other", ("davinci0",), []),  # a device without its plug-in
    ],
)
def test_a_plug_in_and_its_drivers_files_make_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, files: tuple[str, ...], found: list[tuple[str, int]]
) -> None:
    plug_in(tmp_path, monkeypatch, package)
    root = write(tmp_path / "root", {f"dev/{name}": "" for name in files})
    assert devices(root) == found
    probe = look(root, {})
    assert probe.ready == bool(found)
    if found:
        kind, count = found[0]
        many = f"{count} x " if count > 1 else ""
        assert probe.detail == f"{many}{kind}, torch 2.13.0, at reference speed"
        assert probe.cards == (-1,) * count


def test_apples_gpu_is_part_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert devices(tmp_path) == [("mps", 1)]
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert devices(tmp_path) == []


def test_of_a_plug_in_that_is_not_known_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("shiny", "torch_shiny.load:autoload", "torch.backends")
    monkeypatch.setattr(bertkit_accelerator.metadata, "entry_points", lambda group: [point])
    assert look(tmp_path, {}).detail == "what torch_shiny brings, torch 2.13.0, at reference speed"


def test_nothing_is_one_line_with_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = look(tmp_path, {})
    assert not probe.ready
    for word in ("mps", "npu", "mlu", "musa", "install the vendor's plug-in"):
        assert word in probe.detail
    monkeypatch.setattr(bertkit_accelerator, "torch_build", lambda: None)
    assert look(tmp_path, {}).detail == "torch is not installed; pip install torch"


def test_it_is_never_taken_unasked_and_forwards_the_vendors_variables() -> None:
    assert all(AcceleratorBackend.preference < other.preference for name, other in installed().items()
               if name not in ("accelerator", "null", "tensorflow", "jax") and other.capabilities.trains)  # fmt: skip
    assert AcceleratorBackend.preference < 0
    for kind in KINDS:
        assert set(kind.environment) <= set(AcceleratorBackend.capabilities.environment)
