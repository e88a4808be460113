"""Fixtures that several folders of tests share, and the setting that says where real data is.

Real data (GLUE files, a pre-trained encoder, golden token ids) is not part of the project. Tests look for it in the
folder that BERTKIT_TEST_DATA names, or in `../shared/data` beside the checkout, and skip with the reason without it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
# One compute thread each: two tests at a time share two cores, and OpenMP's threads spin while they wait for others.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [n for n in os.environ if n.startswith("BERTKIT_") and not n.startswith("BERTKIT_TEST_")]:
    del os.environ[name]  # a setting of whoever runs the tests is none of a test's
# How long an example takes says what else the machine does.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the same small model is compiled for many tests; workers inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bertkit-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
SAFE_PATH = "PYTHONSAFEPATH"
AS_STARTED = os.environ.get(SAFE_PATH)
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched, save where a test says so and serves it itself

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first, so that no worker is left alone with it at the end.

    `slow_but("a", "b")` makes every case of a test slow save those named, which stand for it in the quick suite.
    """
    for item in items:
        for marker in item.iter_markers("slow_but"):
            case = item.name.partition("[")[2].rstrip("]")
            if not any(name in case for name in marker.args):
                item.add_marker("slow")
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "e2e" not in item.path.parts))


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where BERTKIT_TEST_UNTIL is given, in seconds since 1970: no slow test starts after it, and each says so."""
    until = float(os.environ.get("BERTKIT_TEST_UNTIL", "inf"))
    if time.time() > until and item.get_closest_marker("slow"):
        pytest.skip("no time was left: BERTKIT_TEST_UNTIL")


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """The command, run within a test or a fixture, sets this for the processes that it starts; a test is none of them.

    Also before a test: fixtures of a module or of the session come first, and what they set would stay.
    """
    _put_back(SAFE_PATH, AS_STARTED)
    yield
    _put_back(SAFE_PATH, AS_STARTED)


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def real_folder() -> Path:
    """Where real data is looked for."""
    return Path(os.environ.get("BERTKIT_TEST_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data; the test is skipped without it."""
    folder = real_folder()
    if not (folder / "glue").is_dir():
        pytest.skip(f"no real data in {folder}: set BERTKIT_TEST_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the built-in sample task in it."""
    from bertkit.data.tasks.sample import write_sample

    folder = tmp_path_factory.mktemp("data")
    write_sample(folder)
    return folder


@pytest.fixture(scope="session")
def gaudi_env() -> Callable[..., dict[str, str]]:
    """`gaudi_env(lazy)`: the environment of a process that finds the Gaudi stand-in; skips without a C++ compiler."""
    from gaudi_standin_env import require_generator, require_standin, standin_env

    require_standin()
    require_generator()
    return standin_env


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bertkit(tmp_path: Path) -> Run:
    """Run the command itself in a subprocess, in an empty folder with a cache of its own: `bertkit("train", …)`."""

    def run(
        *arguments: str | Path, timeout: float = 240, said: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bertkit", *map(str, arguments)],
            cwd=tmp_path,
            env=command_env(tmp_path) | env,
            input=said,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def command_env(folder: Path) -> dict[str, str]:
    """The environment of a command under test: none of the user's own settings, one cache per test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTKIT_")}
    return kept | {"BERTKIT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """The command failed as a user should see it: one last line with cause and cure, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("bertkit: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    for word in words:
        assert word in lines[0], lines[0]
