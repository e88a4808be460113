"""A container that a job of one host runs in: what docker, podman or apptainer is given to run `bertkit launch` inside.

The processes are planned, bound and followed inside. Nothing is started here but by `start`. Which options show a
container the devices is for the backend to say.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import UserError
from bertkit.launch.interface import LaunchPlan

BY_NAME = ("docker", "podman")  # take the image by its name, from their own store or a registry
APPTAINER = "apptainer"
PYXIS = "pyxis"  # a batch system's own, for which a script is written
ENGINES = (*BY_NAME, APPTAINER)
FILE = ".sif"
PREFIX = "APPTAINERENV_"  # of a variable that it sets in the container
ADDRESS = re.compile(r"(docker|docker-archive|library|oras|shub|oci|oci-archive)://|.*\.(sif|simg)$")
OUTPUTS = ("-o", "--output", "--output_dir", "--output-dir")
SIZE = re.compile(r"[1-9][0-9]{0,8}[bkmgBKMG]?")
OWN = "BERTKIT_"
# of bertkit's own, those that name files of this host, and a key
LEFT_OUT = ("BERTKIT_API_KEY", "BERTKIT_CACHE", "BERTKIT_MODELS", "BERTKIT_MPIRUN", "BERTKIT_SOURCES")
Which = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class Container:
    """Where a job is to run, as the user and the backend have it."""

    image: str
    engine: str  # of ENGINES
    backend: str = ""  # whose devices are shown
    mounts: tuple[str, ...] = ()  # "source:target" or "source:target:flags"
    options: tuple[str, ...] = ()  # the user's, for the engine
    devices: tuple[str, ...] = ()  # the backend's, for the engine
    shm_size: str = ""  # of /dev/shm, as 1g; empty: half of the memory
    forward: tuple[str, ...] = ()  # names of environment variables
    network: bool = False  # other hosts reach its processes


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who starts it, where."""

    folder: Path  # the working folder; the container has it under the same name
    user: int
    memory: int  # bytes of the host


def caller() -> Caller:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Caller(folder=Path.cwd(), user=os.getuid(), memory=memory)


def find_engine(asked: str, image: str, dry_run: bool = False, which: Which = shutil.which) -> str:
    """The engine asked for, else the first that is here and takes such an image. Raises UserError for none.

    `dry_run`: it need not be here.
    """
    if asked and asked not in ENGINES:
        where = "it is for --slurm" if asked == PYXIS else f"{asked!r} is not known"
        raise UserError(f"--container-engine {asked}: {where}", f"choose {', '.join(ENGINES)}")
    fitting = (asked,) if asked else (APPTAINER,) if ADDRESS.match(image) else ENGINES
    found = next((name for name in fitting if which(name)), "")
    if not found and not dry_run:
        raise UserError(f"no {' or '.join(fitting)} on this machine to start {image} with", "install one")
    return found or fitting[0]


def forwarded(prefixes: Sequence[str], named: Collection[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that go into the container: the backend's, bertkit's own, and those asked for."""
    own = {name for name in env if name.startswith((OWN, *prefixes)) and name not in LEFT_OUT}
    return tuple(sorted(own | {name for name in named if name in env}))


def plan_container(container: Container, inner: Sequence[str], here: Caller, elsewhere: bool = False) -> LaunchPlan:
    """What starts the container; `inner`: the words of bertkit that run in it; `elsewhere`: files need not be here.

    Raises UserError for a mount or a size that is none, for options that the engine lacks, and for results that no
    mount keeps.
    """
    mounts = (f"{here.folder}:{here.folder}", *(_mount(one, here.folder, elsewhere) for one in container.mounts))
    shown = [Path(one.split(":")[1]) for one in mounts]  # as seen inside
    _check_output(inner, shown, here.folder)
    by_file = container.engine == APPTAINER
    return LaunchPlan(
        argv=(_apptainer if by_file else _by_name)(container, mounts, inner, here),
        # /tmp is the host's there: a folder of one's own in it
        env={f"{PREFIX}XDG_CACHE_HOME": f"/tmp/bertkit-{here.user}"} if by_file else {},  # noqa: S108
        processes=(),
        notes=tuple(_notes(container, here)),
        warnings=tuple(_unseen(inner, shown, here.folder)),
    )


def start(plan: LaunchPlan, container: Container, env: Mapping[str, str]) -> None:
    """Become the container's engine, so that signals and the exit code are its own. Does not return.

    Raises UserError where it does not start.
    """
    # Values go by the environment: command lines are seen by everybody on the host.
    inside = {f"{PREFIX}{name}": env[name] for name in container.forward if container.engine == APPTAINER}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(plan.argv[0], plan.argv, {**env, **plan.env, **inside})  # noqa: S606 - words, and no shell
    except OSError as error:
        raise UserError(f"{plan.argv[0]} does not start: {error.strerror}", "look at its installation") from None


def _by_name(container: Container, mounts: Sequence[str], inner: Sequence[str], here: Caller) -> tuple[str, ...]:
    words = [container.engine, "run", "--rm"]
    if container.engine == "docker":
        words += ["--init", f"--user={here.user}:0"]  # group 0: what images leave writable for any user
    elif here.user == 0:
        words += ["--user=0:0"]
    else:
        words += ["--userns=keep-id"]  # without root this user is 0 inside, and others' files would be made
    if not any(word.startswith("--ipc") for word in container.devices + container.options):
        words.append(f"--shm-size={_shm_size(container.shm_size, here.memory)}")
    elif container.shm_size:
        raise UserError("--shm-size with --ipc: the container has the host's /dev/shm", "drop --shm-size")
    words += ["--network=host"] if container.network else []
    words += [f"--volume={mount}" for mount in mounts]
    words += [f"--workdir={here.folder}", *(f"--env={name}" for name in container.forward)]
    return (*words, *container.devices, *container.options, "--entrypoint=bertkit", container.image, *inner)


def _apptainer(container: Container, mounts: Sequence[str], inner: Sequence[str], here: Caller) -> tuple[str, ...]:
    if container.shm_size:
        raise UserError("apptainer gives a container the host's /dev/shm", "drop --shm-size")
    words = [APPTAINER, "exec", "--cleanenv", "--no-home", f"--pwd={here.folder}", *(f"--bind={one}" for one in mounts)]
    return (*words, *container.devices, *container.options, container.image, "bertkit", *inner)


def _shm_size(asked: str, memory: int) -> str:
    """Half of the memory, as Linux has it by itself; an engine's 64 MB are too few for ranks that share memory."""
    if not asked:
        return f"{max(memory >> 21, 64)}m"
    if not SIZE.fullmatch(asked):
        raise UserError(f"{asked!r} is no size of memory", "as --shm-size 1g")
    return asked


def _mount(text: str, folder: Path, elsewhere: bool) -> str:
    """With an absolute source: an engine takes other words for the name of a volume."""
    source, colon, rest = text.partition(":")
    target, _, flags = rest.partition(":")
    if not colon or not source or not target.startswith("/") or ":" in flags or not text.isprintable() or "," in text:
        raise UserError(f"the mount {text!r} is none", "write source:target or source:target:ro, target from / on")
    path = folder / Path(source).expanduser()
    if not elsewhere and not path.exists():
        raise UserError(f"the mount's source {source} is not there", "make it, or correct the path")
    return ":".join([str(path), target, *([flags] if flags else [])])


def _notes(container: Container, here: Caller) -> list[str]:
    notes = [f"container: {container.image}, by {container.engine}; {here.folder} is mounted and is the working folder"]
    notes.append(f"devices of the backend {container.backend}: {' '.join(container.devices) or 'none are named'}")
    return notes + ([f"environment: {', '.join(container.forward)}"] if container.forward else [])


def _check_output(words: Sequence[str], shown: Sequence[Path], folder: Path) -> None:
    """Raises UserError for results that would be lost with the container."""
    pairs = zip(["", *words], words, strict=False)
    named = [value for option, value in pairs if option in OUTPUTS]
    named += [word.partition("=")[2] for word in words if word.partition("=")[0] in OUTPUTS and "=" in word]
    for word in named:
        path = _absolute(word, folder)
        if not any(path.is_relative_to(one) for one in shown):
            raise UserError(f"{word} is in no mount: it would be lost with the container", "add --mount FROM:TO for it")


def _unseen(words: Sequence[str], shown: Sequence[Path], folder: Path) -> list[str]:
    """Files of this host that the words name and no mount shows."""
    warnings = []
    for word in dict.fromkeys(part for one in words for part in (one, one.rpartition("=")[2])):
        if not word.startswith(("/", "../", "~/")):
            continue
        path = _absolute(word, folder)
        if path.exists() and not any(path.is_relative_to(one) for one in shown):
            warnings.append(f"{word} is not mounted in the container; add --mount {path}:{path} if it is this host's")
    return warnings


def _absolute(word: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(word).expanduser()))
