"""Files of ours that are read again and believed: each carries a hash of its own content, so no damage goes unseen.

A sealed JSON file ends with `"seal"`, the SHA-256 of the same text without that line: of its bytes, so that not one bit
of it can change. A sealed safetensors file has in its metadata the SHA-256 of all that is read of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, to_json, write_arrays, write_text
from bertkit.files.inputs import DATA_BYTES, kind, parse_json, read_bytes

SEAL = "sha256"  # its name in a safetensors file's metadata
_LAST = re.compile(rb',\n "seal": "([0-9a-f]{64})"\n}\n\Z')
_DAMAGED = "it is damaged; copy it again or remove it"


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object, of at least one value, and its seal."""
    text = to_json(values, indent=1)
    write_text(path, f'{text.removesuffix(chr(10) + "}")},\n "seal": "{_of(text.encode())}"\n}}\n')


def read_sealed(path: Path, cure: str = "remove it") -> dict[str, Any]:
    """What `write_sealed` wrote. Raises UserError where a single bit of it is another, or where it has no seal."""
    raw = read_bytes(path, cure, DATA_BYTES)
    found = _LAST.search(raw)
    if found is None:
        raise UserError(f"{path}: has no seal: it is cut off, or of an earlier bertkit", cure)
    text = raw[: found.start()] + b"\n}"
    if found[1] != _of(text).encode():
        raise UserError(f"{path}: does not match its seal", _DAMAGED)
    value = parse_json(text, path, cure, half_pairs=True)
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {kind(value)}, not a JSON object", cure)
    return value


def write_sealed_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """A safetensors file and its seal."""
    write_arrays(path, arrays, {**metadata, SEAL: _of_arrays(arrays, metadata)})


def read_sealed_arrays(path: Path, needed: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As `read_arrays`. Raises UserError too where the seal is not of what was read; and, if `needed`, without one."""
    arrays, metadata = read_arrays(path)
    if SEAL not in metadata and not needed:
        return arrays, metadata
    rest = {name: value for name, value in metadata.items() if name != SEAL}
    if metadata.get(SEAL) != _of_arrays(arrays, rest):
        raise UserError(f"{path}: does not match its seal" if SEAL in metadata else f"{path}: has no seal", _DAMAGED)
    return arrays, rest


def _of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _of_arrays(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    total = hashlib.sha256(to_json(dict(sorted(metadata.items()))).encode())
    for name, array in sorted(arrays.items()):
        total.update(to_json([name, array.dtype.newbyteorder("<").str, list(array.shape)]).encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()
