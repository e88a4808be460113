"""An example package as others have theirs: outside the tree, installed into a folder, its files shown on a page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, command_env

BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


def install(example: Path, folder: Path) -> Path:
    """A folder with the example installed in it, and bertkit not; building leaves nothing in the tree."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds the example, is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"the example needs setuptools 77, this is {setuptools.__version__}")
    source, target = folder / "source", folder / "site"
    shutil.copytree(example, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*"))
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, cwd=folder, env=command_env(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run_own_tests(tests: Path, site: Path, folder: Path) -> None:
    """The example's own tests, in a folder of their own."""
    shutil.copy(tests, folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    env = command_env(folder) | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def assert_page_shows(page: Path, example: Path) -> None:
    """The page has a block for each of the example's sources, and each is the file."""
    blocks = dict(BLOCK.findall(page.read_text(encoding="utf-8")))
    files = [path for path in example.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts]
    assert set(blocks) == {path.relative_to(ROOT).as_posix() for path in files}
    for name, text in blocks.items():
        assert text == (ROOT / name).read_text(encoding="utf-8"), f"{name} is another in {page.relative_to(ROOT)}"
