"""Containers of old command lines: what runs inside, where its files are outside, and which image of ours does it.

Their images hold no bertkit. Of `docker run … IMAGE command` the command is translated as it is called from outside;
where an old launcher starts the container by itself, `bertkit launch --container` does so with an image of ours.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.cli.migration.shell import join
from bertkit.cli.migration.starters import Taken, read_options
from bertkit.engine.registry import installed

ENGINES = ("docker", "nvidia-docker", "podman", "singularity", "apptainer")
SWITCHES = frozenset(
    "i t it ti d itd dit dti rm privileged init P read-only interactive tty detach nv rocm no-home cleanenv containall"
    " C nvccl writable-tmpfs publish-all no-healthcheck oom-kill-disable sig-proxy disable-content-trust q"
    " quiet".split()
)
OURS = "bertkit:"  # an image of ours: its name, before the backend is known
IMAGES = ("cpu", "cuda", "gaudi", "iluvatar", "xpu")  # backends that have one
STARTED = ("train", "distill", "evaluate", "predict", "bench", "tune")  # commands that `bertkit launch` starts
MADE_BY = "which `make image` makes (containers/README.md)"


@dataclass(frozen=True)
class Where:
    """The folder that a command runs in, and for one in a container what is mounted where."""

    folder: str = ""  # "": where the script was started; in a container: as seen inside, "" where nobody says
    mounts: tuple[tuple[str, str], ...] = ()  # (inside, outside)
    inside: bool = False  # of a container

    def outside(self, path: str) -> str:
        """A file of the old command as it is called from where the script was started.

        Raises NotUnderstood for one that lies in a container's image.
        """
        seen = join(self.folder, path)
        if not self.inside or not seen.startswith("/"):
            return seen
        for inner, outer in sorted(self.mounts, key=lambda one: -len(one[0])):
            if seen == inner or seen.startswith(f"{inner.rstrip('/')}/"):
                return posixpath.join(outer, seen[len(inner) :].lstrip("/")).rstrip("/")
        raise NotUnderstood(f"{seen} lies in the container and no -v says where it is outside", "give the file's path")


def enter(name: str, words: list[str], where: Where, draft: Draft) -> tuple[list[str], Where, dict[str, str]]:
    """(the command inside, its place, variables set for it) of a container's command line without its first word."""
    while words and words[0] not in ("run", "exec"):
        words = words[1:]
    is_exec = words[:1] == ["exec"] and name not in ("singularity", "apptainer")
    taken, rest = read_options(words[1:], SWITCHES)
    mounts = (*((inner, join(where.folder, outer)) for inner, outer in _mounts(taken)),)
    folder = taken.get("w", "workdir", "pwd")
    draft.lost(
        f"{name} {'exec' if is_exec else 'run'}",
        f"its image has no bertkit; `bertkit launch --container` starts one that has, {MADE_BY}",
    )
    if is_exec:
        draft.differs("what is mounted in a running container is not known: paths are taken as they stand")
        return rest[1:], Where(folder), _variables(taken)
    if not folder:
        draft.differs("the image's own working folder is not known: relative paths are taken as they stand")
    return rest[1:], Where(folder, mounts, inside=True), _variables(taken)


def _mounts(taken: Taken) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in taken.pairs:
        if name in ("v", "volume", "B", "bind"):
            for one in value.split(",") if name in ("B", "bind") else [value]:
                outer, _, inner = one.partition(":")
                found.append(((inner or outer).partition(":")[0], outer))
        elif name == "mount":
            said = dict(part.partition("=")[::2] for part in value.split(","))
            inner = said.get("target") or said.get("dst") or said.get("destination") or ""
            outer = said.get("source") or said.get("src") or ""
            if inner and outer:
                found.append((inner, outer))
    return found


def _variables(taken: Taken) -> dict[str, str]:
    said = [value.partition("=") for name, value in taken.pairs if name in ("e", "env") and "=" in value]
    return {name: value for name, _, value in said}


# ---- launchers that start the container by themselves ----


def in_ours(draft: Draft, image: str, mounts: Sequence[str], shm_size: str) -> None:
    """The command in an image of ours in place of `image`; its backend names it later."""
    draft.place = replace(draft.place, container=OURS, mounts=tuple(mounts), shm_size=shm_size)
    draft.differs(f"{image} has no bertkit: an image of bertkit's own is taken in its place, {MADE_BY}")


def name_image(draft: Draft) -> None:
    """The image by the command's backend. Where no container can be started, the command runs outside of one."""
    if draft.place.container != OURS:
        return
    asked = draft.options.get("--backend", "cpu")
    backend = next((name for name, one in installed().items() if asked in one.aliases), asked)
    why = ""
    if draft.place.hosts:
        why = "for several hosts start one on each (--nnodes), or use --slurm"
    elif backend not in IMAGES:
        why = f"there is no image for the backend {backend}; install bertkit where the command runs"
    elif not draft.command or draft.command[0] not in STARTED:
        why = "this command starts no processes, and runs outside"
    if why:
        draft.place = replace(draft.place, container="", mounts=(), shm_size="")
        draft.lost("the container", why)
    else:
        draft.place = replace(draft.place, container=OURS + backend)


def enter_launch_sh(words: Sequence[str], where: Where, draft: Draft) -> tuple[str, Where, dict[str, str]]:
    """(the script inside, its place, variables set for it) of NVIDIA's scripts/docker/launch.sh, without its name.

    Its arguments are a command, devices and a network; it mounts the working folder and results in it.
    """
    command, devices, network = [*words, "", "", ""][:3]
    folder = where.folder or "."
    mounts = (("/workspace/bert", folder), ("/results", posixpath.join(folder, "results")))
    if network:
        draft.lost(f"network {network}", "processes of one host need none; --container-option=--network=NAME gives one")
    visible = {"CUDA_VISIBLE_DEVICES": devices} if devices not in ("", "all") else {}
    return command, Where(where.folder, mounts, inside=True), visible


def launch_sh(arguments: Sequence[str], draft: Draft) -> None:
    """launch.sh with nothing to start: a shell in the container."""
    draft.do(
        "start commands by `bertkit launch --container bertkit:cuda -- …`; for a shell there: "
        "docker run --rm -it --gpus=all -v $PWD:/work --entrypoint bash bertkit:cuda"
    )


def build_sh(arguments: Sequence[str], draft: Draft) -> None:
    """build.sh, which makes the image."""
    draft.do(
        "make the image bertkit:cuda in a checkout of bertkit: make image TARGET=cuda BASE=name:tag@sha256:digest"
        " (containers/README.md)"
    )


SHELLS = ("", "bash", "/bin/bash", "sh", "/bin/sh")
SCRIPTS = {"launch.sh": launch_sh, "build.sh": build_sh}
