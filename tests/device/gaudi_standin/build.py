"""Builds the stand-in's extension once for each (sources, torch, Python, key): half a minute of one core.

python tests/device/gaudi_standin/build.py [HPU|XPU|PrivateUse1]     prints the library's path
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
NAME = "_standin_C.so"
KEYS = ("HPU", "XPU", "PrivateUse1")  # of torch's dispatcher


def compiler() -> str | None:
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("c++")


def cache_folder(key: str) -> Path:
    kept = os.environ.get("BERTKIT_CACHE")
    base = Path(kept) if kept else Path.home() / ".cache" / "bertkit"
    digest = hashlib.sha256(f"{version('torch')} {sys.version} {key}".encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return base / "gaudi-standin" / digest.hexdigest()[:16]


def command(to: Path, key: str) -> list[str]:
    from torch import compiled_with_cxx11_abi  # takes a second, which only a build needs

    found = find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    includes = [torch / "include", torch / "include/torch/csrc/api/include", sysconfig.get_paths()["include"]]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(compiled_with_cxx11_abi())}"  # 0 in builds with CUDA up to torch 2.6
    named = [] if key == "HPU" else [f"-DSTANDIN={key}", f"-DSTANDIN_{key}=1"]
    flags = [*named, "-O1", "-std=c++20", "-shared", "-fPIC", "-w", abi, *(f"-I{path}" for path in includes)]
    libraries = [f"-L{torch / 'lib'}", *"-ltorch -ltorch_cpu -ltorch_python -lc10".split()]
    return [compiler() or "g++", *flags, str(SOURCES / "standin.cpp"), "-o", str(to), *libraries]


def library(key: str = "HPU") -> Path:
    """The path of the built extension; a second process waits for the one that builds."""
    folder = cache_folder(key)
    built = folder / NAME
    if built.is_file():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.is_file():
            half = folder / f"{NAME}.{os.getpid()}"
            done = subprocess.run(command(half, key), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"the stand-in does not build:\n{done.stderr[-4000:]}")
            half.replace(built)
    return built


if __name__ == "__main__":
    print(library(*sys.argv[1:2]))
