"""Which cores, threads and environment the processes of a host get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.topology import Core, Machine, machine_of
from bertkit.errors import UserError
from bertkit.launch.affinity import domains, find_allocator, format_places, parse_places, places, rank_env, thread_count
from bertkit.launch.interface import Binding, Domain, Request


def machine(sizes: list[int], smt: int = 1, quota: float | None = None) -> Machine:
    """One socket and node for each of `sizes`, with so many cores of `smt` CPUs; CPU numbers go through."""
    homes = [socket for socket, size in enumerate(sizes) for _ in range(size)]
    cores = [Core(tuple(range(n * smt, n * smt + smt)), socket, socket) for n, socket in enumerate(homes)]
    return machine_of(cores, quota)


def cpus(where: tuple[Binding, ...]) -> list[tuple[int, ...]]:
    return [place.cpus for place in where]


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Up to 8 sockets of up to 3 nodes, uneven, some CPUs left out, CPU numbers shuffled."""
    shape = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=8))
    smt = draw(st.integers(1, 3))
    total = sum(map(sum, shape))
    numbers = draw(st.permutations(range(total * smt)))
    cores, node = [], 0
    for socket, nodes in enumerate(shape):
        for size in nodes:
            for _ in range(size):
                first = len(cores) * smt
                cores.append(Core(tuple(sorted(numbers[first : first + smt])), socket, node))
            node += 1
    return machine_of(cores)


@given(machines(), st.sampled_from(["machine", "socket", "numa"]), st.integers(1, 4), st.integers(1, 12))
def test_shares_are_disjoint_equal_and_within_their_domain(
    machine: Machine, domain: Domain, per_domain: int, count: int
) -> None:
    request = Request((), processes=count if domain == "machine" else None, domain=domain, per_domain=per_domain)
    groups = domains(machine, domain)
    if min(map(len, groups)) < (count if domain == "machine" else per_domain):
        with pytest.raises(UserError, match="--oversubscribe"):
            places(machine, request)
        return
    where = places(machine, request)
    assert len(where) == (count if domain == "machine" else len(groups) * per_domain)
    used = [cpu for place in where for cpu in place.cpus]
    assert len(used) == len(set(used))
    assert set(used) <= {cpu for core in machine.cores for cpu in core.cpus}
    share = min(map(len, groups)) // (count if domain == "machine" else per_domain)
    for rank, place in enumerate(where):
        mine = [core for core in machine.cores if set(core.cpus) & set(place.cpus)]
        assert len(mine) == place.cores == share
        assert place.cpus == tuple(sorted(cpu for core in mine for cpu in core.cpus)), "half a core"
        assert set(place.nodes) == {core.node for core in mine}
        assert set(mine) <= set(groups[rank * len(groups) // len(where)])


@given(machines(), st.lists(st.integers(-1, 3), min_size=1, max_size=8))
def test_cards_get_equal_shares_beside_them(machine: Machine, cards: list[int]) -> None:
    if len(cards) > len(machine.cores):
        return
    where = places(machine, Request((), cards=tuple(cards)))
    assert len(where) == len(cards)
    assert len({place.cores for place in where}) == 1
    assert where[0].cores >= 1
    used = [cpu for place in where for cpu in place.cpus]
    assert len(used) == len(set(used))
    there = {node: sum(core.node == node for core in machine.cores) for node in cards}
    if all(node >= 0 and there[node] >= cards.count(node) for node in cards):
        assert [place.nodes for place in where] == [(node,) for node in cards]
        assert where[0].cores == min(there[node] // cards.count(node) for node in cards)
    else:
        assert where[0].cores == len(machine.cores) // len(cards)


@pytest.mark.parametrize(
    ("sizes", "request_", "expected"),
    [
        ([4, 4], Request((), domain="socket"), [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ([4, 3], Request((), domain="socket"), [(0, 1, 2), (4, 5, 6)]),
        ([4, 4], Request((), domain="numa", per_domain=2), [(0, 1), (2, 3), (4, 5), (6, 7)]),
        ([4, 4], Request((), domain="socket", processes=2), [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ([4, 4], Request((), processes=3), [(0, 1), (2, 3), (4, 5)]),
        ([3], Request(()), [(0, 1, 2)]),
        ([4, 4], Request((), cards=(0, 0, 0, 1)), [(0,), (1,), (2,), (4,)]),
        ([4, 4], Request((), cards=(1, 0)), [(4, 5, 6, 7), (0, 1, 2, 3)]),
        ([4, 4], Request((), cards=(0, 1, 0, 1)), [(0, 1), (4, 5), (2, 3), (6, 7)]),
        ([4, 4], Request((), cards=(-1, -1)), [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ([4, 4], Request((), cards=(5, 5)), [(0, 1, 2, 3), (4, 5, 6, 7)]),  # a node without usable cores
        ([4, 4], Request((), cards=(1, 1, 0, 0), processes=2), [(4, 5), (6, 7)]),  # the first two cards
    ],
)
def test_places(sizes: list[int], request_: Request, expected: list[tuple[int, ...]]) -> None:
    assert cpus(places(machine(sizes), request_)) == expected


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request((), processes=9), "9 processes for 8 physical cores"),
        (Request((), domain="socket", per_domain=4), "4 processes for each socket, one of which has 3"),
        (Request((), domain="socket", per_domain=5), "10 processes for 8 physical cores"),
        (Request((), domain="socket", processes=3), "3 processes are asked for, but 1 for each of 2 socket"),
        (Request((), processes=3, cards=(0, 1)), "3 processes for 2 accelerators"),
        (Request((), processes=0), "fewer than one"),
        (Request((), per_domain=0), "fewer than one"),
    ],
)
def test_what_does_not_fit_is_refused(request_: Request, said: str) -> None:
    with pytest.raises(UserError, match=said):
        places(machine([5, 3]), request_)


def test_oversubscribed_processes_are_not_bound() -> None:
    assert places(machine([2]), Request((), processes=3, oversubscribe=True)) == (Binding(),) * 3
    assert places(machine([2, 1]), Request((), domain="socket", per_domain=2, oversubscribe=True)) == (Binding(),) * 4
    uneven = Request((), domain="numa", per_domain=2, oversubscribe=True)
    assert places(machine([3, 1]), uneven) == (Binding(),) * 4
    assert places(machine([2]), Request((), processes=2, oversubscribe=True))[0].cpus == (0,)  # not needed


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (5.0, 2), (1.0, 1), (0.5, 1), (100.0, 4)])
def test_a_quota_lowers_the_cores_that_count(quota: float | None, cores: int) -> None:
    where = places(machine([4, 4], quota=quota), Request((), domain="socket"))
    assert cpus(where) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [place.cores for place in where] == [cores, cores]


@pytest.mark.parametrize(
    ("changes", "threads", "words"),
    [
        ({}, 6, "6 of 12 physical cores, processes: 2"),
        ({"reserve_cores": 2}, 4, "6 of 12 physical cores, processes: 2; less 2 kept for communication"),
        ({"reserve_cores": 9}, 1, "6 of 12 physical cores, processes: 2; less 9 kept for communication"),
        ({"thread_rule": "physical-minus-2"}, 4, "6 physical cores of a socket - 2"),
        ({"thread_rule": "logical-minus-2"}, 10, "12 logical CPUs of a socket - 2"),
    ],
)
def test_thread_count(changes: dict[str, object], threads: int, words: str) -> None:
    request = replace(Request((), domain="socket"), **changes)  # type: ignore[arg-type]
    two = machine([6, 6], smt=2)
    assert thread_count(two, places(two, request)[1], 2, request) == (threads, words)


def test_the_rules_of_two_leave_one_thread_at_least() -> None:
    for rule in ("physical-minus-2", "logical-minus-2"):
        assert thread_count(machine([1]), Binding(), 1, Request((), thread_rule=rule))[0] == 1


def test_rank_env() -> None:
    assert rank_env(3) == {
        "OMP_NUM_THREADS": "3",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "KMP_BLOCKTIME": "1",
    }
    assert rank_env(3, "/lib/t.so")["LD_PRELOAD"] == "/lib/t.so"
    assert rank_env(3, "/lib/t.so", {"LD_PRELOAD": "/a.so"})["LD_PRELOAD"] == "/a.so:/lib/t.so"
    assert rank_env(3, "/lib/t.so", {"LD_PRELOAD": "/lib/t.so"})["LD_PRELOAD"] == "/lib/t.so"


def test_find_allocator(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    roots = (tmp_path / "absent", first, second)
    assert find_allocator("auto", roots) == ""
    with pytest.raises(UserError, match="jemalloc"):
        find_allocator("jemalloc", roots)
    (first / "libjemalloc.so.2").touch()
    assert find_allocator("auto", roots) == str(first / "libjemalloc.so.2")
    (second / "libtcmalloc_minimal.so.4").touch()
    (first / "libtcmalloc.so.dir").mkdir()
    assert find_allocator("auto", roots) == str(second / "libtcmalloc_minimal.so.4")
    (second / "libtcmalloc.so.4").touch()
    assert find_allocator("tcmalloc", roots) == str(second / "libtcmalloc.so.4")
    assert find_allocator("system", roots) == ""


NUMBERS = st.sets(st.integers(0, 300), max_size=8).map(lambda numbers: tuple(sorted(numbers)))


@given(st.lists(st.builds(Binding, NUMBERS, NUMBERS), min_size=1, max_size=9))
def test_places_travel_through_the_environment(where: list[Binding]) -> None:
    assert parse_places(format_places(where)) == tuple(where)


@given(st.text(alphabet="0123456789,-@; x", max_size=20))
def test_any_text_is_places_or_refused(text: str) -> None:
    try:
        where = parse_places(text)
    except ValueError:
        return
    assert parse_places(format_places(where)) == where


def test_the_format_of_places() -> None:
    assert format_places([Binding((0, 1, 2, 3), (0,)), Binding((4, 6), (0, 1)), Binding(), Binding((), (1,))]) == (
        "0-3@0;4,6@0-1;;@1"
    )
    assert parse_places("") == (Binding(),)
    for text in ("0@", "a", "0@x", "0@1@2", "3-1"):
        with pytest.raises(ValueError, match=r"number nor a range|no memory node|backwards"):
            parse_places(text)
