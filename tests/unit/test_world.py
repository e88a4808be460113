"""Who this process is, from the environment of each launcher; what is set by half is refused, never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.world import SLURM, SPELLINGS, World, first_node, from_env, tasks_on_node
from bertkit.errors import UserError

MASTER = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def environment(launcher: str, *values: object, master: bool = True) -> dict[str, str]:
    mark = {"PALS_RANKID": str(values[0])} if launcher == "PALS" else {}
    return dict(zip(SPELLINGS[launcher], map(str, values), strict=True)) | mark | (MASTER if master else {})


def test_no_launcher_is_one_process_alone() -> None:
    assert from_env({}) == from_env(MASTER) == World(0, 1, 0, 1, "alone")
    assert from_env({}).is_first


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, World(0, 1, 0, 1, "torchrun")),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER},
            World(5, 8, 1, 4, "torchrun", "node1:29500"),
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                **MASTER,
            },
            World(3, 4, 1, 2, "Open MPI", "node1:29500"),
        ),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", **MASTER},
            World(1, 2, 1, 2, "Hydra", "node1:29500"),
        ),
    ],
)
def test_how_launchers_spell_it(env: dict[str, str], wanted: World) -> None:
    world = from_env(env)
    assert world == wanted
    assert world.is_first == (wanted.rank == 0)


@pytest.mark.parametrize("launcher", SPELLINGS)
def test_any_of_the_four_that_is_missing_is_named(launcher: str) -> None:
    whole = environment(launcher, 0, 2, 0, 2)
    names = SPELLINGS[launcher]
    # without LOCAL_WORLD_SIZE the ranks ask one another: tests/unit/test_clusters.py
    for missing in names[:3] if launcher == "torchrun" else names:
        for env in (
            {name: value for name, value in whole.items() if name != missing},
            whole | {missing: ""},
        ):
            with pytest.raises(UserError) as caught:
                from_env(env)
            assert f"set by half: {launcher} gives " in caught.value.cause
            assert caught.value.cause.endswith(f" but not {missing}")


@pytest.mark.parametrize("launcher", SPELLINGS)
def test_a_job_of_one_process_needs_no_local_numbers(launcher: str) -> None:
    rank, size, local_rank, _ = SPELLINGS[launcher]
    mark = {"PALS_RANKID": "0"} if launcher == "PALS" else {}
    assert from_env({rank: "0", size: "1", **mark, **MASTER}) == World(0, 1, 0, 1, launcher, "node1:29500")
    with pytest.raises(UserError, match="set by half"):
        from_env({rank: "0", size: "2", **mark})
    with pytest.raises(UserError, match="inconsistent"):
        from_env({rank: "0", size: "1", local_rank: "3", **mark, **MASTER})


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize("which", [0, 1])
def test_rank_or_size_alone_is_half(launcher: str, which: int) -> None:
    mark = {"PALS_RANKID": "0"} if launcher == "PALS" else {}
    with pytest.raises(UserError, match="set by half"):
        from_env({SPELLINGS[launcher][which]: "0"} | mark | MASTER)


@pytest.mark.parametrize("launcher", SPELLINGS)
def test_local_variables_alone_are_another_programs(launcher: str) -> None:
    names = SPELLINGS[launcher]
    assert from_env({names[2]: "0", names[3]: "1"}) == World()


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize(
    "values", [(2, 2, 0, 1), (-1, 2, 0, 1), (0, 0, 0, 0), (0, 2, 1, 1), (0, 2, -1, 1), (0, 2, 0, 0), (0, 2, 2, 3)]
)
def test_inconsistent_numbers_are_refused(launcher: str, values: tuple[int, ...]) -> None:
    inconsistent = f"environment is inconsistent: rank {values[0]} of {values[1]}"
    with pytest.raises(UserError, match=rf"{launcher}'s ({inconsistent}|\w+ is '-1', not a whole number)"):
        from_env(environment(launcher, *values))


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("text", ["one", "1.0", "0x1", "²"])
def test_what_is_no_number_is_refused(launcher: str, place: int, text: str) -> None:
    values: list[object] = [0, 2, 0, 2]
    values[place] = text
    with pytest.raises(UserError, match="not a whole number") as caught:
        from_env(environment(launcher, *values))
    assert repr(text) in caught.value.cause


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize(
    ("master", "address"),
    [
        ({}, ""), ({"MASTER_ADDR": "a"}, ""), ({"MASTER_PORT": "1"}, ""), ({"MASTER_ADDR": "", "MASTER_PORT": "1"}, ""),
        (MASTER, "node1:29500"), ({"MASTER_ADDR": "fe80::1", "MASTER_PORT": "7"}, "fe80::1:7"),
    ],
)  # fmt: skip
def test_the_meeting_place_is_passed_on_or_left_open(launcher: str, master: dict[str, str], address: str) -> None:
    assert from_env(environment(launcher, 0, 2, 0, 2, master=False) | master).address == address


def test_the_inner_of_two_launchers_wins() -> None:
    both = environment("Hydra", 1, 2, 1, 2) | environment("torchrun", 0, 4, 0, 4)
    assert from_env(both).launcher == "torchrun"


@given(st.sampled_from(sorted(SPELLINGS)), st.lists(st.integers(-1, 5), min_size=4, max_size=4))
def test_a_world_is_consistent_or_refused(launcher: str, values: list[int]) -> None:
    try:
        world = from_env(environment(launcher, *values))
    except UserError:
        world = None
    rank, size, local_rank, local_size = values
    fits = 0 <= rank < size and 0 <= local_rank < local_size <= size
    assert (world is not None) == fits
    if world is not None:
        assert [world.rank, world.size, world.local_rank, world.local_size] == values


# ---- Slurm ----

# As srun sets them in the 7th of 11 processes of step 3, on the second of three nodes.
STEP = {
    "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "11", "SLURM_PROCID": "6", "SLURM_LOCALID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[003-004,7]",
    "SLURM_JOB_ID": "1234567", "SLURM_NTASKS": "11",
}  # fmt: skip
# A batch script's own: it is no process of a step.
BATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def test_a_step_of_slurm() -> None:
    assert from_env(STEP) == World(6, 11, 2, 4, "Slurm", "gpu003:24570")
    last = STEP | {"SLURM_PROCID": "10", "SLURM_LOCALID": "2", "SLURM_NODEID": "2"}
    assert from_env(last) == World(10, 11, 2, 3, "Slurm", "gpu003:24570")
    assert from_env(STEP | {"MASTER_ADDR": "head"}).address == "head:24570"
    assert from_env(STEP | {"MASTER_PORT": "5"}).address == "gpu003:5"
    assert from_env(STEP | MASTER).address == "node1:29500"


@pytest.mark.parametrize(
    "step",
    [{}, {"SLURM_STEP_ID": "batch"}, {"SLURM_STEP_ID": ""}, {"SLURM_STEP_ID": "4294967291"}, {"SLURM_STEP_ID": "²"}],
)
def test_a_batch_script_is_alone(step: dict[str, str]) -> None:
    assert from_env(BATCH | step) == World()
    assert from_env(BATCH | step | {"SLURM_STEP_NUM_TASKS": "8"}) == World()


def test_a_step_without_its_size_is_alone() -> None:
    assert from_env({name: value for name, value in STEP.items() if name != "SLURM_STEP_NUM_TASKS"}) == World()


@pytest.mark.parametrize("name", [name for name in SLURM if name != "SLURM_STEP_NUM_TASKS"])
def test_a_step_by_half_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"set by half: Slurm gives .* but not {name}"):
        from_env({key: value for key, value in STEP.items() if key != name})


@pytest.mark.parametrize(
    "wrong",
    [
        {"SLURM_PROCID": "11"}, {"SLURM_LOCALID": "4"}, {"SLURM_NODEID": "3"}, {"SLURM_NODEID": "-1"},
        {"SLURM_STEP_TASKS_PER_NODE": "4x2"}, {"SLURM_STEP_TASKS_PER_NODE": "12,1", "SLURM_NODEID": "0"},
        {"SLURM_STEP_NODELIST": "gpu[003"}, {"SLURM_PROCID": "one"}, {"SLURM_JOB_ID": "x"},
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_together_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"Slurm|SLURM"):
        from_env(STEP | wrong)


def test_mpi_and_torchrun_within_a_step_come_first() -> None:
    assert from_env(STEP | environment("Open MPI", 1, 2, 1, 2)).launcher == "Open MPI"
    assert from_env(STEP | environment("Hydra", 1, 2, 1, 2)).launcher == "Hydra"
    assert from_env(STEP | environment("torchrun", 1, 2, 1, 2) | {"TORCHELASTIC_RUN_ID": "x"}).launcher == "torchrun"
    inner = environment("torchrun", 12, 44, 0, 4)  # of another launcher, started in each task
    assert from_env(STEP | inner).launcher == "torchrun"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (STEP | environment("torchrun", 1, 2, 1, 2), "RANK says rank 1 of 2, Slurm rank 6 of 11"),
        (STEP | environment("torchrun", 7, 11, 1, 4), "RANK says rank 7 of 11, Slurm rank 6 of 11"),
        (
            environment("torchrun", 0, 1, 0, 1) | environment("Hydra", 1, 2, 1, 2),
            "RANK says rank 0 of 1, Hydra rank 1 of 2",
        ),
        (
            environment("Open MPI", 1, 2, 1, 2) | environment("Hydra", 0, 2, 0, 2),
            "OMPI_COMM_WORLD_RANK says rank 1 of 2, Hydra rank 0 of 2",
        ),
    ],
)  # fmt: skip
def test_sources_that_contradict_are_named_both(env: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        from_env(env)


def test_ranks_copied_from_a_step_are_the_steps() -> None:
    """RANK=$SLURM_PROCID and WORLD_SIZE=$SLURM_NTASKS, without the local ones: nobody need be asked."""
    assert from_env(STEP | {"RANK": "6", "WORLD_SIZE": "11"}) == from_env(STEP)
    assert from_env(STEP | {"RANK": "6", "WORLD_SIZE": "11"} | MASTER).address == "node1:29500"
    with pytest.raises(UserError, match="RANK says rank 0 of 2, Slurm rank 6 of 11"):
        from_env(STEP | {"RANK": "0", "WORLD_SIZE": "2"} | MASTER)


def test_sources_that_agree_are_one() -> None:
    same = {"RANK": "6", "WORLD_SIZE": "11", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}  # as scripts copy Slurm's
    assert from_env(STEP | same) == World(6, 11, 2, 4, "torchrun")


def test_the_pmi_of_srun_is_not_hydra_by_half() -> None:
    assert from_env(STEP | {"PMI_RANK": "6", "PMI_SIZE": "11"}) == from_env(STEP)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 5)), min_size=1), st.data())
def test_tasks_per_node_as_slurm_folds_them(runs: list[tuple[int, int]], data: st.DataObject) -> None:
    flat = [count for count, times in runs for _ in range(times)]
    text = ",".join(f"{count}(x{times})" if times > 1 else f"{count}" for count, times in runs)
    node = data.draw(st.integers(0, len(flat) - 1))
    assert tasks_on_node(text, node) == flat[node]
    with pytest.raises(UserError, match=f"tells of {len(flat)} nodes"):
        tasks_on_node(text, len(flat))


def test_a_long_run_of_nodes_is_not_written_out() -> None:
    assert tasks_on_node("2(x4000000000),1", 4_000_000_000) == 1


names = st.from_regex(r"[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,3})?", fullmatch=True)
numbers = st.from_regex(r"[0-9]{1,4}", fullmatch=True)
stretches = st.lists(st.tuples(numbers, st.none() | numbers), min_size=1, max_size=3)


@given(names, st.none() | stretches, st.lists(names, max_size=2), st.sampled_from(["", "n", "-ib"]))
def test_the_first_of_a_node_list(
    prefix: str, inner: list[tuple[str, str | None]] | None, rest: list[str], end: str
) -> None:
    if inner is None:
        assert first_node(",".join([prefix, *rest])) == prefix
        return
    text = ",".join(low if high is None else f"{low}-{high}" for low, high in inner)
    assert first_node(",".join([f"{prefix}[{text}]{end}", *rest])) == f"{prefix}{inner[0][0]}{end}"
    assert first_node(f"{prefix}[{text}]x[{text}]") == f"{prefix}{inner[0][0]}x{inner[0][0]}"


@given(st.text(alphabet="ab01[],-()x", max_size=12))
def test_any_other_text_is_refused_or_read(text: str) -> None:
    for parse in (first_node, lambda other: str(tasks_on_node(other, 0))):
        try:
            found = parse(text)
        except UserError:
            continue
        assert found
        assert not set(found) & set("[],")
