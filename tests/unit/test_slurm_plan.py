"""Slurm's batch script: golden files, words that survive, lines that cannot be slipped in, what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.distributed.topology import Core, Machine
from bertkit.errors import UserError
from bertkit.launch.interface import LaunchPlan, Request, SlurmOptions, find_launcher
from bertkit.launch.job import hand_in
from bertkit_slurm import SlurmLauncher
from conftest import ROOT
from slurm_stand_in import run_script, slurm

GOLDEN = ROOT / "tests" / "golden" / "slurm"
__all__ = ["slurm"]  # a fixture
MACHINE = Machine(tuple(Core((2 * n, 2 * n + 1), n // 8, n // 8) for n in range(16)))
MRPC = ("train", "-t", "mrpc", "-m", "models/minilm", "-o", "runs/mrpc", "--overwrite")
REQUEST = Request(MRPC, processes=4, allocator="system")
CASES = {
    "one_node": REQUEST,
    "two_nodes": replace(
        REQUEST, processes=None, domain="socket", interface="ib0", port=29500, batch=SlurmOptions(nodes=2)
    ),
    "container": replace(
        REQUEST,
        python="python",
        batch=SlurmOptions(
            container="/images/bertkit v1.sqsh", mounts=("/data:/data:ro", "/scratch/my files:/scratch")
        ),
    ),
    "apptainer": replace(
        REQUEST,
        python="python3",
        batch=SlurmOptions(
            container="/images/bertkit v1.sif",
            mounts=("/data:/data:ro", "/scratch/my files:/scratch"),
            apptainer=True,
            container_options=("--nv", "--env=A=b c"),
        ),
    ),
    "options": replace(
        REQUEST,
        processes=None,
        cards=(0, 0, 1, 1),
        reserve_cores=2,
        batch=SlurmOptions(
            options=("--time=02:00:00", "-p long", "--gpus-per-node=4", "-c8", "--hint=nomultithread"),
            name="mrpc-large",
            output="logs/%x %j.out",
            requeue=False,
            signal_seconds=300,
        ),
    ),
}


def plan(request: Request) -> LaunchPlan:
    return SlurmLauncher().plan(request, MACHINE, {})


def directives(script: str) -> list[str]:
    """The `#SBATCH` lines that sbatch heeds: those before the first command."""
    found = []
    for line in script.split("\n"):
        if line and not line.startswith("#"):
            return found
        if line.startswith("#SBATCH"):
            found.append(line)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_scripts_are_the_golden_ones(name: str) -> None:
    """After a wanted change: BERTKIT_TEST_WRITE_GOLDEN=1 pytest tests/unit/test_slurm_plan.py, and read the diff."""
    path, script = GOLDEN / f"{name}.sh", plan(CASES[name]).script
    if os.environ.get("BERTKIT_TEST_WRITE_GOLDEN"):
        path.write_text(script, encoding="utf-8")
    assert script == path.read_text(encoding="utf-8")
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_plan_names_every_process() -> None:
    made = plan(CASES["two_nodes"])
    assert [(one.rank, one.host, one.local_rank) for one in made.processes] == [
        (0, "node 1 of 2", 0), (1, "node 1 of 2", 1), (2, "node 2 of 2", 0), (3, "node 2 of 2", 1),
    ]  # fmt: skip
    assert {one.place.cores for one in made.processes} == {8}
    assert {one.env["OMP_NUM_THREADS"] for one in made.processes} == {"8"}
    assert "taken to be like this machine" in made.warnings[0]
    made = plan(CASES["options"])
    assert {one.env["OMP_NUM_THREADS"] for one in made.processes} == {"6"}  # 8 less 2
    assert made.warnings == ()


def test_the_ranks_get_their_words_and_environment(slurm: Path, tmp_path: Path) -> None:
    done, calls = run_script(plan(CASES["two_nodes"]).script, slurm, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [call["name"] for call in calls] == ["scontrol", "srun"]
    rank = calls[1]
    assert rank["command"] == ["python3", "-P", "-m", "bertkit.launch.rank_process", *MRPC]
    assert rank["env"]["MASTER_ADDR"] == "n1"
    assert rank["env"]["MASTER_PORT"] == "29500"
    assert rank["env"]["OMP_NUM_THREADS"] == "8"
    assert rank["env"]["GLOO_SOCKET_IFNAME"] == "ib0"
    assert rank["argv"][:3] == ["--cpus-per-task=4", "--cpu-bind=cores", "--kill-on-bad-exit=1"]


def test_apptainer_starts_each_rank_in_the_image(slurm: Path, tmp_path: Path) -> None:
    done, calls = run_script(plan(CASES["apptainer"]).script, slurm, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = calls[1]["argv"]
    at = words.index("apptainer")
    assert not [word for word in words if word.startswith("--container")]
    assert words[at : words.index("env")] == [
        "apptainer", "exec", "--no-home", "--pwd=/w d", "--bind=/w d", "--bind=/data:/data:ro",
        "--bind=/scratch/my files:/scratch", "--nv", "--env=A=b c", "/images/bertkit v1.sif",
    ]  # fmt: skip


def test_options_for_apptainer_need_it() -> None:
    with pytest.raises(UserError, match="options of apptainer for a container that Slurm starts"):
        plan(replace(REQUEST, batch=SlurmOptions(container="b.sqsh", container_options=("--nv",))))


@pytest.mark.parametrize(("job", "port"), [("7", "10007"), ("39999", "29999"), ("40000", "10000")])
def test_the_port_comes_from_the_job(slurm: Path, tmp_path: Path, job: str, port: str) -> None:
    _, calls = run_script(plan(REQUEST).script, slurm, tmp_path, SLURM_JOB_ID=job)
    assert calls[1]["env"]["MASTER_PORT"] == port


def test_a_container_gets_its_image_and_mounts(slurm: Path, tmp_path: Path) -> None:
    _, calls = run_script(plan(CASES["container"]).script, slurm, tmp_path)
    assert [word for word in calls[1]["argv"] if word.startswith("--container")] == [
        "--container-image=/images/bertkit v1.sqsh",
        "--container-mounts=/w d:/w d,/data:/data:ro,/scratch/my files:/scratch",
        "--container-workdir=/w d",
    ]


def test_an_allocator_is_loaded_where_the_node_has_it(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib a.so"
    monkeypatch.setattr("bertkit_slurm.find_allocator", lambda choice: str(library))
    script = plan(REQUEST).script
    _, calls = run_script(script, slurm, tmp_path)
    assert "LD_PRELOAD" not in calls[1]["env"]
    library.touch()
    _, calls = run_script(script, slurm, tmp_path)
    assert any(word == f"LD_PRELOAD={library}" for word in calls[1]["argv"])
    assert "LD_PRELOAD" not in plan(CASES["container"]).script


WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "$(touch hurt)",
        "`touch hurt`",
        "a b",
        "'",
        '"',
        "\n#SBATCH --uid=0\n",
        "\r\n",
        "$HOME",
        "\\",
        "!!",
        "*",
        "--",
        "-n",
    ]
)


@settings(max_examples=12, deadline=None)
@given(words=st.lists(WORD, max_size=30), python=st.sampled_from(["python3", "/a b/it's $x/python"]))
def test_any_words_arrive_as_they_were(slurm: Path, words: list[str], python: str) -> None:
    folder = slurm / "words"
    folder.mkdir(exist_ok=True)
    request = replace(REQUEST, command=("train", *words), python=python)
    script = plan(request).script
    assert "\r" not in script
    assert directives(script) == directives(plan(REQUEST).script)
    assert not any(line.startswith("#SBATCH") for line in script.split("\n")[len(directives(script)) + 1 :])
    done, calls = run_script(script, slurm, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls[1]["command"] == [python, "-P", "-m", "bertkit.launch.rank_process", "train", *words]
    assert not (folder / "hurt").exists()


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "options": st.lists(WORD.map(lambda word: f"--comment={word}") | WORD, max_size=3).map(tuple),
            "name": st.just("bertkit") | WORD,
            "output": WORD,
            "container": WORD,
            "mounts": st.lists(WORD.map(lambda word: f"/{word}:/b"), max_size=2).map(tuple),
        }
    )
)
def test_no_batch_setting_adds_a_line(settings: dict) -> None:
    try:
        script = plan(replace(REQUEST, batch=SlurmOptions(**settings))).script
    except UserError:
        return
    given = len(settings["options"]) + bool(settings["output"])
    own = [line for line in directives(plan(REQUEST).script) if line.startswith("#SBATCH --")]
    assert len(own) - 2 <= len(directives(script)) - given <= len(own)  # options may take the place of two of ours
    assert len(re.findall(r"^#SBATCH", script, re.MULTILINE)) == len(directives(script))
    assert subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True).returncode == 0


def test_the_job_number_comes_back(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{slurm}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert hand_in(LaunchPlan(("sbatch", "--parsable"), {}, ()), Path("my job.sh")) == "7"
    assert json.loads((tmp_path / "calls.jsonl").read_text())["argv"] == ["--parsable", "my job.sh"]
    monkeypatch.setenv("SBATCH_SAYS", "")
    monkeypatch.setenv("SBATCH_CODE", "1")
    with pytest.raises(UserError, match=r"sbatch refused job.sh: exit status 1; correct"):
        hand_in(LaunchPlan(("sbatch", "--parsable"), {}, ()), Path("job.sh"))


def test_without_sbatch_the_script_is_to_be_handed_in_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"no sbatch on this machine; run `sbatch job\.sh` where it is, as on a login node"
    ):
        hand_in(LaunchPlan(("sbatch", "--parsable"), {}, ()), Path("job.sh"))


def test_it_is_found_by_its_name() -> None:
    try:
        assert find_launcher("slurm").name == "slurm"
    except UserError:
        pytest.skip("the package is not installed with its entry points")
