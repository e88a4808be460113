"""`bertkit launch --container`: the words that start docker, podman and apptainer, and what goes into the container.

Starting a container is tried with stand-ins for these programs: none of them runs here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import bertkit_cuda
from bertkit.cli import launch_container as cli
from bertkit.cli.launch_options import LaunchOptions
from bertkit.engine.interface import ShowsDevices
from bertkit.engine.registry import installed
from bertkit.errors import UserError
from bertkit.launch.containers import Caller, Container, find_engine, forwarded, plan_container
from bertkit_iluvatar import IluvatarBackend
from bertkit_xpu import XpuBackend
from conftest import command_env

INNER = ("launch", "--processes", "2", "--", "train", "-t", "mrpc")
GPUS = ("--gpus=all",)


def here(folder: Path, user: int = 1000) -> Caller:
    return Caller(folder=folder, user=user, memory=64 << 30)


def container(engine: str, **more: object) -> Container:
    return replace(Container(image="bertkit:cpu", engine=engine), **more)  # type: ignore[arg-type]


def test_docker_runs_as_the_caller_in_the_callers_folder(tmp_path: Path) -> None:
    made = plan_container(
        container("docker", backend="cuda", devices=GPUS, forward=("NCCL_DEBUG",)), INNER, here(tmp_path)
    )
    assert made.argv == (
        "docker", "run", "--rm", "--init", "--user=1000:0", "--shm-size=32768m", f"--volume={tmp_path}:{tmp_path}",
        f"--workdir={tmp_path}", "--env=NCCL_DEBUG", "--gpus=all", "--entrypoint=bertkit", "bertkit:cpu", *INNER,
    )  # fmt: skip
    assert made.env == {}
    assert made.warnings == ()
    assert made.notes[1:] == ("devices of the backend cuda: --gpus=all", "environment: NCCL_DEBUG")


@pytest.mark.parametrize(("user", "word"), [(1000, "--userns=keep-id"), (0, "--user=0:0")])
def test_files_of_podman_belong_to_the_caller(user: int, word: str, tmp_path: Path) -> None:
    made = plan_container(container("podman"), INNER, here(tmp_path, user))
    assert [one for one in made.argv if one.startswith("--user")] == [word]
    assert "--init" not in made.argv  # it needs a further package of podman's


def test_apptainer_gets_a_clean_environment_and_no_home(tmp_path: Path) -> None:
    (tmp_path / "glue").mkdir()
    one = replace(
        container("apptainer", devices=("--nv",), options=("--pid",)), image="b.sif", mounts=("glue:/data:ro",)
    )
    made = plan_container(one, INNER, here(tmp_path))
    assert made.argv == (
        "apptainer", "exec", "--cleanenv", "--no-home", f"--pwd={tmp_path}", f"--bind={tmp_path}:{tmp_path}",
        f"--bind={tmp_path}/glue:/data:ro", "--nv", "--pid", "b.sif", "bertkit", *INNER,
    )  # fmt: skip
    assert made.env == {"APPTAINERENV_XDG_CACHE_HOME": "/tmp/bertkit-1000"}  # noqa: S108


def test_the_hosts_shared_memory_has_no_size(tmp_path: Path) -> None:
    made = plan_container(container("docker", devices=("--ipc=host",)), INNER, here(tmp_path))
    assert not [word for word in made.argv if word.startswith("--shm-size")]
    with pytest.raises(UserError, match="drop --shm-size"):
        plan_container(container("docker", devices=("--ipc=host",), shm_size="1g"), INNER, here(tmp_path))
    with pytest.raises(UserError, match="drop --shm-size"):
        plan_container(container("apptainer", shm_size="1g"), INNER, here(tmp_path))
    assert "--shm-size=64m" in plan_container(container("docker", shm_size="64m"), INNER, here(tmp_path)).argv
    with pytest.raises(UserError, match="'64 MB' is no size"):
        plan_container(container("docker", shm_size="64 MB"), INNER, here(tmp_path))


@pytest.mark.parametrize(
    "mount", ["", "data", ":/data", "glue:", "glue:data", "glue:/a:ro:z", "glue:/a,b", "glue:/a\n"]
)
def test_what_is_no_mount_is_refused(mount: str, tmp_path: Path) -> None:
    (tmp_path / "glue").mkdir()
    with pytest.raises(UserError, match="is none"):
        plan_container(container("docker", mounts=(mount,)), INNER, here(tmp_path))


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """docker would make it, owned by root."""
    with pytest.raises(UserError, match="the mount's source glue is not there"):
        plan_container(container("docker", mounts=("glue:/data",)), INNER, here(tmp_path))


def test_files_that_no_mount_shows_are_named(tmp_path: Path) -> None:
    for name in ("work", "data/glue", "shown"):
        (tmp_path / name).mkdir(parents=True)
    words = ("launch", "--", "train", "--data-dir=../data/glue", "-m", f"{tmp_path}/shown", "-o", "run")
    one = container("docker", mounts=(f"{tmp_path}/shown:{tmp_path}/shown",))
    (warning,) = plan_container(one, words, here(tmp_path / "work")).warnings
    assert warning.startswith("../data/glue is not mounted")
    assert f"--mount {tmp_path}/data/glue:{tmp_path}/data/glue" in warning


@pytest.mark.parametrize("words", [("-o", "/results/run"), ("--output=../run",), ("--output_dir", "~/run")])
def test_results_that_would_be_lost_with_the_container_are_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    inner = ("launch", "--", "train", *words)
    with pytest.raises(UserError, match="would be lost with the container"):
        plan_container(container("docker"), inner, here(tmp_path))
    if words[0] == "-o":
        plan_container(container("docker", mounts=(f"{tmp_path}:/results",)), inner, here(tmp_path))


def test_the_engine_is_chosen_by_the_image_and_by_what_is_here() -> None:
    podman_alone = {"podman": "/usr/bin/podman"}.get
    assert find_engine("", "bertkit:cpu", which=podman_alone) == "podman"
    assert find_engine("", "bertkit:cpu", which=str) == "docker"
    assert find_engine("", "images/b.sif", which=str) == "apptainer"
    assert find_engine("", "docker://ghcr/b", which=str) == "apptainer"
    assert find_engine("", "b.sif", dry_run=True, which=podman_alone) == "apptainer"
    with pytest.raises(UserError, match=r"no apptainer on this machine to start b\.sif"):
        find_engine("", "b.sif", which=podman_alone)
    with pytest.raises(UserError, match="no docker on"):
        find_engine("docker", "bertkit:cpu", which=podman_alone)
    with pytest.raises(UserError, match="it is for --slurm"):
        find_engine("pyxis", "b.sqsh", which=str)
    with pytest.raises(UserError, match="choose docker, podman, apptainer"):
        find_engine("lxc", "b", which=str)


def test_variables_that_name_this_hosts_files_and_keys_stay_outside() -> None:
    env = dict.fromkeys(["BERTKIT_BACKEND", "BERTKIT_CACHE", "BERTKIT_API_KEY", "NCCL_DEBUG", "HOME", "HF_TOKEN"], "x")
    assert forwarded(("NCCL_",), ("HF_TOKEN", "NOT_SET"), env) == ("BERTKIT_BACKEND", "HF_TOKEN", "NCCL_DEBUG")


# ---- the options of the command ----

USUAL: dict[str, object] = dict((*cli.PASSED.values(), *cli.REFUSED.values()))


def options(**given: object) -> LaunchOptions:
    rest = {"command": ("train", "-t", "mrpc"), "container": "bertkit:cpu", "container_engine": "", "slurm": None,
            "container_options": (), "mounts": (), "shm_size": "", "dry_run": False, "json": False, "submit": False,
            "nodes": 1, "sbatch": ()}  # fmt: skip
    return LaunchOptions(**{**rest, **USUAL, **given})  # type: ignore[arg-type]


def test_every_option_is_passed_on_or_refused_or_used_outside() -> None:
    fields = {field.name for field in dataclasses.fields(LaunchOptions)}
    inside, refused = {name for name, _ in cli.PASSED.values()}, {name for name, _ in cli.REFUSED.values()}
    assert inside | refused | cli.OUTSIDE | cli.OF_SLURM == fields
    assert inside & refused == inside & cli.OUTSIDE == refused & cli.OUTSIDE == set()


def test_the_defaults_are_those_of_the_command() -> None:
    """One that is not passed on since it is the default must be the default inside, too."""
    import inspect

    from bertkit.cli.launch import launch

    usual = {name: one.default for name, one in inspect.signature(launch).parameters.items()}
    for field, value in (*cli.PASSED.values(), *cli.REFUSED.values()):
        assert (usual[field] or type(value)() if value == () else usual[field]) == value, field


def test_the_words_inside_are_those_outside_without_the_container() -> None:
    given = options(
        processes=2, forward=("A", "B"), tag_output=True, logs=Path("logs"), mounts=("/a:/b",), threads="share"
    )
    assert cli.inner_words(given) == [
        "launch", "--processes", "2", "--forward", "A", "--forward", "B", "--tag-output", "--logs", "logs",
        "--", "train", "-t", "mrpc",
    ]  # fmt: skip
    cli.check_container(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"container": "", "mounts": ("/a:/b",)}, "--mount without a container"),
        ({"container": "", "shm_size": "1g"}, "--shm-size without a container"),
        ({"container": "", "container_engine": "docker"}, "--container-engine without a container"),
        ({"container": "", "container_options": ("--pid=host",)}, "--container-option without a container"),
        ({"hosts": "a,b"}, "--hosts with --container"),
        ({"topology": Path("two.xml")}, "--topology with --container"),
        ({"slurm": Path("r"), "shm_size": "1g"}, "--shm-size with --slurm"),
        ({"slurm": Path("r"), "container_engine": "docker"}, "Slurm starts no processes by docker"),
        ({"slurm": Path("r"), "container_options": ("--nv",)}, "pyxis takes no further options"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.check_container(options(**given))


def test_a_sif_under_slurm_is_apptainers() -> None:
    assert cli.by_apptainer(options(container="b.sif"))
    assert cli.by_apptainer(options(container="docker://b", container_engine="apptainer"))
    assert not cli.by_apptainer(options(container="b.sqsh"))
    assert not cli.by_apptainer(options(container="b.sif", container_engine="pyxis"))


# ---- devices ----


def container_options(backend: object, engine: str) -> list[str] | UserError:
    try:
        return list(backend.container_options(engine)) if isinstance(backend, ShowsDevices) else []
    except UserError as error:
        return error


def test_each_backend_says_how_its_devices_are_shown_or_that_it_is_not_known() -> None:
    found = {
        (name, engine): container_options(backend, engine)
        for name, backend in installed().items()
        for engine in ("docker", "podman", "apptainer")
    }
    assert found["cpu", "docker"] == found["null", "apptainer"] == []
    assert found["cuda", "docker"][0] == "--gpus=all"
    assert found["cuda", "podman"][0] == "--device=nvidia.com/gpu=all"
    assert found["cuda", "apptainer"] == ["--nv"]
    assert found["gaudi", "docker"][0] == "--runtime=habana"
    assert found["xpu", "podman"][0] == "--device=/dev/dri"
    for unknown in (("gaudi", "podman"), ("accelerator", "docker")):
        assert "--container-option" in str(found[unknown])


def test_device_files_that_are_here_are_shown_each(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    with pytest.raises(UserError, match="no /dev/iluvatar"):
        IluvatarBackend().shown("docker", tmp_path)
    for number in (0, 10, 2):
        (tmp_path / f"dev/iluvatar{number}").touch()
    shown = IluvatarBackend().shown("podman", tmp_path)
    assert shown == ("--device=/dev/iluvatar0", "--device=/dev/iluvatar2", "--device=/dev/iluvatar10")
    assert IluvatarBackend().shown("apptainer", tmp_path) == ()


def test_amds_gpus_have_their_own_device_files(tmp_path: Path) -> None:
    """They are the backend cuda's too, through torch's ROCm build."""
    (tmp_path / "dev").mkdir()
    assert bertkit_cuda.shown("docker", tmp_path)[0] == "--gpus=all"  # a machine that the plan is not for
    (tmp_path / "dev/kfd").touch()
    assert bertkit_cuda.shown("docker", tmp_path)[:2] == ("--device=/dev/kfd", "--device=/dev/dri")
    assert bertkit_cuda.shown("apptainer", tmp_path) == ("--rocm",)
    (tmp_path / "dev/nvidiactl").touch()
    assert bertkit_cuda.shown("apptainer", tmp_path) == ("--nv",)


def test_the_group_of_the_device_files_comes_along(tmp_path: Path) -> None:
    node, device = tmp_path / "dev/dri/renderD128", tmp_path / "sys/class/drm/renderD128/device"
    node.parent.mkdir(parents=True)
    node.touch()
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    assert XpuBackend().shown("docker", tmp_path) == ("--device=/dev/dri", f"--group-add={node.stat().st_gid}")


# ---- started, with stand-ins ----

STAND_IN = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv, {{k: v for k, v in os.environ.items() if k.startswith(("APPTAINERENV_", "NCCL_"))}}]))
sys.exit(130)
"""


@pytest.mark.parametrize(("program", "image"), [("docker", "bertkit:cuda"), ("apptainer", "bertkit.sif")])
def test_the_container_is_started_in_the_place_of_bertkit(program: str, image: str, tmp_path: Path) -> None:
    """Its exit code, and the signals that it gets, are then those of bertkit."""
    stand_in = tmp_path / "bin" / program
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    words = ["launch", "--container", image, "-n", "2", "--", "train", "--backend", "cuda", "-t", "mrpc"]
    env = {**command_env(tmp_path), "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "NCCL_DEBUG": "INFO"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bertkit", *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    argv, variables = json.loads(done.stdout)
    assert argv[-9:] == ["launch", "--processes", "2", "--", "train", "--backend", "cuda", "-t", "mrpc"]
    assert ("--gpus=all" if program == "docker" else "--nv") in argv
    assert variables.get("NCCL_DEBUG" if program == "docker" else "APPTAINERENV_NCCL_DEBUG") == "INFO"
    assert "INFO" not in " ".join(argv)


def test_a_dry_run_shows_it_and_checks_the_command(tmp_path: Path) -> None:
    words = ["launch", "--container", "bertkit:cpu", "--container-engine", "podman", "-n", "2", "--dry-run", "--"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bertkit", *words, "train", "-t", "mrpc", "--no-such-option"],
        cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
