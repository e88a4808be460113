"""`docker run … IMAGE command` of an old command line: what runs inside, and where its files are outside."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.cli.migration.shell import join
from bertkit.cli.migration.starters import Taken, read_options

ENGINES = ("docker", "nvidia-docker", "podman", "singularity", "apptainer")
SWITCHES = frozenset(
    "i t it ti d itd dit dti rm privileged init P read-only interactive tty detach nv rocm no-home cleanenv containall"
    " C nvccl writable-tmpfs publish-all no-healthcheck oom-kill-disable sig-proxy disable-content-trust q"
    " quiet".split()
)


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
        f"{name} {'exec' if is_exec else 'run'}", "bertkit starts no container; install it here, or start it in yours"
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
