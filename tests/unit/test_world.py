"""Who this process is, from the environment of each launcher; what is set by half is refused, never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.world import SPELLINGS, World, from_env

MASTER = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def environment(launcher: str, *values: object, master: bool = True) -> dict[str, str]:
    return dict(zip(SPELLINGS[launcher], map(str, values), strict=True)) | (MASTER if master else {})


def test_no_launcher_is_one_process_alone() -> None:
    assert from_env({}) == from_env(MASTER) == World(0, 1, 0, 1, "alone")
    assert from_env({}).is_first


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, World(0, 1, 0, 1, "torchrun")),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER},
            World(5, 8, 1, 4, "torchrun"),
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                **MASTER,
            },
            World(3, 4, 1, 2, "Open MPI"),
        ),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", **MASTER},
            World(1, 2, 1, 2, "Hydra"),
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
    for missing in names:
        for env in (
            {name: value for name, value in whole.items() if name != missing},
            whole | {missing: ""},
        ):
            with pytest.raises(UserError) as caught:
                from_env(env)
            assert f"set by half: {launcher} gives " in caught.value.cause
            assert caught.value.cause.endswith(f" but not {missing}")


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize("which", [0, 1])
def test_rank_or_size_alone_is_half(launcher: str, which: int) -> None:
    with pytest.raises(UserError, match="set by half"):
        from_env({SPELLINGS[launcher][which]: "0"} | MASTER)


@pytest.mark.parametrize("launcher", SPELLINGS)
def test_local_variables_alone_are_another_programs(launcher: str) -> None:
    names = SPELLINGS[launcher]
    assert from_env({names[2]: "0", names[3]: "1"}) == World()


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize(
    "values", [(2, 2, 0, 1), (-1, 2, 0, 1), (0, 0, 0, 0), (0, 2, 1, 1), (0, 2, -1, 1), (0, 2, 0, 0), (0, 2, 2, 3)]
)
def test_inconsistent_numbers_are_refused(launcher: str, values: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"{launcher}'s environment is inconsistent: rank {values[0]} of {values[1]}"):
        from_env(environment(launcher, *values))


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("text", ["one", "1.0", "0x1", "²"])
def test_what_is_no_number_is_refused(launcher: str, place: int, text: str) -> None:
    values: list[object] = [0, 2, 0, 2]
    values[place] = text
    with pytest.raises(UserError, match="holds no number") as caught:
        from_env(environment(launcher, *values))
    assert repr(text) in caught.value.cause


@pytest.mark.parametrize("launcher", SPELLINGS)
@pytest.mark.parametrize(
    "master", [{}, {"MASTER_ADDR": "a"}, {"MASTER_PORT": "1"}, {"MASTER_ADDR": "", "MASTER_PORT": "1"}]
)
def test_several_processes_need_a_meeting_place(launcher: str, master: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"{launcher} started 2 processes but MASTER_ADDR and MASTER_PORT"):
        from_env(environment(launcher, 0, 2, 0, 2, master=False) | master)


@pytest.mark.parametrize("launcher", SPELLINGS)
def test_one_process_needs_none(launcher: str) -> None:
    assert from_env(environment(launcher, 0, 1, 0, 1, master=False)).size == 1


def test_the_first_launcher_of_the_table_wins() -> None:
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
