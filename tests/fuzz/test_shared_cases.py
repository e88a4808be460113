"""The damaged files that others found, in a folder beside the project: each in one line, or as it was.

BERTKIT_TEST_CASES names the folder, else it is `../shared/cases` beside the checkout; without it these are skipped.
A file `fuzz/KIND/NAME` is what a reader of that kind was given.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzz import readers as r
from fuzz.harness import Reader, digest, judge

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(os.environ.get("BERTKIT_TEST_CASES") or ROOT.parent / "shared" / "cases") / "fuzz"
NONE = f"no cases in {CASES}: set BERTKIT_TEST_CASES"

# what they were found with -> the reader of ours and, where it is another, the name that the file has there
READERS = {
    "binlegacy": "bin legacy", "binpkl": "bin zip", "cache": "features", "ckptjson": "checkpoint manifest",
    "config": "model config.json", "configref": "model config and weights", "hwloc": "hwloc",
    "index": "index safetensors",
    "log": "log", "manifest": "manifest of data", "odds2": "score odds.json", "predmrpc": "predictions mrpc",
    "predstsb": "predictions stsb", "ptpkl": "pt", "safetensors": "safetensors",
    "tokcfg": "model tokenizer_config.json",
    "toml": "recipe", "cli": "recipe", "tsv-mnli": "table mnli", "tsv-sst2": "table sst2", "tsv-stsb": "table stsb",
    "zip": "zip", "crcok-a.tfrecord": "shard tfrecord padded", "crcok-p.tfrecord": "shard tfrecord packed",
    "input-id-2^40": "shard hdf5 padded", "nsp-label-7": "shard hdf5 padded", "sem-a.hdf5": "shard hdf5 padded",
    "sem-d.hdf5": "shard hdf5 dense", "sem-p.hdf5": "shard hdf5 packed", "shard-a.hdf5": "shard hdf5 padded",
    "shard-d.hdf5": "shard hdf5 dense", "shard-p.hdf5": "shard hdf5 packed", "sem-parquet": "shard parquet",
    "shard-part.0.parquet": "shard parquet",
}  # fmt: skip


def _settings(folder: Path) -> Any:
    from bertkit.recipes.resolve import resolve

    word = ast.literal_eval((folder / "word").read_text(encoding="utf-8"))
    return resolve({}, [word], env={}).flat()


def _variables(read: Callable[[dict[str, str]], Any]) -> Callable[[Path], Any]:
    return lambda folder: read(json.loads((folder / "word").read_text(encoding="utf-8")))


def _world(env: dict[str, str]) -> Any:
    from bertkit.distributed.world import from_env

    return from_env(env)


def _hosts(env: dict[str, str]) -> Any:
    from bertkit.launch.hosts import network_of

    return network_of("", 0, "", env)


WORDS = {"set": _settings, "env": _variables(_world), "hosts": _variables(_hosts)}


def _found() -> Iterator[Any]:
    files = sorted(path for path in CASES.rglob("*") if path.is_file()) if CASES.is_dir() else []
    for path in files:
        yield pytest.param(path, id=str(path.relative_to(CASES)))
    if not files:
        yield pytest.param(None, id="none", marks=pytest.mark.skip(reason=NONE))


@pytest.mark.parametrize("path", _found())
def test_a_damaged_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = path.relative_to(CASES).parts[0]
    folder = tmp_path / "case"
    if kind in WORDS:
        reader = Reader(kind, lambda folder: None, "word", WORDS[kind])
        folder.mkdir()
        usual = ""
    else:
        assert kind in READERS, f"no reader is known for {kind}"
        reader = r.READERS[READERS[kind]]
        folder.mkdir()
        reader.make(folder)
        usual = digest(reader.read(folder))
        shutil.rmtree(folder)
        folder.mkdir()
        reader.make(folder)
    if path.suffix == ".toml":  # a run with a NUL in a path: refused before anything is made
        monkeypatch.chdir(tmp_path)
    shutil.copyfile(path, folder / reader.file)
    found = judge(reader, folder, usual)
    assert not found.is_fault, f"{found.kind}: {found.detail}"
