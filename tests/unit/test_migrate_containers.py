"""Old launchers that start a container by themselves: Intel's --docker-image, NVIDIA's build.sh and launch.sh."""

from __future__ import annotations

import pytest

from bertkit.cli.launch import STARTED
from bertkit.cli.migration import containers
from bertkit.cli.migration.translate import migrate
from bertkit.engine.registry import installed

INTEL = (
    "python launch_benchmark.py --mode=training --precision=bfloat16 --docker-image intel/i:1 {more} -- "
    "train_option=SQuAD init_checkpoint=/m/bert_model.ckpt"
)
SQUAD = "bash scripts/run_squad.sh ck.pt 2.0 4 3e-5 0.1 fp16 8 42 {data} vocab.txt {out} train"


def new(old: str, backend: str = "") -> str:
    (command,) = migrate(old, backend).commands
    return str(command)


def notes(old: str) -> str:
    return "\n".join(map(str, migrate(old).notes))


def test_intels_volumes_are_mounts_of_an_image_of_ours() -> None:
    old = INTEL.format(more="--volume /m:/m --volume=/s --shm-size 64m")
    assert new(old).startswith(
        "bertkit launch --container bertkit:cpu --mount /m:/m --mount /s:/s --shm-size 64m -n 1 -- train --backend cpu"
    )
    assert "intel/i:1 has no bertkit" in notes(old)


def test_what_intels_launcher_mounts_by_itself_is_mounted() -> None:
    old = (
        "python launch_benchmark.py --mode=inference --precision=fp32 --docker-image i --data-location /d "
        "--checkpoint /c --volume /d:/d --accuracy-only"
    )
    made = [str(command) for command in migrate(old).commands]
    assert made[0].startswith("cp -n /d/bert_config.json")
    assert made[1].startswith("bertkit launch --container bertkit:cpu --mount /d:/d --mount /c:/c -n 1 -- evaluate /c")


def test_results_are_kept_outside_of_the_container() -> None:
    old = INTEL.format(more="--volume /m:/m") + " output_dir=/results/out"
    assert "--mount /m:/m --mount /results/out:/results/out -n 1" in new(old)
    assert "to do: make /results/out before" in notes(old)
    assert "make /m/out" not in notes(old.replace("/results/out", "/m/out"))


def test_one_process_a_socket_is_started_within() -> None:
    made = new(INTEL.format(more="--mpi_num_processes=2"))
    assert made.startswith("bertkit launch --container bertkit:cpu --mpi-sockets -- train")


def test_several_hosts_stay_outside_of_a_container() -> None:
    old = INTEL.format(more="--mpi_num_processes=2 --mpi_hostnames=a,b")
    assert new(old).startswith("bertkit launch --mpi-sockets --hosts a,b -- train")
    assert "no equivalent, dropped: the container: for several hosts" in notes(old)


def test_volumes_without_an_image_are_named() -> None:
    old = INTEL.format(more="--volume /a:/a").replace("--docker-image intel/i:1 ", "")
    assert "--container" not in new(old)
    assert "no equivalent, dropped: --volume: there is no --docker-image" in notes(old)


def test_the_image_is_the_backends() -> None:
    for name in ("cuda", "nvidia"):  # and its alias
        assert "--container bertkit:cuda " in new(INTEL.format(more=""), name)
    made = migrate(INTEL.format(more=""), "jax")
    assert "--container" not in str(made.commands[0])
    assert "there is no image for the backend jax" in "\n".join(map(str, made.notes))


def test_a_command_of_launch_sh_runs_in_the_image_with_its_files_as_they_are_outside() -> None:
    script = SQUAD.format(data="/workspace/bert/data/squad", out="/results")
    old = f"bash scripts/docker/launch.sh '{script}' 0,1 bridge"
    made = new(old)
    assert made.startswith("CUDA_VISIBLE_DEVICES=0,1 bertkit launch --container bertkit:cuda -n 8 -- train")
    assert "--data-dir ./data/squad" in made
    assert "-o ./results" in made
    assert "network bridge: processes of one host need none" in notes(old)


@pytest.mark.parametrize("old", ["bash scripts/docker/launch.sh", "scripts/docker/launch.sh bash all"])
def test_a_shell_in_the_container_is_described(old: str) -> None:
    made = migrate(old)
    assert made.commands == ()
    assert "--entrypoint bash bertkit:cuda" in str(made.notes[0])


def test_build_sh_is_make_image() -> None:
    made = migrate("bash scripts/docker/build.sh")
    assert made.commands == ()
    assert "make image TARGET=cuda BASE=" in str(made.notes[0])


def test_the_lists_are_those_of_launch_and_of_the_images() -> None:
    assert {*containers.STARTED} == {*STARTED} - {"data prepare"}
    assert {*containers.IMAGES} <= installed().keys()
