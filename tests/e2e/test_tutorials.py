"""The tutorials, as a stranger follows them: every block that is marked to be run, in their order, in one folder.

The first one begins with an empty folder, Python, and a copy of the source. Its environment is made as it says, but
sees the packages of this one, so that nothing is fetched; with BERTKIT_TEST_FRESH=1 pip fetches all of them. The other
tutorials go on in its folder; they take about a CPU minute, so they are run where BERTKIT_TEST_TUTORIALS=1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from command import free_port
from conftest import ROOT, command_env

BLOCK = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)
SOURCE = "bertkit backends deployment launchers docs examples".split()
FRESH = os.environ.get("BERTKIT_TEST_FRESH") == "1"
SHORTER = ((r"train\.steps=\d+", "train.steps=6"), (r"pip install '\./bertkit\[\w+\]'", "true"))  # in all but the first

# page: what its commands have to print, in this order
OTHERS = {
    "compare-runs": (r"n +accuracy", r"fast +2 +1\.0+ ± ", r"refused with exit code 2", r"slow \(baseline\)"),
    "two-ranks": (r"parity holds over 20 updates", r"Scaling"),
    "second-chip": (r"sample-chip", r"2 passed", r"parity holds over 20 updates"),
    "serve-a-model": (r"first-text: text", r'"label":"billing"', r"broken\.\tdelivery"),
    "distil": (r"The parcel is missing\.\tdelivery", r"Score, size and latency", r"student "),
    "pre-train": (r"unigram baseline", r"mlm_accuracy", r"weights: runs/pretrained"),
}


def blocks(page: str) -> str:
    """The script that a page's marked blocks make."""
    found = BLOCK.findall((ROOT / "docs" / "tutorials" / f"{page}.md").read_text(encoding="utf-8"))
    assert found, page
    return "".join(found)


def follow(page: str, folder: Path) -> str:
    """What following the page shows; the commands are those of the environment that the first page made."""
    script = blocks(page)
    if page != "first-run":
        script = ". .venv/bin/activate\n" + script.replace("8000", str(free_port()))
        for long, short in SHORTER:
            script = script if FRESH else re.sub(long, short, script)
    env = {name: value for name, value in command_env(folder).items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    env |= {"PATH": f"{folder / 'path'}{os.pathsep}{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    if not FRESH:
        env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # pip reads the last as: no isolation
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{page}\n{done.stdout}"
    return done.stdout


def empty_machine(folder: Path) -> None:
    """A copy of the source, and a `python3` whose new environments see this one's packages."""
    (folder / "bertkit").mkdir(parents=True)
    rubbish = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in SOURCE:
        shutil.copytree(ROOT / name, folder / "bertkit" / name, ignore=rubbish)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "bertkit")
    (folder / "path").mkdir()
    python, packages = folder / "path" / "python3", sysconfig.get_path("purelib")
    within = f".venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    # setuptools of the environment's own, which it has up to Python 3.11, would stand before this one's
    see = (
        ""
        if FRESH
        else f'\n[ ! -d .venv ] || {{ echo "{packages}" > {within}/others.pth; rm -rf {within}/setuptools*; }}'
    )
    python.write_text(f'#!/bin/sh\n"{sys._base_executable}" "$@" || exit $?{see}\n')  # type: ignore[attr-defined]
    python.chmod(0o755)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that following the first page leaves, and what that showed."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds the package, is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"the package needs setuptools 77, this is {setuptools.__version__}")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder = tmp_path_factory.mktemp("shop")
    empty_machine(folder)
    return folder, follow("first-run", folder)


@pytest.mark.slow
def test_a_stranger_who_follows_the_first_page_ends_with_all_it_promises(shop: tuple[Path, str]) -> None:
    folder, shown = shop
    assert re.search(r"The parcel is missing\.\tdelivery\t0\.\d+", shown), shown
    for made in ("runs/first/record.json", "runs/second/record.json", "report.html", "compare.html"):
        assert (folder / made).stat().st_size > 1000, made
    assert "<html" in (folder / "compare.html").read_text(encoding="utf-8")[:200]
    # The environment has a bertkit of its own, with the pages in it.
    command = [folder / ".venv" / "bin" / "bertkit", "help", "first-run"]
    done = subprocess.run(command, cwd=folder, env=command_env(folder), capture_output=True, text=True, check=False)
    assert done.stdout == (ROOT / "docs" / "tutorials" / "first-run.md").read_text(encoding="utf-8"), done.stderr
    assert list((folder / ".venv").glob("lib/*/site-packages/bertkit/cli/documents/README.md"))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("BERTKIT_TEST_TUTORIALS") != "1", reason="BERTKIT_TEST_TUTORIALS=1 runs it")
@pytest.mark.parametrize("page", OTHERS)
def test_the_other_tutorials_run_as_they_stand(page: str, request: pytest.FixtureRequest) -> None:
    for name in {"pre-train": ("pyarrow",), "serve-a-model": ("uvicorn", "prometheus_client")}.get(page, ()):
        pytest.importorskip(name, reason=f"{name} is not installed")
    folder, _ = request.getfixturevalue("shop")
    shown, place = follow(page, folder), 0
    for pattern in OTHERS[page]:
        found = re.compile(pattern).search(shown, place)
        assert found, f"{pattern}\n{shown}"
        place = found.end()


def test_every_tutorial_of_the_folder_is_followed() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert pages == {"first-run", *OTHERS}
