"""Other versions of torch, for tests: the usual wheel beside stand-ins of NVIDIA's libraries, so that a CPU runs it.

    python tests/older_torch.py 2.6.0 /folder    and then    PYTHONPATH=/folder python -m pytest …

For Linux on x86-64 older versions are there as CUDA builds alone, whose libraries are gigabytes that no test on a CPU
calls. A stand-in has the names and versions that the loader asks for; each function returns an error. The CUDA
runtime, which torch does call to count devices, is the real one: it is small.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

RUNTIME, TOOLKIT = "nvidia-cuda-runtime", "cuda-toolkit"
OF_SYSTEM = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so|ld-linux")
NO_DEVICE = 100  # cudaErrorNoDevice
FUNCTION = ".globl {0}\n.type {0},@function\n{0}:\n mov ${1},%eax\n ret\n"


@dataclass
class Wanted:
    """What torch's libraries want of one that is not here."""

    versions: set[str] = field(default_factory=set)
    functions: dict[str, str] = field(default_factory=dict)  # -> its version, "" for none


def install(version: str, folder: Path) -> None:
    """Put this torch into `folder`, which is to be on the path before others. Raises OSError, CalledProcessError."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        _unpack(_download(f"torch=={version}", Path(name)), folder)
    libraries = folder / "torch" / "lib"
    runtime = _required(next(folder.glob("torch-*.dist-info/METADATA")).read_text(encoding="utf-8"))
    if runtime is None:  # a CPU build
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        _unpack(_download(runtime, Path(name)), Path(name))
        for file in Path(name).rglob("libcudart.so.*"):
            shutil.move(file, libraries / file.name)
    write_stand_ins(libraries)


def _required(metadata: str) -> str | None:
    """The CUDA runtime that a torch of this metadata requires; since CUDA 13 another wheel's metadata names it."""
    found = re.search(rf"Requires-Dist: ({RUNTIME}[\w-]*) ?\(?(==[\w.*]+)", metadata)
    if found:
        return found[1] + found[2]
    toolkit = re.search(rf"Requires-Dist: ({TOOLKIT})\[.*\](==[\d.]+)", metadata)
    if toolkit is None:
        return None
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(_download(toolkit[1] + toolkit[2], Path(name))) as file:
        metadata = next(each for each in file.namelist() if each.endswith(".dist-info/METADATA"))
        return _required(file.read(metadata).decode())


def _download(requirement: str, folder: Path) -> Path:
    words = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement)
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()


def write_stand_ins(folder: Path) -> None:
    """A library for each that those in `folder` want and that is neither there nor the system's."""
    for name, wanted in lacking(folder).items():
        source, script = folder / "stand-in.s", folder / "stand-in.map"
        source.write_text(".text\n" + "".join(FUNCTION.format(each, NO_DEVICE) for each in sorted(wanted.functions)))
        by_version: dict[str, list[str]] = {version: [] for version in wanted.versions}
        for each, version in wanted.functions.items():
            if version:
                by_version.setdefault(version, []).append(each)
        script.write_text(
            "".join(f"{one} {{ global: {''.join(f'{e}; ' for e in of)}}};\n" for one, of in by_version.items())
        )
        scripted = [f"-Wl,--version-script={script}"] if by_version else []
        words = ["gcc", "-shared", "-nostdlib", "-o", folder / name, f"-Wl,-soname,{name}", source, *scripted]
        subprocess.run(words, check=True, capture_output=True)
        source.unlink()
        script.unlink()


def lacking(folder: Path) -> dict[str, Wanted]:
    """What the libraries in `folder` want of others, by their names."""
    libraries = sorted(folder.glob("lib*.so*"))
    here = {path.name for path in libraries}
    found: dict[str, Wanted] = {}
    undefined: dict[str, str] = {}  # function -> version
    defined: set[str] = set()
    for path in libraries:
        for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", _readelf("-dW", path)):
            if name not in here and not OF_SYSTEM.match(name):
                found.setdefault(name, Wanted())
        for name, body in re.findall(r"File: (\S+)  Cnt: \d+\n((?:\s+0x.*Name:.*\n)+)", _readelf("-VW", path)):
            if name not in here and not OF_SYSTEM.match(name):
                found.setdefault(name, Wanted()).versions.update(re.findall(r"Name: (\S+)", body))
        for line in _readelf("--dyn-syms", "-W", path).splitlines():
            words = line.split()
            if len(words) >= 8 and words[0].endswith(":"):
                name, _, version = words[7].partition("@")
                if words[6] == "UND":
                    undefined[name] = undefined.get(name) or version.lstrip("@")
                else:
                    defined.add(name)
    _share_out(undefined, defined, found)
    return found


def _share_out(undefined: dict[str, str], defined: Iterable[str], found: dict[str, Wanted]) -> None:
    """Each function to the library that has its version, else to the one that is called as it begins."""
    owners = {version: name for name, wanted in found.items() for version in wanted.versions}
    for name, version in undefined.items():
        owner = owners.get(version)
        if not version and name not in defined:
            lower = name.lower()
            stems = {one: one.removeprefix("lib").partition(".")[0].partition("_")[0].lower() for one in found}
            fitting = [one for one, stem in stems.items() if lower.startswith(stem)]
            owner = max(fitting, key=lambda one: len(stems[one]), default=None)
        if owner:
            found[owner].functions[name] = version


def _readelf(*words: str | Path) -> str:
    return subprocess.run(["readelf", *words], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    install(sys.argv[1], target)
