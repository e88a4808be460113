"""Every option that takes a path, given what is no file: one line with exit code 2, at once, and nothing half-written.

In this process, so that hundreds of them take seconds; a pipe that nobody writes to would hang it, so an alarm ends it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bertkit.cli.main import main
from made_records import save

SECONDS = 20  # that a command may take to refuse a path


def _closed(folder: Path) -> str:
    (folder / "file").write_text("no folder")
    return str(folder / "file" / "below")


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


def _sparse(folder: Path) -> str:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    return str(folder / "sparse")


def _links(folder: Path) -> str:
    (folder / "round").symlink_to(folder / "about")
    (folder / "about").symlink_to(folder / "round")
    return str(folder / "round")


def _dangling(folder: Path) -> str:
    (folder / "dangling").symlink_to(folder / "nothing")
    return str(folder / "dangling")


def _folder(folder: Path) -> str:
    (folder / "folder").mkdir()
    return str(folder / "folder")


KINDS: dict[str, Callable[[Path], str]] = {
    "folder": _folder,
    "pipe": _pipe,
    "endless device": lambda folder: "/dev/zero",
    "empty device": lambda folder: "/dev/null",
    "long name": lambda folder: str(folder / ("x" * 300)),
    "not UTF-8": lambda folder: os.fsdecode(os.fsencode(str(folder)) + b"/caf\xe9"),
    "below a file": _closed,
    "dangling link": _dangling,
    "circular link": _links,
    "sparse file": _sparse,
    "control characters": lambda folder: str(folder / "a\x1b[31m\nb"),
}
NO_FOLDER = [kind for kind in KINDS if kind != "folder"]  # where a folder is right
# a pipe stands for devices where something is written: a test that is root must not write to those
WRITTEN = ("pipe", "long name", "below a file", "circular link")
TRAIN = ("train", "--backend", "null", "-m", "tiny", "-d", "fp32", "--dry-run")
SAMPLE = (*TRAIN, "-t", "sample", "--data-dir", "DATA")

READ = {
    "--config": (*SAMPLE, "--config", "ODD"),
    "--recipe": (*SAMPLE, "--recipe", "ODD.toml"),
    "-m": (*SAMPLE, "-m", "ODD"),
    "--set model.vocab": (*SAMPLE, "--set", "model.vocab=ODD"),
    "--data-dir": (*TRAIN, "-t", "sample", "--data-dir", "ODD"),
    "--data-dir of tables": (*TRAIN, "-t", "mrpc", "--data-dir", "ODD"),
    "--data-dir of questions": (*TRAIN, "-t", "squad", "--data-dir", "ODD", "-m", "MODEL"),
    "--data-dir of pre-training": (*TRAIN, "-t", "pretrain", "--data-dir", "ODD"),
    "--set data.train_file": (*SAMPLE, "--set", "data.train_file=ODD"),
    "--set data.dev_file": (*SAMPLE, "--set", "data.dev_file=ODD"),
    "--parity-with": (*SAMPLE, "--parity-with", "ODD"),
    "evaluate": ("evaluate", "ODD", "--backend", "null", "-t", "sample", "--data-dir", "DATA"),
    "predict": ("predict", "ODD", "--backend", "null", "-t", "sample", "--file", "DATA/sample/test.tsv", "-o", "out"),
    "predict --file": ("predict", "MODEL", "--backend", "null", "-t", "sample", "--file", "ODD", "-o", "out"),
    "ask": ("ask", "ODD", "--question", "who?", "--context", "he", "--backend", "null"),
    "ask --context-file": ("ask", "MODEL", "--question", "who?", "--context-file", "ODD", "--backend", "null"),
    "score": ("score", "ODD", "-t", "mrpc", "--gold", "DATA/sample/dev.tsv"),
    "score --gold": ("score", "DATA/sample/dev.tsv", "-t", "mrpc", "--gold", "ODD"),
    "score --null-odds": ("score", "SQUAD", "-t", "squad2", "--gold", "SQUAD", "--null-odds", "ODD"),
    "compare": ("compare", "ODD"),
    "compare one": ("compare", "RUN", "ODD", "--parity"),
    "convert": ("convert", "ODD", "out"),
    "convert --config": ("convert", "MODEL", "out", "--config", "ODD"),
    "convert --vocab": ("convert", "MODEL", "out", "--vocab", "ODD"),
    "bench --suite": ("bench", "--suite", "ODD.toml", "--backend", "null", "--dry-run"),
    "bench -m": ("bench", "infer", "-m", "ODD/", "--backend", "null", "--dry-run"),
    "bench --data-dir": ("bench", "infer", "-m", "tiny", "-t", "sample", "--data-dir", "ODD", "--backend", "null"),
    "data inspect": ("data", "inspect", "ODD"),
    "data inspect --vocab": ("data", "inspect", "SHARDS", "--vocab", "ODD"),
    "data inspect --eval": ("data", "inspect", "SHARDS", "--eval", "ODD"),
    "data prepare": ("data", "prepare", "ODD", "--vocab", "DATA/sample/vocab.txt", "-o", "out", "--dry-run"),
    "data prepare --vocab": ("data", "prepare", "DATA", "--vocab", "ODD", "-o", "out", "--dry-run"),
    "data vocabulary": ("data", "vocabulary", "ODD", "-o", "out.txt"),
    "launch --topology": ("launch", "-n", "1", "--topology", "ODD", "--dry-run", "train", "-t", "mrpc"),
}  # fmt: skip
WRITE = {
    "train -o": (*TRAIN[:-1], "-t", "sample", "--data-dir", "DATA", "-o", "ODD"),
    "compare --markdown": ("compare", "RUN", "--markdown", "ODD"),
    "compare --csv": ("compare", "RUN", "--csv", "ODD"),
    "bench -o": ("bench", "infer", "-m", "tiny", "--backend", "null", "-d", "fp32", "--steps", "2", "-o", "ODD"),
    "data vocabulary -o": ("data", "vocabulary", "TEXT", "-o", "ODD"),
    "recipes copy": ("recipes", "copy", "demo", "ODD"),
    "convert": ("convert", "MODEL", "ODD"),
    "launch --slurm": ("launch", "-n", "1", "--slurm", "ODD", "train", "-t", "mrpc"),
    "launch --logs": ("launch", "-n", "1", "--logs", "ODD", "train", "-t", "nonesuch"),
}  # fmt: skip
# where such a path is right, or names nothing that could be wrong
RIGHT = {
    ("data prepare --vocab", "folder"), ("data inspect --vocab", "folder"), ("data vocabulary", "folder"),
    ("ask --context-file", "empty device"), ("--config", "empty device"), ("compare", "folder"),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> dict[str, str]:
    """Whole files and folders, for the other options of a command."""
    from fuzz.readers import _squad, make_model
    from pretraining_files import known_sequences, write_hdf5, write_vocabulary

    home = tmp_path_factory.mktemp("whole")
    for name in ("model", "shards"):
        (home / name).mkdir()
    make_model(home / "model")
    write_vocabulary(home / "shards")
    write_hdf5(home / "shards" / "a.hdf5", known_sequences(4))
    (home / "squad.json").write_text(_squad(True))
    (home / "text.txt").write_text("the plot is good.\n")
    save(home / "run")
    return {
        "DATA": str(sample_dir), "MODEL": str(home / "model"), "SHARDS": str(home / "shards"), "RUN": str(home / "run"),
        "SQUAD": str(home / "squad.json"), "TEXT": str(home / "text.txt"),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """2 GB more than there is now at the most: what reads an endless file must not take the box with it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (2 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"not over after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(words: tuple[str, ...], places: dict[str, str], odd: str, capsys: pytest.CaptureFixture[str]) -> int:
    """The exit code of a command that ended in one line or well."""
    for name, place in places.items():
        words = tuple(re.sub(rf"\b{name}\b", lambda _, place=place: place, word) for word in words)
    words = tuple(word.replace("ODD", odd) for word in words)
    with _alarm(), pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("bertkit: ")]
    assert "unexpected error" not in said, said
    assert "Traceback" not in said, said
    assert ended.value.code in (0, 1, 2), said
    assert len(lines) == (1 if ended.value.code == 2 else 0), said
    assert "\x1b" not in said
    return int(ended.value.code or 0)


@pytest.mark.parametrize("option", READ)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read(
    option: str, kind: str, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "odd").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("BERTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = refused(READ[option], places, KINDS[kind](tmp_path / "odd"), capsys)
    assert code == 2 or (option, kind) in RIGHT
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("option", WRITE)
@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_written(
    option: str, kind: str, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "odd").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERTKIT_CACHE", str(tmp_path / "cache"))
    path = KINDS[kind](tmp_path / "odd")
    before = {each.name: each.lstat().st_mode for each in (tmp_path / "odd").iterdir()}
    assert refused(WRITE[option], places, path, capsys) == 2
    assert {each.name: each.lstat().st_mode for each in (tmp_path / "odd").iterdir()} == before


@pytest.mark.parametrize("name", ["output", "model.name", "data.dir", "model.vocab", "data.cache"])
def test_a_nul_in_a_setting_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    section, _, key = name.rpartition(".")
    Path("nul.toml").write_text((f"[{section}]\n" if section else "") + f'{key} = "a\\u0000b"\n')
    code = refused((*TRAIN, "-t", "sample", "--config", "ODD"), {}, "nul.toml", capsys)
    assert code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["nul.toml"]


def test_a_folder_whose_name_is_not_utf_8_holds_a_run(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is trained into, gone on with and evaluated; its recipe says what TOML cannot hold."""
    monkeypatch.chdir(tmp_path)
    run = KINDS["not UTF-8"](tmp_path)
    train = (*TRAIN[:-1], "-t", "sample", "-s", "32", "--data-dir", "DATA", "--set", "train.steps=2", "-o", "ODD")
    assert refused(train, places, run, capsys) == 0
    assert refused((*train, "--resume"), places, run, capsys) == 0
    assert refused(("evaluate", "ODD", "--backend", "null"), places, run, capsys) == 0
    assert refused(("compare", "ODD", "--markdown", "out.md"), places, run, capsys) == 0
    said = (Path(run) / "recipe.toml").read_text(encoding="utf-8")
    assert "# output is" in said
    assert refused((*SAMPLE, "--config", "ODD"), places, f"{run}/recipe.toml", capsys) == 0
