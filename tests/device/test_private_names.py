"""What torch has no promise about and is called all the same: it is in every minor version from the oldest allowed on.

The names are looked up in the wheels' own declarations, of which a few megabytes are fetched; nothing is installed.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from conftest import ROOT

USED = re.compile(r"torch\.(_[a-z]\w*(?:\.\w+)*|ops\.\w+\.\w+)")
VERSIONS = ("2.6.0", "2.7.1", "2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.14.1")  # and the one that is installed
FUNCTIONS, OPERATORS = "torch/_C/_VariableFunctions.pyi", "torchgen/packaged/ATen/native/native_functions.yaml"
INDUCTOR = (  # which call oneDNN's operators; no wheel declares those
    "torch/_inductor/mkldnn_ir.py", "torch/_inductor/fx_passes/mkldnn_fusion.py", "torch/_inductor/utils.py",
    "torch/_meta_registrations.py",
)  # fmt: skip


TRIED = {"ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32"}  # declared in C++ alone; `short_works` tries it


def names_used() -> list[str]:
    """Of comments and texts, too: those are to be true as well."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "backends").rglob("*.py")]
    return sorted({name for text in sources for name in USED.findall(text)})


class Remote(io.RawIOBase):
    """A file on a server, of which only what is read is fetched."""

    def __init__(self, url: str) -> None:
        self.url, self.place = url, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
            self.size = int(answer.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self.place >= self.size:
            return 0
        asked = urllib.request.Request(self.url)
        asked.add_header("Range", f"bytes={self.place}-{min(self.size, self.place + len(view)) - 1}")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            found = answer.read(len(view))
        view[: len(found)] = found
        self.place += len(found)
        return len(found)


def address(version: str) -> str:
    """Where pip would fetch this torch from."""
    words = "install --dry-run --ignore-installed --no-deps --quiet --report -"
    command = [sys.executable, "-m", "pip", *words.split(), f"torch=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return str(json.loads(done.stdout)["install"][0]["download_info"]["url"])


def opened(url: str) -> IO[bytes]:
    if url.startswith("file:"):
        return Path(url.removeprefix("file://")).open("rb")
    return io.BufferedReader(Remote(url), 1 << 16)


class Declared:
    """A wheel's declarations."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive, self.names, self.texts = archive, set(archive.namelist()), dict[str, str]()

    def text(self, name: str) -> str:
        if name not in self.texts:
            self.texts[name] = self.archive.read(name).decode() if name in self.names else ""
        return self.texts[name]

    def has(self, name: str) -> bool:
        parts = name.split(".")
        if parts[:2] == ["ops", "aten"]:
            return f"- func: {parts[2]}(" in self.text(OPERATORS) or f"- func: {parts[2]}." in self.text(OPERATORS)
        if parts[0] == "ops":
            return any(parts[2] in self.text(file) for file in INDUCTOR)
        for depth in range(len(parts), 0, -1):  # the longest module, then what it defines
            path = "torch/" + "/".join(parts[:depth])
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if file in self.names:
                    return not parts[depth:] or re.search(rf"\b{parts[depth]}\b", self.text(file)) is not None
        return f"def {parts[0]}(" in self.text(FUNCTIONS)


def test_the_names_are_found_in_the_sources() -> None:
    found = names_used()
    assert {"_foreach_mul_", "_softmax_backward_data", "ops.aten._flash_attention_forward"} <= set(found)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_private_name_is_in_the_wheel(version: str) -> None:
    try:
        with opened(address(version)) as file, zipfile.ZipFile(file) as archive:
            declared = Declared(archive)
            missing = [name for name in names_used() if name not in TRIED and not declared.has(name)]
    except (subprocess.SubprocessError, urllib.error.URLError, KeyError) as error:
        pytest.skip(f"torch {version} is not to be had: {error}")
    assert not missing
