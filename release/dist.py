"""Builds the release's files in dist/ and checks them: `make dist`, or `python release/dist.py --torch 3.11`.

A wheel and an archive of the sources; what the wheel holds; twine's check of both; the wheel in a new environment of
each Python that is here, where the command is run; known weaknesses of the pinned versions; SHA-256 sums. Ends with 1
where a check fails; what could not be done is said. Nothing is uploaded or signed (docs/releasing.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIST, SUMS = ROOT / "dist", "SHA256SUMS"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLACES = ("~/.pyenv/versions/{}.*/bin/python", "~/.local/share/uv/python/cpython-{}.*/bin/python3")


class Failed(Exception):
    """A check that fails."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the release's files in dist/ and check them.")
    parser.add_argument(
        "--torch", default="all", help="Pythons whose environments get torch, as 3.11,3.12; all; or none. Default: all."
    )
    parser.add_argument("--no-audit", action="store_true", help="Do not ask for known weaknesses.")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            files = build(Path(scratch))
            wheel = next(file for file in files if file.suffix == ".whl")
            say(f"in the wheel: {', '.join(f'{name} {count}' for name, count in contents(wheel).items())} (files)")
            run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
            for version in PYTHONS:
                try_out(version, wheel, with_torch(version, given.torch), Path(scratch) / version)
        if not given.no_audit:
            audit()
        say(f"written: {write_sums(files)}; sign it by hand (docs/releasing.md)")
    except Failed as error:
        say(f"failed: {error}")
        return 1
    return 0


def say(text: str) -> None:
    print(f"dist: {text}", flush=True)


def run(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Standard output. Raises Failed with the program's last words."""
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise Failed(f"{' '.join(argv[:6])} … ended with {done.returncode}: {' / '.join(words)}")
    return done.stdout


# ---- building ----


def build(scratch: Path) -> list[Path]:
    """From the committed files alone, with their commit's time, so that the same commit gives the same bytes."""
    if run("git", "status", "--porcelain", cwd=ROOT).strip():
        say("warning: there are changes that are not committed; they are left out")
    source = scratch / "source"
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source))
    time = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    shutil.rmtree(DIST, ignore_errors=True)
    env = os.environ | {"SOURCE_DATE_EPOCH": time}
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(source), env=env)
    files = sorted(DIST.iterdir())
    if sorted(file.suffix for file in files) != [".gz", ".whl"]:
        raise Failed(f"dist/ holds {[file.name for file in files]}")
    say(f"built: {', '.join(f'{file.name} ({file.stat().st_size:,} bytes)' for file in files)}")
    return files


def contents(wheel: Path) -> dict[str, int]:
    """Package -> its files. Raises Failed where a package or a data file of the tree is missing, or there is more."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    wanted = set(shipped(ROOT))
    missing, more = sorted(wanted - set(names)), sorted(set(names) - wanted)
    if missing or more:
        raise Failed(f"the wheel lacks {missing[:5]} and has besides {more[:5]}")
    tops = [name.split("/")[0] for name in names]
    return {name: tops.count(name) for name in sorted(set(tops))}


def shipped(root: Path) -> Iterable[str]:
    """Every file of git's below a package, with the endings that pyproject.toml ships, and the pages, by their names in
    the wheel."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    endings = {pattern.lstrip("*") for pattern in settings["package-data"]["*"]} | {".py"}
    tracked = run("git", "ls-files", cwd=root).splitlines()
    for where in settings["packages"]["find"]["where"]:
        top = "" if where == "." else f"{where}/"
        for file in tracked:
            name = file.removeprefix(top)
            if file.startswith(f"{top}bertkit") and "/" in name and name.endswith(tuple(endings)):
                yield name
    for file in tracked:  # setup.py copies them
        if file.startswith("docs/") and file.endswith(".md"):
            yield f"bertkit/cli/documents/{file.removeprefix('docs/')}"


# ---- trying ----


def with_torch(version: str, wanted: str) -> bool:
    return wanted == "all" or version in wanted.split(",")


def find_python(version: str) -> str | None:
    found = [shutil.which(f"python{version}")]
    for place in PLACES:
        pattern = Path(place.format(version)).expanduser()
        found += [str(path) for path in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))]
    for path in filter(None, found):
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # a shim may be empty
        if asked.stdout.startswith(f"Python {version}."):
            return path
    return None


def try_out(version: str, wheel: Path, torch: bool, scratch: Path) -> None:
    """Install into a new environment, and run the command there in an empty folder."""
    python = find_python(version)
    if python is None:
        say(f"Python {version}: skipped, it is not here")
        return
    run(python, "-m", "venv", str(scratch))
    own = str(scratch / "bin" / "python")
    pip = (own, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-c", str(ROOT / "constraints.txt"))
    run(*pip, "--no-deps", str(wheel))
    run(*pip, *(need for need in requirements(wheel) if torch or not need.startswith("torch")))
    empty = scratch / "empty"
    empty.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BERTKIT_"))}
    env |= {"BERTKIT_CACHE": str(scratch / "cache")}
    command = str(scratch / "bin" / "bertkit")
    shown = run(command, "--version", cwd=empty, env=env).strip()
    if wheel.name.split("-")[1] not in shown:
        raise Failed(f"Python {version}: bertkit --version says {shown!r}")
    backends = ready(json.loads(run(command, "backends", "--json", cwd=empty, env=env)))
    if not {"null", *(("cpu",) if torch else ())} <= set(backends):
        raise Failed(f"Python {version}: only {backends} are ready")
    if torch:
        run(command, "data", "get", "sample", cwd=empty, env=env)
        run(command, "train", "--recipe", "demo", "--set", "train.steps=3", "-o", "run", "-q", cwd=empty, env=env)
    tried = "trained 3 updates" if torch else "without torch"
    say(f"Python {version}: {shown}; {tried}; ready: {', '.join(backends)}")


def requirements(wheel: Path) -> list[str]:
    """What the wheel needs, extras apart."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [need for need in needs if not re.search(r";.*\bextra\b", need)]


def ready(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(str(one["name"]) for one in backends if one["ready"])


# ---- weaknesses, sums ----


def audit() -> None:
    """Ask for known weaknesses of what constraints.txt pins. Raises Failed where there are some."""
    argv = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-f", "json", "-r", "constraints.txt"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    try:
        say(audited(json.loads(done.stdout)["dependencies"]))
    except (ValueError, KeyError):
        say(f"pip-audit: skipped, it gave no report: {' '.join(done.stderr.split()[-20:])}")


def audited(found: Sequence[Mapping[str, Any]]) -> str:
    """In words what pip-audit found. Raises Failed where there are weaknesses."""
    weak = [f"{one['name']} {one['version']}: {weakness['id']}" for one in found for weakness in one.get("vulns", ())]
    if weak:
        raise Failed(f"known weaknesses: {', '.join(weak)}")
    unknown = [str(one["name"]) for one in found if "skip_reason" in one]
    if len(unknown) == len(found):
        return f"pip-audit: skipped, the source of advisories has none of the {len(found)} packages, or is out of reach"
    return f"pip-audit: {len(found) - len(unknown)} packages without a known weakness, not asked about: {unknown or 0}"


def write_sums(files: Iterable[Path]) -> Path:
    """As `sha256sum --check` reads them."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (DIST / SUMS).write_text("".join(lines), encoding="ascii")
    return DIST / SUMS


if __name__ == "__main__":
    raise SystemExit(main())
