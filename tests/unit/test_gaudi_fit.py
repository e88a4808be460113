"""Whether the installed torch is one that the vendor's package takes: as its own start decides, without an import."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

import bertkit_gaudi
from bertkit.conformance.fixtures import job
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit_gaudi import GaudiBackend
from bertkit_gaudi.environment import LAZY
from bertkit_gaudi.fit import misfit, required_torch
from bertkit_torch.build import Build
from made_trees import write


@pytest.mark.parametrize(
    ("required", "torch", "lazy", "said"),
    [
        ("2.11.0", "2.11.0+cpu", False, ""),
        ("2.11.0", "2.11.2", False, ""),
        ("2.6.0", "2.6.0a0+git603340c", True, ""),
        ("2.9.0", "2.9.0+hpu.1.23.0.695", True, ""),
        ("2.11.0a0+gitabc\n", "2.11.0", False, ""),
        ("2.11.0", "2.13.0+cpu", False, "built for torch 2.11.0, and this is torch 2.13.0+cpu"),
        ("2.1.0", "2.11.0", False, "built for torch 2.1.0"),
        ("2.11.0", "3.11.0", False, "this is torch 3.11.0"),
        ("2.11.0", "2.11.0", True, "lazy mode needs the vendor's own build of torch 2.11.0, and this is torch 2.11.0"),
        ("2.11.0", "2.11.0+cpu", True, "lazy mode needs the vendor's own build"),
        ("2.11.0", None, False, "needs torch 2.11.0, which is not installed"),
        ("", "2.13.0+cpu", True, ""),  # a release that does not say what it takes
        ("", None, False, ""),
    ],
)
def test_what_does_not_fit_is_said(required: str, torch: str | None, lazy: bool, said: str) -> None:
    found = misfit(required.strip(), torch, lazy)
    assert said in found
    assert bool(found) == bool(said)
    assert "\n" not in found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The vendor's package for torch 2.11, which nobody may import, on a machine with one device and torch 2.11.0."""
    site = write(
        tmp_path / "site",
        {
            "habana_frameworks/__init__.py": "raise SystemExit('imported merely to look')",
            "habana_frameworks/torch/required_version.txt": "2.11.0\n",
            "habana_torch_plugin-1.24.1.dist-info/METADATA": "Name: habana-torch-plugin\nVersion: 1.24.1",
        },
    )
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    monkeypatch.delenv(LAZY, raising=False)
    monkeypatch.setattr(bertkit_gaudi, "find_cards", lambda root, env: bertkit_gaudi.cards.Cards((0,)))
    monkeypatch.setattr(bertkit_gaudi, "torch_build", lambda: Build("2.11.0+cpu", {}))
    return site


def test_the_file_is_read_and_nothing_is_imported(package: Path) -> None:
    assert required_torch() == "2.11.0"
    assert GaudiBackend().probe().ready


def test_the_probe_says_in_one_line_what_does_not_fit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertkit_gaudi, "torch_build", lambda: Build("2.13.0+cpu", {}))
    probe = GaudiBackend().probe()
    assert not probe.ready
    assert probe.detail.startswith(
        "habana_frameworks 1.24.1 is installed, but it is built for torch 2.11.0, and this is torch 2.13.0+cpu; install"
    )
    assert "\n" not in probe.detail
    monkeypatch.setattr(bertkit_gaudi, "torch_build", lambda: None)
    assert "which is not installed" in GaudiBackend().probe().detail


def test_lazy_mode_with_stock_torch_is_refused_where_the_mode_is_chosen(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable in the probe; by the setting before anything is imported."""
    monkeypatch.setenv(LAZY, "1")
    assert "lazy mode needs the vendor's own build" in GaudiBackend().probe().detail
    monkeypatch.delenv(LAZY)
    settings = {name: setting.default for name, setting in GaudiBackend.settings.items()} | {"mode": "lazy"}
    with pytest.raises(UserError, match="lazy mode needs the vendor's own build") as caught:
        GaudiBackend().engine(dataclasses.replace(job("classification"), settings=settings), World())
    assert "docs/backends.md" in caught.value.cure
