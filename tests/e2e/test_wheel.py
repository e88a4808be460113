"""The wheel of this tree, installed into an environment of its own: the command, and what it finds by entry point."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertkit.version import __version__
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout of git's"),
]


@pytest.fixture(scope="module")
def dist() -> Any:
    spec = importlib.util.spec_from_file_location("dist", ROOT / "release" / "dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(dist: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the files that git knows, as they are here; skips where setuptools cannot be had."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in dist.run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    words = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", "-q", "-w", str(made))
    try:
        dist.run(*words, str(source))
    except dist.Failed as error:
        if "No matching distribution found for setuptools" in str(error):
            pytest.skip(f"setuptools could not be fetched: {error}")
        raise
    (found,) = made.glob("*.whl")
    return found


def test_the_wheel_works_away_from_the_tree(dist: Any, wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this environment."""
    assert wheel.name == f"bertkit-{__version__}-py3-none-any.whl"
    packages = dist.contents(wheel)
    assert {"bertkit", "bertkit_torch", "bertkit_mpi", "bertkit_serve", "bertkit_triton"} <= set(packages)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    words = (sys.executable, "-m", "pip", "--python", str(python), "install", "--disable-pip-version-check", "-q")
    dist.run(*words, "--no-deps", str(wheel))
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(here + "\n")  # a plain path: the links to this tree in it are not followed
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BERTKIT_"))}
    env |= {"BERTKIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    (tmp_path / "empty").mkdir()

    def run(*words: str) -> str:
        return str(dist.run(str(tmp_path / "venv" / "bin" / "bertkit"), *words, cwd=tmp_path / "empty", env=env))

    assert __version__ in run("--version")
    assert {"cpu", "null"} <= set(dist.ready(json.loads(run("backends", "--json"))))
    code = "import bertkit, bertkit_cpu; print(bertkit.__file__, bertkit_cpu.__file__)"
    where = dist.run(str(python), "-c", code, cwd=tmp_path / "empty", env=env)
    assert all(path.startswith(str(tmp_path)) for path in where.split())
    run("data", "get", "sample")
    run("train", "--recipe", "demo", "--backend", "null", "--set", "train.steps=2", "-o", "run", "-q")
    assert (tmp_path / "empty" / "run" / "record.json").is_file()
