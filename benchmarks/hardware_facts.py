"""What this host is, for whoever reads the figures: `on_hardware.py` calls it.

    python benchmarks/hardware_facts.py cpu -o facts.json --tools tools/

Versions of all packages, CPU, memory, environment variables under the backend's own prefixes, and what tools of the
system and of vendors print (programs on PATH whose names end in `smi`). No secrets: a variable whose name sounds like
one has no value here, and what stands before an @ in an address is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bertkit.engine.registry import find
from bertkit.files.processes import die_with_parent
from bertkit.records import collect, host

ALWAYS = ("BERTKIT_", "OMP_", "MKL_", "KMP_", "PYTORCH_", "TORCH", "MALLOC_", "LD_PRELOAD", "PYTHONPATH")
SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|COOKIE|SESSION", re.IGNORECASE)
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
HIDDEN = "(not shown)"
VENDOR_TOOL = re.compile(r"[\w-]*smi")
WAYS = ((), ("-q",), ("discovery",), ("info",))  # of asking a vendor's tool for everything: each knows some of them
SYSTEM_TOOLS = (("lscpu",), ("lspci", "-nn"), ("numactl", "-H"), ("free", "-b"), ("uname", "-a"))
SECONDS = 15.0  # for each; a driver in trouble lets its tool hang
MOST = 2_000_000  # characters of what one prints


def variables(env: Mapping[str, str], prefixes: Iterable[str]) -> dict[str, str]:
    """Environment variables with these beginnings, without secrets."""
    wanted = (*prefixes, *ALWAYS)
    return {
        name: HIDDEN if SECRET.search(name) else IN_ADDRESS.sub(f"{HIDDEN}@", value)
        for name, value in sorted(env.items())
        if name.startswith(wanted)
    }


def packages() -> dict[str, str]:
    """Every installed distribution and its version."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda entry: entry[0].lower()))


def vendor_tools(path: str) -> Iterator[Path]:
    """Programs on PATH that are a vendor's tool by their names; the first of each name."""
    seen: set[str] = set()
    for folder in map(Path, path.split(os.pathsep)):
        try:
            files = sorted(folder.iterdir()) if str(folder) != "." else []
        except OSError:
            continue
        for file in files:
            if VENDOR_TOOL.fullmatch(file.name) and file.name not in seen and os.access(file, os.X_OK):
                seen.add(file.name)
                yield file


def ask(command: Sequence[str], target: Path) -> str:
    """What became of the tool, in words; what it printed is in `target`. Never raises for what a tool does."""
    try:
        with target.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
            )
    except OSError as error:
        target.unlink(missing_ok=True)
        return str(error.strerror)
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: one that hangs in its driver does not end either
        return f"did not end within {SECONDS:g} s"
    if target.stat().st_size > MOST:
        os.truncate(target, MOST)
    return "ended well" if code == 0 else f"exit code {code}"


def ask_all(folder: Path, path: str) -> dict[str, str]:
    """Command -> what became of it."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = [(str(tool), *way) for tool in vendor_tools(path) for way in WAYS]
    found: dict[str, str] = {}
    hung: set[str] = set()
    for command in (*SYSTEM_TOOLS, *commands):
        name = " ".join([Path(command[0]).name, *command[1:]])
        if command[0] in hung:
            found[name] = "not tried: it hung before"
            continue
        found[name] = ask(command, folder / f"{name.replace(' ', '_')}.txt")
        if found[name].startswith("did not end"):
            hung.add(command[0])
    return found


def facts(name: str, tools: Path) -> dict[str, Any]:
    backend = find(name)
    return {
        "backend": backend.name,
        "python": sys.version,
        "executable": sys.executable,
        "versions": collect.versions(),
        "git": collect.git_state(Path(collect.__file__).resolve().parents[1]),
        "packages": packages(),
        "machine": host.box(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "environment": variables(os.environ, backend.capabilities.environment),
        "tools": ask_all(tools, os.environ.get("PATH", os.defpath)),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write down what this host is.")
    parser.add_argument("backend")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--tools", type=Path, required=True, help="Folder for what tools print.")
    asked = parser.parse_args(words)
    found = facts(asked.backend, asked.tools)
    asked.output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for command, became in found["tools"].items():
        print(f"{command}: {became}")


if __name__ == "__main__":
    main()
