"""`make image`: gather what an image is made of, then build it with docker, podman or buildah, whichever is there.

    python containers/image.py cpu --base docker.io/library/python:3.12-slim-bookworm@sha256:…

Gathering needs a package index; the build itself needs none. Everything lies in build/container, which is the whole of
what the build sees beside this folder. Needs Python and pip alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GATHERED = ROOT / "build" / "container"
ENGINES = ("docker", "podman", "buildah")
OWN_TORCH = ("cpu", "cuda")  # targets whose torch is a wheel
VENDORS = ("gaudi", "iluvatar", "xpu")  # targets whose torch is the base's
TARGETS = (*OWN_TORCH, "serve", "dev", *VENDORS)
EXTRAS = {"serve": "serve", "dev": "dev"}
USUAL_EXTRAS = "mpi,serve"
PINNED = re.compile(r"[^@\s]+:[\w.-]+@sha256:[0-9a-f]{64}")
LOCAL = "localhost/"  # images made on this machine have no digest of a registry
USUAL_BASE = "docker.io/library/python:3.12-slim-bookworm"


class Refused(Exception):
    """What the caller has to correct, in one line."""


@dataclass(frozen=True)
class Asked:
    """An image that is to be made."""

    target: str
    base: str
    python: str  # of the base, as 3.12
    extras: str
    torch: str  # "cpu", "cuda": a wheel; "base": the base has one
    engine: str = ""
    source: str = ""  # address of the sources, for the label
    lock: Path | None = None  # hashes that the wheels must have


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--base", default="", help="name:tag@sha256:digest of the image to start from")
    parser.add_argument("--python", default="3.12", help="version of the base's Python")
    parser.add_argument("--extras", default="", help=f"extras of bertkit; default: {USUAL_EXTRAS}, serve for serve")
    parser.add_argument(
        "--torch",
        choices=(*OWN_TORCH, "base"),
        help="wheel, or the base's own; default: the target's, for serve and dev cpu",
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: the first of these that is installed")
    parser.add_argument("--source", default="", help="address of the sources, for the label")
    parser.add_argument("--lock", type=Path, help="requirements.txt of an earlier build, whose hashes must be met")
    parser.add_argument("--only-gather", action="store_true", help="build nothing")
    given = parser.parse_args(words)
    try:
        asked = Asked(
            target=given.target,
            base=given.base,
            python=given.python,
            extras=given.extras or EXTRAS.get(given.target, USUAL_EXTRAS),
            torch=torch_of(given.target, given.torch),
            engine=given.engine or "",
            source=given.source,
            lock=given.lock,
        )
        engine = "" if given.only_gather else find_engine(asked.engine)
        if engine:
            check_base(asked.base, asked.target)
        gather(asked)
        if engine:
            build(asked, engine)
    except Refused as error:
        print(f"image: {error}", file=sys.stderr)
        return 2
    return 0


def torch_of(target: str, given: str | None) -> str:
    """A vendor's image of its own for the targets cpu and cuda has a torch, too."""
    usual = "base" if target in VENDORS else target if target in OWN_TORCH else "cpu"
    if given and given not in (usual, "base") and target in (*OWN_TORCH, *VENDORS):
        raise Refused(f"--torch {given} with the target {target}, whose torch is {usual}; drop --torch")
    return given or usual


def check_base(base: str, target: str) -> None:
    """Raises Refused for a base that may be another one tomorrow."""
    if base.startswith(LOCAL) or PINNED.fullmatch(base):
        return
    usual = "the vendor's image" if target in VENDORS else f"{USUAL_BASE}, for example"
    if not base:
        raise Refused(f"no base; give BASE=name:tag@sha256:digest of {usual}; containers/README.md says how to find it")
    raise Refused(f"the base {base} has no digest; write it as name:tag@sha256:digest (containers/README.md)")


# ---- gathering ----


def gather(asked: Asked) -> None:
    """Into build/container: wheels with their hashes, pip's own wheel, bertkit's wheel."""
    shutil.rmtree(GATHERED, ignore_errors=True)
    wheels = GATHERED / "wheels"
    wheels.mkdir(parents=True)
    wanted = requirements(asked.extras.split(","), asked.torch != "base")
    pip("download", "--dest", GATHERED / "tools", "--no-deps", f"pip=={version('pip')}")
    for_python = () if asked.python == this_python() else ("--python-version", asked.python)
    pip("download", "--dest", wheels, "--only-binary=:all:", *for_python, "-c", ROOT / "constraints.txt", *wanted)
    found = sorted(wheels.glob("*.whl"))
    if asked.torch == "base":
        found = drop_torch(found)
    else:
        check_torch([path.name for path in found], asked.torch)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    if asked.lock:
        check_lock(hashes, asked.lock.read_text(encoding="utf-8"))
    (GATHERED / "requirements.txt").write_text(locked(hashes), encoding="utf-8")
    sums = "".join(f"{digest}  wheels/{name}\n" for name, digest in hashes.items())
    (GATHERED / "SHA256SUMS").write_text(sums, encoding="utf-8")
    (GATHERED / "names.txt").write_text("\n".join(wanted) + "\n", encoding="utf-8")
    own_wheel(GATHERED / "bertkit")


def pip(*words: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", *map(str, words)]
    if subprocess.run(command, check=False).returncode:
        raise Refused(f"pip {words[0]} failed; its message is above")


def this_python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def requirements(extras: Iterable[str], with_torch: bool) -> list[str]:
    """What bertkit and its extras need, as pyproject.toml says. Raises Refused for an extra that there is not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    if unknown := [name for name in extras if name and name not in known]:
        raise Refused(f"bertkit has no extra {unknown[0]}; it has {', '.join(sorted(known))}")
    wanted = [*project["dependencies"], *(one for name in extras if name for one in known[name])]
    return [one for one in dict.fromkeys(wanted) if with_torch or not re.match(r"torch\b(?!-)", one)]


def drop_torch(wheels: Sequence[Path]) -> list[Path]:
    """Beside a vendor's torch none may lie, nor a GPU library that came with it."""
    kept = []
    for path in wheels:
        if re.match(r"(torch|nvidia_\w+|triton)-", path.name):
            path.unlink()
        else:
            kept.append(path)
    return kept


def check_torch(names: Sequence[str], kind: str) -> None:
    """Raises Refused where pip took another build of torch than the target is for."""
    has_cuda = any(name.startswith("nvidia_") for name in names)
    if kind == "cpu" and has_cuda:
        raise Refused("pip took a CUDA build of torch; point it at the CPU build with PIP_FIND_LINKS (README.md)")
    if kind == "cuda" and not has_cuda:
        raise Refused("pip took a torch without CUDA; unset PIP_FIND_LINKS, or point it at a CUDA build")


def name_and_version(wheel: str) -> tuple[str, str]:
    name, number = wheel.split("-")[:2]
    return name.replace("_", "-").lower(), number


def locked(hashes: Mapping[str, str]) -> str:
    """requirements.txt for `pip install --require-hashes`."""
    lines = [f"{'=='.join(name_and_version(name))} --hash=sha256:{digest}\n" for name, digest in hashes.items()]
    return "".join(sorted(lines))


def check_lock(hashes: Mapping[str, str], lock: str) -> None:
    """Raises Refused for a wheel that an earlier build did not have."""
    known = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    if other := sorted(name for name, digest in hashes.items() if digest not in known):
        raise Refused(f"{other[0]} is not the file of the lock ({len(other)} such); renew the lock if that is wanted")


def own_wheel(folder: Path) -> None:
    """bertkit's wheel, built from a copy: setuptools would take in what an earlier build left in build/."""
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / "source"
        skipped = shutil.ignore_patterns(".*", "build", "runs", "data", "models", "tests", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=lambda at, names: skipped(at, names) if Path(at) == ROOT else set())
        pip("wheel", "--no-deps", "--wheel-dir", folder, copy)


# ---- building ----


def find_engine(asked: str) -> str:
    found = next((name for name in ([asked] if asked else ENGINES) if shutil.which(name)), "")
    if not found:
        raise Refused(f"no {asked or 'docker, podman or buildah'} on this machine; install one")
    return found


def build(asked: Asked, engine: str) -> None:
    epoch = git("log", "-1", "--format=%ct") or "0"
    tags = (f"bertkit:{own_version()}-{asked.target}", f"bertkit:{asked.target}")
    command = build_command(asked, engine, epoch, labels(asked, epoch), tags)
    print(" ".join(command))
    if subprocess.run(command, cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}, check=False).returncode:
        raise Refused(f"{engine} build failed; its message is above")
    print(f"made {' and '.join(tags)}")


def build_command(
    asked: Asked, engine: str, epoch: str, labels: Mapping[str, str], tags: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """`options`: the engine's own, for `build`."""
    words = [engine, "build", *options]
    if engine == "docker":
        words += ["--build-arg", f"SOURCE_DATE_EPOCH={epoch}"]
    else:  # OCI's format has no health check
        words += ["--format", "docker", "--timestamp", epoch]
    words += ["--build-arg", f"BASE={asked.base}", "--target", asked.target, "-f", "containers/Containerfile"]
    words += [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    return [*words, *(word for tag in tags for word in ("-t", tag)), "."]


def labels(asked: Asked, epoch: str) -> dict[str, str]:
    """OCI's labels that change from build to build; those that do not are in the Containerfile."""
    name, _, digest = asked.base.partition("@")
    revision = git("rev-parse", "HEAD")
    if revision and git("status", "--porcelain"):
        revision += "-dirty"
    created = subprocess.run(["date", "-u", "-d", f"@{epoch}", "+%FT%TZ"], capture_output=True, text=True, check=False)
    said = {
        "version": own_version(),
        "revision": revision,
        "created": created.stdout.strip(),
        "source": asked.source,
        "base.name": name,
        "base.digest": digest,
    }
    return {f"org.opencontainers.image.{key}": value for key, value in said.items() if value}


def own_version() -> str:
    text = (ROOT / "bertkit" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    return json.loads(f'"{found[1]}"') if found else "0"


def git(*words: str) -> str:
    """What git prints; nothing where this is no checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
