"""An old command line taken apart: variables before it, what starts its processes, the program and its arguments.

Documents write for people: `[--flag]` may be left out, `[a | b]` is a choice, `<name>` is to be filled in, `…` stands
for more. All of that is understood here, and noted.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bertkit.errors import UserError
from bertkit.migrate.ours import Draft, Place
from bertkit.migrate.python_flags import ELIDED

ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
PRESET = re.compile(r"\$\(\s*source\s+(\S+)\s*&&\s*([\w.-]+)\s*\)")
OPTIONAL = re.compile(r"(?<!\S)\[([^\]]*)\](?!\S)")
EITHER = re.compile(r"(?<!\S)--\w+\|--\w+")
OPEN = re.compile(r"<([^<>\s][^<>]*)>")
PYTHON = re.compile(r"python[\d.]*$")
WHOLE = re.compile(r"[1-9]\d*$")
# options of starters that take their value as the next word, with one or two dashes; -mca takes two
WITH_VALUE = set(
    "np n N c ntasks ntasks-per-node H host hosts x map-by bind-to rank-by output-filename prefix hostfile f ppn genv"
    " cpus-per-proc container-image container-mounts container-name mpi nproc_per_node nproc-per-node nnodes"
    " node_rank master_addr master_port nsockets_per_node ncores_per_socket node_id m cpunodebind membind physcpubind"
    " C S".split()
)  # fmt: skip
TWO_VALUES = {"mca"}


@dataclass(frozen=True)
class Old:
    """A command of another system."""

    program: str  # its last part, as run_squad.py; "" where the line names none
    arguments: tuple[str, ...]
    presets: tuple[tuple[str, str], ...] = ()  # (file, function) of `$(source FILE && FUNCTION)`
    env: dict[str, str] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    elided: bool = False  # the document left arguments out
    starters: tuple[str, ...] = ()  # mpirun, srun, numactl …, from the outside in


def take_apart(text: str, draft: Draft) -> Old:
    """Raises UserError for a line that is none."""
    presets = tuple((found[1], found[2]) for found in PRESET.finditer(text))
    text = PRESET.sub(" ", text.replace("\\\n", " "))
    text = OPTIONAL.sub(lambda found: _choice(found[1], draft), text)
    text = EITHER.sub(lambda found: _choice(found[0].replace("|", " | "), draft), text)
    text = OPEN.sub(lambda found: f"<{'_'.join(found[1].split())}>", text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"the old command cannot be read: {error}", "check its quotes") from None
    elided = any(word in ELIDED for word in words)
    words = _one_command([word for word in words if word not in ELIDED], draft)
    env: dict[str, str] = {}
    while words and ASSIGNED.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    if not words:
        if env and not elided:
            return Old("export", (), presets, env)
        raise UserError("the old command is empty", 'give it in quotes: bertkit migrate "./demo_bert finetuning …"')
    return _without_starters(Old("", tuple(words), presets, env, elided=elided), draft)


def _choice(inside: str, draft: Draft) -> str:
    """What stands in brackets: the first of its alternatives."""
    first, *others = (part.strip() for part in inside.split(" | "))
    if others:
        draft.differs(f"of [{inside}] the first is taken: {first}")
    else:
        draft.differs(f"[{inside}] may be left out in the document; it is taken as given")
    return f" {first} "


def _one_command(words: list[str], draft: Draft) -> list[str]:
    """Without `export`, and without what follows a pipe, a semicolon or another command."""
    if words and words[0] == "export":
        words = words[1:]
    for at, word in enumerate(words):
        if word in ("|", "|&", "&&", ";", ">", ">>", "2>&1", "&"):
            draft.lost(" ".join(words[at:]), "only one command is read at a time")
            return words[:at]
        if word == ":":  # one program on each socket, the words repeated
            break
    return words


def _without_starters(old: Old, draft: Draft) -> Old:
    """Peel off mpirun, srun, numactl, python -m … and what they say of the place."""
    words = list(old.arguments)
    place, starters = old.place, []
    env = dict(old.env)
    while words:
        name = words[0].rpartition("/")[2]
        if ASSIGNED.match(words[0]):
            key, _, value = words.pop(0).partition("=")
            env[key] = value
        elif name in ("bash", "sh", "time", "nohup", "sudo", "exec", "env", "--"):
            words.pop(0)
        elif PYTHON.fullmatch(name):
            words.pop(0)
            words = [word for at, word in enumerate(words) if word != "-u" or at > 1]
            if words[:1] == ["-m"]:
                words.pop(0)
        elif name == "docker":
            at = next((at for at, word in enumerate(words) if PYTHON.fullmatch(word)), len(words))
            draft.lost("docker", "bertkit starts no container; start the command in one")
            words = words[at:]
        elif starter := STARTERS.get(name):
            starters.append(name)
            taken, rest = _options(words[1:])
            place = starter(place, taken, rest, draft)
            words = rest
        else:
            break
    words = words[: words.index(":")] if ":" in words else words
    program = words[0].rpartition("/")[2] if words else ""
    if program.startswith("-") or program in OPEN_PROGRAMS:
        program = ""
    return replace(old, program=program, arguments=tuple(words[1:]), env=env, place=place, starters=tuple(starters))


OPEN_PROGRAMS = ("script",)  # what documents write for any program


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """(a starter's options, what follows them)."""
    taken: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        name, equals, value = words[at].lstrip("-").partition("=")
        glued = re.fullmatch(r"([NnS])(\d+)", name)
        if glued:  # sbatch -N4
            name, value = glued[1], glued[2]
        elif name in TWO_VALUES:
            at += 1
            value = words[at] if at < len(words) else ""
            at += 1
        elif not equals and name in WITH_VALUE and at + 1 < len(words):
            at += 1
            value = words[at]
        taken[name] = value
        at += 1
    return taken, words[at:]


def whole(text: str, what: str) -> int:
    """Raises UserError for anything but a whole number above 0."""
    if not WHOLE.match(text):
        raise UserError(f"{what} is {text!r} in the old command, no whole number above 0", "correct it")
    return int(text)


def number(text: str, otherwise: int, what: str, draft: Draft) -> int:
    """A whole number; `otherwise` for a name that the document leaves open, with a note."""
    if WHOLE.fullmatch(text):
        return int(text)
    draft.do(f"{what} is {text} in the old command: {otherwise} is taken, put yours")
    return otherwise


Starter = Callable[[Place, dict[str, str], list[str], Draft], Place]
CARDS = 8  # of the machines that the documents are about


def _mpirun(place: Place, taken: dict[str, str], rest: list[str], draft: Draft) -> Place:
    sections = 1 + rest.count(":")
    asked = next((taken[name] for name in ("np", "n", "N") if name in taken), "")
    per_socket = taken.get("map-by", "").startswith(("socket", "ppr")) and "PE" not in taken.get("map-by", "")
    if sections > 1 or (per_socket and "numactl" in rest) or (asked == "N" and per_socket):
        return replace(place, sockets=True)
    hosts = ",".join(part.partition(":")[0] for part in taken.get("H", "").split(",") if part and part not in ELIDED)
    if "hostfile" in taken or "f" in taken:
        draft.do(f"name the boxes of {taken.get('hostfile') or taken.get('f')} with --hosts")
    many = number(asked, CARDS, "the number of processes", draft) if asked else place.processes
    if hosts and set(hosts.split(",")) != {"localhost"}:
        boxes = hosts.split(",")
        return replace(place, processes=max(1, (many or CARDS) // len(boxes)), hosts=hosts)
    per_box = taken.get("ppn", "")
    return replace(place, processes=int(per_box) if WHOLE.fullmatch(per_box) else many)


def _slurm(place: Place, taken: dict[str, str], rest: list[str], draft: Draft) -> Place:
    nodes = taken.get("N") or taken.get("nodes") or "1"
    tasks = taken.get("ntasks-per-node", str(place.processes or CARDS))
    return replace(
        place,
        nodes=place.nodes or number(nodes, 1, "the number of boxes", draft),
        processes=number(tasks, CARDS, "the number of processes on each box", draft),
        container=_written(taken.get("container-image", "")) or place.container,
        mounts=tuple(part for part in _written(taken.get("container-mounts", "")).split(",") if part) or place.mounts,
    )


def _written(text: str) -> str:
    return "" if text in ELIDED or text.startswith(ELIDED) else text


def _per_box(place: Place, taken: dict[str, str], rest: list[str], draft: Draft) -> Place:
    """torchrun and its kin."""
    asked = taken.get("nproc_per_node") or taken.get("nproc-per-node") or ""
    if not asked:
        return place
    if asked == "auto":
        return replace(place, processes=CARDS)
    return replace(place, processes=number(asked, CARDS, "the number of processes", draft))


def _numactl(place: Place, taken: dict[str, str], rest: list[str], draft: Draft) -> Place:
    if place.sockets or place.nodes or (place.processes or 1) > 1:
        return place  # `bertkit launch` binds by itself
    said = " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in taken.items() if len(name) > 1)
    draft.do(f"start it under the same binding, if you want it: numactl {said or '…'} bertkit …")
    return place


def _bound(place: Place, taken: dict[str, str], rest: list[str], draft: Draft) -> Place:
    return place  # `bertkit launch` binds by itself


STARTERS: dict[str, Starter] = {
    "mpirun": _mpirun,
    "mpiexec": _mpirun,
    "mpiexec.hydra": _mpirun,
    "run_dist_ht.sh": _mpirun,
    "srun": _slurm,
    "sbatch": _slurm,
    "torchrun": _per_box,
    "torch.distributed.launch": _per_box,
    "torch.distributed.run": _per_box,
    "bind_pyt": _per_box,
    "intel_extension_for_pytorch.cpu.launch": _per_box,
    "numactl": _numactl,
    "bind.sh": _bound,
}
