"""Our command while it is put together, and what could not go into it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Literal

NoteKind = Literal["lost", "differs", "do", "not yet"]
PLAIN = re.compile(r"[\w$@%+=:,./{}~-]+")  # words that a shell leaves alone; $VAR is to be filled in by it
CHECKPOINT = re.compile(r"\.(pt|ckpt(-\d+)?)$")  # files and prefixes that -m takes
PLACEHOLDER = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Note:
    """What somebody who knows the old command should know of the new one."""

    kind: NoteKind  # lost: not carried over; differs: carried over, but means less or more; do: a step by hand
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Command:
    """One command of ours."""

    env: tuple[tuple[str, str], ...]
    words: tuple[str, ...]  # the first is bertkit, or export

    def __str__(self) -> str:
        return " ".join([*(f"{name}={_quoted(value)}" for name, value in self.env), *map(_quoted, self.words)])


@dataclass(frozen=True)
class Migrated:
    """An old command in our words."""

    commands: tuple[Command, ...]
    notes: tuple[Note, ...]

    @property
    def not_yet(self) -> bool:
        """Whether it needs what bertkit does not do yet."""
        return any(note.kind == "not yet" for note in self.notes)


@dataclass(frozen=True)
class Place:
    """Where the processes of a command run."""

    processes: int | None = None  # on each box
    sockets: bool = False  # one for each CPU socket
    per_socket: int = 1
    hosts: str = ""
    ssh_port: int = 0
    nodes: int = 0  # above 0: by Slurm
    container: str = ""
    mounts: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The words of `bertkit launch` up to the command; none for a single process."""
        if self.nodes:
            words = ["--slurm", "bertkit.sbatch", "--nodes", str(self.nodes), "-n", str(self.processes or 1)]
            words += ["--container", self.container] if self.container else []
            return ["launch", *words, *(word for mount in self.mounts for word in ("--mount", mount)), "--"]
        if self.sockets:
            many = ["--per-socket", str(self.per_socket)] if self.per_socket > 1 else []
            hosts = ["--hosts", self.hosts] if self.hosts else []
            return ["launch", "--mpi-sockets", *many, *hosts, "--"]
        if self.hosts:
            port = ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
            return ["launch", "--hosts", self.hosts, "-n", str(self.processes or 1), *port, "--"]
        return ["launch", "-n", str(self.processes), "--"] if (self.processes or 1) > 1 else []


@dataclass
class Draft:
    """A command under way: options and settings in the order in which they come, and notes."""

    command: tuple[str, ...] = ("train",)
    place: Place = Place()
    options: dict[str, str] = field(default_factory=dict)  # option -> value
    sets: dict[str, str] = field(default_factory=dict)  # setting -> value
    env: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def lost(self, what: str, why: str) -> None:
        self._note("lost", f"{what}: {why}")

    def differs(self, text: str) -> None:
        self._note("differs", text)

    def do(self, text: str) -> None:
        self._note("do", text)

    def not_yet(self, text: str) -> None:
        self._note("not yet", text)

    def _note(self, kind: NoteKind, text: str) -> None:
        if (note := Note(kind, text)) not in self.notes:
            self.notes.append(note)

    def as_command(self) -> Command:
        words = ["bertkit", *self.place.words(), *self.command] if self.command[0] != "export" else list(self.command)
        for option, value in self.options.items():
            words += [option, value] if value else [option]
        for key, value in self.sets.items():
            words += ["--set", f"{key}={value}"]
        return Command(tuple(self.env.items()), tuple(words))


def set_model(draft: Draft, checkpoint: str, vocab: str = "", config: str = "") -> None:
    """-m for a checkpoint of theirs; its configuration is read from beside it."""
    model = model_name(draft, checkpoint, told=bool(config))
    draft.options["-m"] = model
    folder = _folder(checkpoint) if CHECKPOINT.search(checkpoint) else model
    if vocab and _folder(vocab) != folder:
        draft.sets["model.vocab"] = vocab
    if config and _folder(config) != folder and CHECKPOINT.search(checkpoint):
        name = "bert_config.json"
        draft.do(f"copy {config} to {folder}/{name}: the configuration is read from beside the checkpoint")


def model_name(draft: Draft, checkpoint: str, told: bool = False) -> str:
    """What -m or a command takes for a checkpoint of theirs. `told`: the old command names the configuration."""
    if checkpoint.endswith(".bin"):
        draft.do(f"give {checkpoint} the name pytorch_model.bin, in a folder with its config.json and vocab.txt")
        return _folder(checkpoint)
    if checkpoint.endswith(".pt") and not told:
        draft.do(f"put bert_config.json and vocab.txt of the model beside {checkpoint}")
    return checkpoint


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def fill_in(draft: Draft) -> None:
    """Note every word that the documents leave open."""
    words = [*draft.options.values(), *draft.sets.values()]
    for found in dict.fromkeys(match[0] for word in words for match in PLACEHOLDER.finditer(word)):
        draft.do(f"fill in {found}")


def spell_batch(draft: Draft, update: int, at_once: int) -> None:
    """-b is what one update sees on a process; of it `at_once` are computed at once."""
    draft.options["-b"] = str(update)
    if at_once < update:
        draft.sets["train.micro_batch_size"] = str(at_once)


def _quoted(word: str) -> str:
    return word if PLAIN.fullmatch(word) else shlex.quote(word)
