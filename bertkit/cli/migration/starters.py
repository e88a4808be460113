"""What starts the processes of an old command: mpirun, srun, torchrun, accelerate, numactl … and what it says of them.

Of an option whose name is not among a starter's switches, the next word is the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bertkit.cli.migration.command import Draft, NotUnderstood, Place
from bertkit.cli.migration.python_flags import ELIDED
from bertkit.errors import UserError
from bertkit.files import inputs

WHOLE = re.compile(r"[1-9]\d{0,8}$")
CARDS = 8  # of the machines that the documents are about


def whole(text: str, what: str) -> int:
    """Raises UserError for anything but a whole number above 0, NotUnderstood for what only a shell knows."""
    if "$" in text:
        raise NotUnderstood(f"{what} is {text} in the old command, which only the shell knows", "write its value")
    if not WHOLE.match(text):
        raise UserError(f"{what} is {text!r} in the old command, no whole number above 0", "correct it")
    return int(text)


def number(text: str, otherwise: int, what: str, draft: Draft) -> int:
    """A whole number; `otherwise` for a name that the document leaves open, with a note."""
    if WHOLE.fullmatch(text):
        return int(text)
    draft.differs(f"{what} is {text or 'left out'} in the old command: {otherwise} is taken")
    return otherwise


@dataclass(frozen=True)
class Taken:
    """A starter's options as they stand."""

    pairs: tuple[tuple[str, str], ...]

    def get(self, *names: str, otherwise: str = "") -> str:
        """The last value of an option, by whichever of its names; `-` and `_` are one."""
        known = {name.replace("_", "-") for name in names}
        return next((value for name, value in reversed(self.pairs) if name.replace("_", "-") in known), otherwise)

    def has(self, name: str) -> bool:
        return any(one.replace("_", "-") == name for one, _ in self.pairs)

    def environment(self) -> dict[str, str]:
        """Variables that mpirun sets for its processes: -x NAME=VALUE, -genv NAME VALUE."""
        said = [value.partition("=") for name, value in self.pairs if name in ("x", "genv", "env") and "=" in value]
        return {name: value for name, _, value in said}


def read_options(words: list[str], switches: frozenset[str]) -> tuple[Taken, list[str]]:
    """(a starter's options, what follows them)."""
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(words) and (words[at].startswith("-") or words[at] in ELIDED) and words[at] != "--":
        name, equals, value = words[at].lstrip("-").partition("=")
        at += 1
        if glued := re.fullmatch(r"([NncpSt])(\d+)", name):  # sbatch -N4
            name, value = glued[1], glued[2]
        elif not equals and name.replace("_", "-") not in switches and name not in ELIDED:
            if at < len(words) and (not words[at].startswith("-") or re.fullmatch(r"-\d+", words[at])):
                value = words[at]
                at += 1
            if name in ("mca", "genv", "env") and "=" not in value and at < len(words):
                value = f"{value}={words[at]}"
                at += 1
        pairs.append((name, value))
    return Taken(tuple(pairs)), words[at:]


# ---- each family ----


def _mpirun(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    sections = 1 + rest.count(":")
    asked = taken.get("np", "n", "N", "c")
    by = taken.get("map-by")
    per_socket = by.startswith(("socket", "ppr")) and "PE" not in by
    if sections > 1 or (per_socket and "numactl" in rest) or (asked == "N" and per_socket):
        return replace(place, sockets=True)
    named = [part.partition(":")[0] for part in taken.get("H", "host", "hosts").split(",")]
    hosts = [name for name in named if name and name not in ELIDED] or _host_file(taken.get("hostfile", "f"))
    many = number(asked, CARDS, "the number of processes", draft) if asked else place.processes
    per_box = taken.get("ppn", "perhost")
    if hosts and set(hosts) != {"localhost"}:
        each = int(per_box) if WHOLE.fullmatch(per_box) else max(1, (many or CARDS) // len(hosts))
        return replace(place, processes=each, hosts=",".join(hosts))
    return replace(place, processes=int(per_box) if WHOLE.fullmatch(per_box) else many)


def _host_file(name: str) -> list[str]:
    """The hosts that a hostfile names. Raises NotUnderstood where it is not here."""
    if not name or name in ELIDED:
        return []
    path = Path(name)
    if not inputs.is_file(path):
        raise NotUnderstood(f"the hosts in {name} are unknown here", "give them as -H node1,node2 instead")
    lines = [line.split("#")[0].split() for line in inputs.read_text(path).splitlines()]
    return [words[0].partition(":")[0] for words in lines if words]


def _slurm(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    nodes = taken.get("N", "nodes", otherwise="1").split("-")[0]
    nodes_asked = place.nodes or number(nodes, 1, "the number of hosts", draft)
    tasks = taken.get("ntasks-per-node", "gpus-per-node", "gpus-per-task")
    if not tasks and WHOLE.fullmatch(taken.get("n", "ntasks")):
        tasks = str(max(1, int(taken.get("n", "ntasks")) // nodes_asked))
    container = _written(taken.get("container-image"))
    mounts = tuple(part for part in _written(taken.get("container-mounts")).split(",") if part)
    return replace(
        place,
        nodes=nodes_asked,
        processes=number(tasks or str(place.processes or CARDS), CARDS, "the number of processes per host", draft),
        container=container or place.container,
        mounts=mounts or place.mounts,
    )


def _written(text: str) -> str:
    return "" if text.startswith(ELIDED) else text


def _per_box(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    """torchrun, accelerate, deepspeed, gaudi_spawn.py and their kin."""
    if place.nodes:  # under srun: one starter per host
        asked = taken.get("nproc-per-node", "num-processes", "num-gpus")
        return replace(place, processes=int(asked)) if WHOLE.fullmatch(asked) else place
    nodes_asked = taken.get("nnodes", "num-machines", "num-nodes", otherwise="1").split(":")[0]
    hosts = _host_file(taken.get("hostfile"))
    if not hosts and WHOLE.fullmatch(nodes_asked) and int(nodes_asked) > 1:
        raise NotUnderstood(
            f"the existing command is for {nodes_asked} hosts and does not name them",
            "give mpirun -H node1,node2, or leave --nnodes out and add launch --nnodes to the result",
        )
    asked = taken.get("nproc-per-node", "num-processes", "num-gpus", "world-size", "num-cores")
    if "," in taken.get("gpu-ids"):
        asked = str(len(taken.get("gpu-ids").split(",")))
    if taken.get("include"):  # deepspeed --include localhost:0,1
        asked = str(len(taken.get("include").rpartition(":")[2].split(",")))
    if hosts:
        all_hosts = taken.has("num-processes") or taken.has("world-size")
        each = whole(asked, "the number of processes") if asked else CARDS
        return replace(place, hosts=",".join(hosts), processes=max(1, each // len(hosts) if all_hosts else each))
    if not asked or asked in ("1", "cpu"):
        return place
    many = CARDS if asked in ("auto", "gpu") else number(asked, CARDS, "the number of processes", draft)
    if asked in ("auto", "gpu"):
        draft.differs(f"one process per device: {CARDS} here")
    return replace(place, processes=many)


def _accelerate(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    if taken.get("config-file"):
        draft.differs(f"{taken.get('config-file')} is not read; what it says of processes and precision is not known")
    if (taken.has("multi-gpu") or taken.has("config-file")) and not taken.has("num-processes"):
        draft.differs(f"one process per device: {CARDS} here")
        place = replace(place, processes=CARDS)
    return _per_box(place, taken, rest, draft)


def _deepspeed(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    if not any(map(taken.has, ("num-gpus", "include", "hostfile"))):
        draft.differs(f"one process per device: {CARDS} here")
        return replace(place, processes=CARDS)
    return _per_box(place, taken, rest, draft)


def _numactl(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    if place.sockets or place.nodes or (place.processes or 1) > 1:
        return place  # `bertkit launch` binds by itself
    said = " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in taken.pairs if len(name) > 1)
    draft.do(f"start it under the same binding, if you want it: numactl {said or 'OPTIONS'} bertkit …")
    return place


def _bound(place: Place, taken: Taken, rest: list[str], draft: Draft) -> Place:
    return place  # `bertkit launch` binds by itself


Starter = Callable[[Place, Taken, list[str], Draft], Place]
MPI = frozenset(
    "allow-run-as-root oversubscribe nooversubscribe tag-output merge-stderr-to-stdout report-bindings display-map"
    " use-hwthread-cpus bind-to-core v verbose q l prepend-rank timestamp-output".split()
)
SLURM = frozenset(
    "l label u unbuffered v verbose Q quiet K kill-on-bad-exit exclusive overlap pty parsable wait W H hold overcommit"
    " O container-mount-home no-container-mount-home container-writable container-remap-root".split()
)
TORCH = frozenset("standalone m module no-python use-env no-hyperthreads no-membind".split())
ACCELERATE = frozenset(
    "multi-gpu cpu mps tpu use-deepspeed use-fsdp use-xpu use-mps-device debug q quiet m module no-python same-network"
    " multi-cpu".split()
)
DEEPSPEED = frozenset("no-local-rank no-python module force-multi bind-cores-to-rank no-ssh no-ssh-check".split())
GAUDI = frozenset("use-mpi use-deepspeed use-env".split())
IPEX = frozenset(
    "enable-jemalloc enable-tcmalloc use-default-allocator distributed throughput-mode latency-mode use-logical-core"
    " disable-numactl disable-iomp m module no-python multi-instance".split()
)
NUMA = frozenset("a all s show H hardware l localalloc".split())
STARTERS: Mapping[str, tuple[Starter, frozenset[str]]] = {
    "mpirun": (_mpirun, MPI),
    "mpiexec": (_mpirun, MPI),
    "mpiexec.hydra": (_mpirun, MPI),
    "horovodrun": (_mpirun, MPI),
    "run_dist_ht.sh": (_mpirun, MPI),
    "srun": (_slurm, SLURM),
    "sbatch": (_slurm, SLURM),
    "torchrun": (_per_box, TORCH),
    "torch.distributed.launch": (_per_box, TORCH),
    "torch.distributed.run": (_per_box, TORCH),
    "torch_ccl.launch": (_per_box, TORCH),
    "bind_pyt": (_per_box, TORCH),
    "accelerate": (_accelerate, ACCELERATE),
    "accelerate.commands.launch": (_accelerate, ACCELERATE),
    "deepspeed": (_deepspeed, DEEPSPEED),
    "gaudi_spawn.py": (_per_box, GAUDI),
    "xla_spawn.py": (_per_box, GAUDI),
    "intel_extension_for_pytorch.cpu.launch": (_per_box, IPEX),
    "ipexrun": (_per_box, IPEX),
    "numactl": (_numactl, NUMA),
    "taskset": (_bound, frozenset({"a", "p"})),
    "bind.sh": (_bound, frozenset()),
}
# what stands before a program and says nothing of processes: its switches
PREFIXES: Mapping[str, frozenset[str]] = {
    "bash": frozenset("x e u l i ex eu xe v".split()),
    "sh": frozenset("x e u l ex".split()),
    "time": frozenset("pv"),
    "nohup": frozenset(),
    "sudo": frozenset("EHin"),
    "exec": frozenset("cl"),
    "env": frozenset("i0"),
    "command": frozenset(),
    "nice": frozenset(),
    "stdbuf": frozenset(),
    "--": frozenset(),
}
