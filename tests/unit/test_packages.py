"""What a wheel would hold, asked of setuptools' own finder with the settings of pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_only_our_packages_are_shipped_and_no_stand_in() -> None:
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    find = settings["packages"]["find"]
    found = [
        name
        for where in find["where"]
        for name in setuptools.find_namespace_packages(str(ROOT / where), include=find["include"])
    ]
    assert {"bertkit", "bertkit_torch", "bertkit_mpi", "bertkit_serve"} <= set(found)
    assert [name for name in found if not name.split(".")[0].startswith("bertkit")] == []
    # There is something to leave out, and a finder that is not told would take it.
    site = ROOT / "tests" / "device" / "gaudi_standin" / "site"
    assert "habana_frameworks" in setuptools.find_namespace_packages(str(site))
    assert "site" not in " ".join(find["where"])
    assert set(settings) <= {"dynamic", "packages", "package-data"}, "py_modules or data_files would ship more"
