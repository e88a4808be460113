"""Every line of the reference systems' documents: what `migrate` makes of it is run to its end in an empty folder.

Published models and data are tiny stand-ins under their names, on loopback; the user's own files are made here. What
is changed of a command, so that this machine runs it in seconds, is in `startable` and `shortened` alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertkit.cli.migration.translate import migrate
from bertkit.model.config import Head
from bertkit.model.parameters import initial
from command import record
from conftest import ROOT, assert_one_line_error, command_env
from model_server import (
    CONFIG,
    GOOGLE,
    ModelServer,
    glue_files,
    google_files,
    hub_files,
    mrpc_files,
    own_table,
    serving,
    squad_files,
    zipped,
)
from pretraining_files import known_sequences, write_hdf5, write_tfrecord

REFERENCE = ROOT / "tests" / "golden" / "migrate"
HUB = (
    "google-bert/bert-base-uncased", "google-bert/bert-large-uncased",
    "google-bert/bert-large-uncased-whole-word-masking",
)  # fmt: skip
ARCHIVES = ("uncased_L-12_H-768_A-12", "uncased_L-24_H-1024_A-16")
PRESENT = {"cuda": "cpu", "iluvatar": "cpu", "gaudi": "gaudi", "cpu": "cpu"}  # whose chip stands for whose
SHORT = {"train.steps": "2", "train.micro_batch_size": "2", "schedule.warmup_steps": "1", "device.threads": "1"}
# Where the lines have files of the user's: the folder that stands for each in `own`, or in the empty folder ("").
PLACES = {
    "/workspace/bert": "workspace", "/path/to/bert/dataset": "mlperf", "$DATA": "mlperf", "$BERT_LARGE_DIR": "google",
    "$BERT_BASE_DIR": "google", "$SQUAD_DIR": "squad", "$GLUE_DIR": "glue", "$PRETRAINING_DATA_DIR": "records",
    "DIR/source": "text", "V": "google/vocab.txt", "/results": "", "/tmp": "",  # noqa: S108 - names in the lines
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """A command as this machine can start it."""

    words: tuple[str, ...]  # after `bertkit`
    env: tuple[tuple[str, str], ...] = ()

    @property
    def trains(self) -> bool:
        return "train" in self.words and not {"-h", "--slurm"} & {*self.words}


def startable(words: Sequence[str]) -> list[tuple[str, ...]]:
    """The command, or the two that stand for it, as this machine can start them.

    A launch of eight has two processes, and one for SQuAD, whose rows are long. Where Slurm is to start them, its
    script is written and the command is then started here as one process. Of a suite, whose whole models take minutes
    a cell on a CPU, the cells of one sequence are run by the backend that computes nothing.
    """
    if words[0] == "bench":
        made = _changed(words, {"-n": {"8": "2"}, "--backend": {"cuda": "null"}})
        return [(*made, "-b", "1", "--steps", "2")]
    if words[0] != "launch":
        return [tuple(shortened(words))]
    words = words if "--slurm" in words else _outside(words)
    start = words.index("--") + 1
    inner = shortened(words[start:])
    launch = [*words[:start], *inner]
    if "--slurm" in words:
        return [tuple(launch), tuple(inner)]
    few = "1" if any("squad" in word for word in inner) else "2"
    return [(*_changed(words[:start], {"-n": {"8": few}}), *inner)]


def _outside(words: Sequence[str]) -> list[str]:
    """Without the container, which this machine does not start."""
    kept = list(words)
    for option in ("--container", "--mount", "--shm-size"):
        while option in kept[: kept.index("--")]:
            at = kept.index(option)
            del kept[at : at + 2]
    return kept


def shortened(words: Sequence[str]) -> list[str]:
    """A training run of two updates of few rows. NVIDIA's and Iluvatar's cards are the CPU, and fp16, which it has
    not, is bf16. A pre-training of `large`, which starts at random in its full size, is one of `tiny`. NCCL is
    left out."""
    if words[0] not in ("train", "evaluate") or "-h" in words:
        return list(words)
    changes = {"--backend": PRESENT, "-d": {"fp16": "bf16"}}
    made = _changed(words, changes | ({"-m": {"large": "tiny"}} if "pretrain" in words else {}))
    if "device.dist_backend=nccl" in made:
        where = made.index("device.dist_backend=nccl")
        del made[where - 1 : where + 1]
    if words[0] == "evaluate":
        return made
    if "--backend" not in made:
        made += ["--backend", "cpu"]
    if "cuda" in words and "-d" not in words:  # the recipe's precision
        made += ["-d", "bf16"]
    if "pretrain" in words:
        made[made.index("-b") + 1] = "4"
    kept = SHORT if "pretrain" in words else {"train.steps": "2"}
    named = {word.partition("=")[0] for word in made}
    made = [f"{key}={kept[key]}" if (key := word.partition("=")[0]) in kept else word for word in made]
    return made if "train.steps" in named else [*made, "--set", "train.steps=2"]


def _changed(words: Sequence[str], changes: dict[str, dict[str, str]]) -> list[str]:
    """With another value of the options named, where theirs is among those to change."""
    pairs = zip(["", *words], words, strict=False)
    return [changes.get(option, {}).get(word, word) for option, word in pairs]


def starts(old: str) -> tuple[Start, ...]:
    """What is run for an old line; an export, which `launch` reads, is of the shell."""
    return tuple(
        Start(words, command.env)
        for command in migrate(old).commands
        if command.words[0] == "bertkit"
        for words in startable(command.words[1:])
    )


def cases() -> list[Any]:
    """The lines by what is run for them: those that come to the same are one case, which names them all."""
    grouped: dict[tuple[Start, ...], list[str]] = {}
    for path in sorted(REFERENCE.glob("*.json")):
        for number, case in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            if "asked" not in case:  # a line that gives no command, but says what must be added to it
                grouped.setdefault(starts(case["old"]), []).append(f"{path.stem}-{number}")
    return [pytest.param(made, id="+".join(names)) for made, names in grouped.items() if made]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("published")
    with serving() as made:
        made.repositories = dict.fromkeys(HUB, hub_files())
        made.files = mrpc_files() | glue_files() | squad_files(folder) | squad_files(folder, "v2.0")
        made.files |= {f"{GOOGLE}/2018_10_18/{name}.zip": zipped(google_files(), name) for name in ARCHIVES}
        yield made


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, server: ModelServer) -> Path:
    """What somebody who types these lines has: models, tables, shards and text at the places that they name."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("own")
    known = known_sequences(200)
    for name in ("mlperf/2048_shards_uncompressed", "mlperf/eval_set_uncompressed", "prepared"):
        (folder / name).mkdir(parents=True)
        write_hdf5(folder / name / "part_0_of_1.hdf5", known)
    for name in ("workspace", "google", "mlperf"):
        write_files(folder / name, google_files())
    for name, head in (("workspace/bert_large_uncased.pt", "span"), ("mlperf/model.ckpt-28252.apex.pt", "pretraining")):
        arrays = initial(CONFIG, Head(head, 2), 1)
        torch.save({"model": {key: torch.from_numpy(array) for key, array in arrays.items()}}, folder / name)
    write_files(folder / "workspace" / "scripts" / "vocab", {"vocab": google_files()["vocab.txt"]})
    squad = {Path(url).name: content for url, content in server.files.items() if "SQuAD" in url}
    for name in ("squad", "workspace/squad_data"):
        write_files(folder / name, squad)
    names = {"mrpc_dev_ids.tsv": "dev_ids.tsv"}
    write_files(
        folder / "glue" / "MRPC",
        {names.get(Path(url).name, Path(url).name): content for url, content in mrpc_files().items()},
    )
    for name in ("prepared", "records"):  # as `bertkit data prepare` leaves it beside shards
        write_files(folder / name, {"vocab.txt": google_files()["vocab.txt"]})
    write_tfrecord(folder / "records" / "tf_wiki_formatted_slen512.tfrecord", known)
    text = "the plot is good .\nthe cast was flat .\n\nthe music is dull .\nthe pace was bold .\n"
    write_files(folder / "text", {"wiki.txt": text.encode() * 8})
    return folder


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def placed(word: str, own: Path, home: Path) -> str:
    """The word with the place of the test's own for the one that the line names."""
    for name, place in PLACES.items():
        setting, _, path = word.rpartition("=")
        if path == name or path.startswith(f"{name}/"):
            root = str(own / place) if place else str(home)
            return f"{setting}={root}{path.removeprefix(name)}" if setting else root + path.removeprefix(name)
    return word


def environment(home: Path, server: ModelServer, base: dict[str, str]) -> dict[str, str]:
    table = home.parent / "sources.toml"
    table.write_text(own_table(server.files))
    return base | {
        "HF_HUB_OFFLINE": "0", "HF_HOME": str(home.parent / "hub"), "HF_ENDPOINT": server.url,
        "BERTKIT_CACHE": str(home.parent / "cache"), "BERTKIT_MIRROR": server.url, "BERTKIT_SOURCES": str(table),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("commands", cases())
def test_it_runs_to_the_end_and_fetches_once(
    commands: tuple[Start, ...], server: ModelServer, own: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = tmp_path / "empty"
    home.mkdir()
    if any("pretrain" in start.words or "inspect" in start.words for start in commands):
        for name in ("data", "OUT"):  # where these lines look for the user's shards
            shutil.copytree(own / "prepared", home / name)
    server.answers.clear()
    for start in commands:
        base = command_env(home)
        if "gaudi" in start.words:
            base = request.getfixturevalue("gaudi_env")(lazy=True)
        words = [placed(word, own, home) for word in start.words]
        if "--mpi-sockets" in words and not shutil.which("mpirun"):
            pytest.skip("no mpirun")
        done = subprocess.run(
            [sys.executable, "-m", "bertkit", *words], cwd=home, env=environment(home, server, base) | dict(start.env),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    asked = Counter(one.path for one in server.answers if one.method == "GET" and one.sent and "api/" not in one.path)
    assert not [path for path, times in asked.items() if times > 1]
    made = [record(path.parent) for path in home.rglob("record.json")]
    assert [one["updates"] for one in made] == [2] * sum(start.trains for start in commands)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("bash scripts/run_pretraining.sh", ("data: there is no such file or folder", "`bertkit data prepare`")),
        (
            "bash scripts/run_glue.sh /workspace/bert/checkpoints/<pre-trained_checkpoint>",
            ("the model bert-large-uncased and the data of mrpc are not here", "`bertkit data get mrpc`"),
        ),
    ],
)
def test_without_server_and_files_one_line_names_what_is_missing(
    line: str, missing: tuple[str, ...], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bertkit", *starts(line)[0].words]
    done = subprocess.run(
        command, cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, timeout=120, check=False
    )
    assert_one_line_error(done, *missing)
