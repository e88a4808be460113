"""Which library joins the ranks and why; sums in NumPy; what a process says that is alone or has lost the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertkit.distributed import collectives
from bertkit.distributed.collectives import Absent, choose, join, meeting_place
from bertkit.distributed.host_sums import add, from_bf16, to_bf16
from bertkit.distributed.world import World
from bertkit.errors import PeersLost, UserError

ALL = {"gloo", "mpi", "window"}


@pytest.mark.parametrize(
    ("world", "mpi4py", "env", "known", "wanted", "why"),
    [
        (World(0, 2, 0, 2, "torchrun"), True, {}, ALL, "gloo", "torchrun starts no MPI"),
        (World(0, 2, 0, 2, "Open MPI"), True, {}, ALL, "window", "2 ranks on this host"),
        (World(0, 2, 0, 2, "Hydra"), True, {}, ALL, "window", "2 ranks on this host"),
        (World(0, 2, 0, 1, "Open MPI"), True, {}, ALL, "mpi", "started by Open MPI"),
        (World(0, 2, 0, 2, "Open MPI"), True, {}, {"gloo", "mpi"}, "mpi", "started by Open MPI"),
        (World(0, 2, 0, 2, "Open MPI"), True, {}, {"gloo"}, "gloo", "no MPI plug-in"),
        (World(0, 2, 0, 2, "Open MPI"), False, {}, ALL, "gloo", "mpi4py is not installed"),
        (World(0, 2, 0, 2, "Slurm"), True, {}, ALL, "gloo", "Slurm starts no MPI"),
        (World(0, 2, 0, 2, "Slurm"), True, {"PMIX_RANK": "0"}, ALL, "window", "Slurm started 2 ranks"),
        (World(0, 2, 0, 1, "Slurm"), True, {"PMI_RANK": "0"}, ALL, "mpi", "started by Slurm"),
    ],
)
def test_what_auto_takes(
    world: World, mpi4py: bool, env: dict[str, str], known: set[str], wanted: str, why: str
) -> None:
    name, reason = choose(world, mpi4py, env, known)
    assert name == wanted
    assert why in reason


class Point:
    """An entry point whose plug-in is `made`."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def load(self) -> Any:
        return self.made


class Pretended:
    """A library of two ranks whose other rank is always there, until `gone`."""

    name, reason = "pretended", ""

    def __init__(self, world: World, timeout: float) -> None:
        self.said: list[str] = []
        self.gone = False

    def flat(self, count: int, dtype: str, add: Any) -> Any:
        raise ConnectionError("closed by peer")

    def gather(self, rows: np.ndarray) -> np.ndarray:
        if self.gone:
            raise ConnectionError("closed by peer")
        return np.concatenate([rows, rows])

    def close(self) -> None:
        self.said.append("close")

    def abandon(self) -> None:
        self.said.append("abandon")


def plug_in(monkeypatch: pytest.MonkeyPatch, **made: Any) -> None:
    monkeypatch.setattr(collectives, "_libraries", lambda: {name: Point(one) for name, one in made.items()})
    monkeypatch.setattr(collectives, "_installed", lambda package: True)
    monkeypatch.setattr(collectives, "GOING", 0.0)


TWO = World(1, 2, 1, 2, "Open MPI", "here:1")


def absent(world: World, timeout: float) -> Any:
    raise Absent("no library", "install one")


def test_one_process_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    ranks = join(World(), "window")
    rows = np.arange(6).reshape(3, 2)
    assert np.array_equal(ranks.gather(rows), rows)
    flat = ranks.flat(3, "bf16", add)
    flat.array[:] = 7
    flat.sum_(0, 3)
    assert flat.array.tolist() == [7, 7, 7]
    assert (ranks.name, ranks.reason) == ("none", "one process")
    ranks.close()


def test_the_library_asked_for_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, gloo=Pretended, mpi=absent)
    ranks = join(TWO, "gloo")
    assert ranks.reason == "asked for"
    ranks.close()
    with pytest.raises(UserError, match=r"no library; install one"):
        join(TWO, "mpi")
    with pytest.raises(UserError, match=r"no collectives 'glop' here; did you mean gloo"):
        join(TWO, "glop")


def test_auto_goes_on_with_gloo_where_mpi_is_not_usable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plug_in(monkeypatch, gloo=type("Gloo", (Pretended,), {"name": "gloo"}), window=absent)
    with caplog.at_level("WARNING"):
        ranks = join(World(0, 2, 0, 2, "Open MPI", "here:1"))
    assert ranks.reason == "window is not usable: no library; install one"
    assert [record.getMessage() for record in caplog.records] == [
        "Open MPI started the ranks, but they meet through gloo, which is slower; window is not usable: no library; "
        "install one"
    ]
    ranks.close()
    with pytest.raises(Absent):
        join(World(1, 2, 1, 2, "Open MPI"))  # gloo would have no address either


def test_lost_ranks_are_told_apart_from_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, gloo=Pretended)
    ranks = join(TWO, "gloo")
    inner: Any = ranks._inner
    ranks.at("at update 7")
    assert np.array_equal(ranks.gather(np.ones(2)), np.ones(4))
    inner.gone = True
    with pytest.raises(
        PeersLost, match="rank 1 lost the other ranks at update 7 in a gather: closed by peer"
    ) as caught:
        ranks.gather(np.ones(2))
    assert caught.value.exit_code == 75
    ranks.close()
    assert inner.said == ["abandon"]


def test_with_an_error_under_way_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, gloo=Pretended)
    for error, wanted in ((False, "close"), (True, "abandon")):
        ranks = join(TWO, "gloo")
        try:
            try:
                if error:
                    raise ValueError("a fault of this rank")
            finally:
                ranks.close()
        except ValueError:
            pass
        inner: Any = ranks._inner
        assert inner.said == [wanted]


def test_objects_are_not_gathered() -> None:
    with pytest.raises(TypeError):
        join(World()).gather(np.array([object()]))


@pytest.mark.parametrize(("launcher", "cure"), [("torchrun", False), ("Open MPI", True), ("Slurm", True)])
def test_without_a_meeting_place_both_cures_are_named(
    monkeypatch: pytest.MonkeyPatch, launcher: str, cure: bool
) -> None:
    monkeypatch.setattr(collectives, "_installed", lambda package: False)
    assert meeting_place(World(0, 2, 0, 2, launcher, "a:1")).address == "a:1"
    with pytest.raises(UserError, match="started 2 processes but MASTER_ADDR and MASTER_PORT are not set") as caught:
        meeting_place(World(0, 2, 0, 2, launcher))
    assert ("bertkit[mpi]" in caught.value.cure) == cure


def test_auto_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, str]] = []
    plug_in(monkeypatch, gloo=Pretended)
    monkeypatch.setattr(collectives, "choose", lambda world, mpi, env, known: asked.append(env) or ("gloo", "so"))
    join(TWO, env={"PMIX_RANK": "1"}).close()
    assert asked == [{"PMIX_RANK": "1"}]


floats = st.floats(width=32)


@given(arrays(np.float32, st.integers(0, 20), elements=floats))
def test_bf16_is_the_nearest(values: np.ndarray) -> None:
    found = from_bf16(to_bf16(values))
    assert np.array_equal(np.isnan(found), np.isnan(values))
    for value, near in zip(values.astype(np.float64), found.astype(np.float64), strict=True):
        if np.isfinite(value) and np.isfinite(near):
            assert abs(value - near) <= max(abs(value) * 2.0**-8, 2.0**-134)
        elif np.isinf(near):
            assert abs(value) >= 3.38e38


def test_ties_go_to_even() -> None:
    assert to_bf16(np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)).tolist() == [0x3F80, 0x3F82]


@pytest.mark.parametrize("into", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_a_sum_may_stand_in_any_of_its_parts(into: int, kind: str) -> None:
    parts = [np.random.default_rng(seed).normal(size=70_001).astype(np.float32) for seed in range(3)]
    if kind == "bf16":
        parts = [to_bf16(part) for part in parts]
    wide = [part if kind == "fp32" else from_bf16(part) for part in parts]
    wanted = (wide[0] + wide[1]) + wide[2]
    out = ([*parts, np.empty_like(parts[0])])[into]
    add(out, parts)
    assert np.array_equal(out, wanted if kind == "fp32" else to_bf16(wanted))
