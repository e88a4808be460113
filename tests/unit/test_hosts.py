"""Boxes by option and by environment."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.launch.hosts import Network, network_of, nodes_asked, read_hostfile


def test_the_option_beats_the_environment() -> None:
    env = {"MULTI_HLS_IPS": "10.0.0.1, 10.0.0.2", "MPI_TPC_INCLUDE": "eth1"}
    assert network_of("", 0, "", env) == Network(("10.0.0.1", "10.0.0.2"), 3022, "eth1")
    assert network_of("", 22, "eth0", env) == Network(("10.0.0.1", "10.0.0.2"), 22, "eth0")
    assert network_of("a,b", 0, "", env) == Network(("a", "b"), 0, "")
    assert network_of("", 0, "", env | {"DOCKER_SSHD_PORT": "2022", "MPI_TCP_INCLUDE": "ib0"}) == Network(
        ("10.0.0.1", "10.0.0.2"), 2022, "ib0"
    )
    assert network_of("", 7, "x", {}) == Network((), 7, "x")
    assert network_of("10.0.0.7,box-2.example", 0, "", {}).hosts == ("10.0.0.7", "box-2.example")


@pytest.mark.parametrize(
    "text", ["a,,b", ",", "a,", " ", "-oProxyCommand=x", "a b", "a;b", "a,a", "ä", "a\n,b\x00", "a@b", "$(x)"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--hosts: "):
        network_of(text, 0, "", {})
    if text.strip():
        with pytest.raises(UserError, match="MULTI_HLS_IPS: "):
            network_of("", 0, "", {"MULTI_HLS_IPS": text})


@given(st.text(st.sampled_from("ab-.:_, \t=$\n"), min_size=1))
def test_what_passes_is_safe_as_a_word(text: str) -> None:
    try:
        names = network_of(text, 0, "", {}).hosts
    except UserError:
        return
    assert names
    assert len(set(names)) == len(names)
    for name in names:
        assert shlex.quote(name) == name
        assert not name.startswith("-")


FILES = {
    "Open MPI's": (
        "# the cluster\nnode1 slots=4\nnode2.example  slots=4 # the other\n\n",
        ("node1", "node2.example"),
        4,
    ),
    "MPICH's": ("node1:2\nnode2:2\n", ("node1", "node2"), 2),
    "names alone": ("10.0.0.1\n10.0.0.2\n", ("10.0.0.1", "10.0.0.2"), 0),
    "a line for each process": ("a\nb\na\nb\n", ("a", "b"), 2),
    "slots in sum": ("a slots=2\nb slots=3\na slots=1\n", ("a", "b"), 3),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_hosts(name: str, tmp_path: Path) -> None:
    text, hosts, slots = FILES[name]
    (tmp_path / "hosts").write_text(text)
    env = {"MULTI_HLS_IPS": "elsewhere"}
    assert network_of("", 22, "eth0", env, tmp_path / "hosts") == Network(hosts, 22, "eth0", slots)
    with pytest.raises(UserError, match="by --hosts and by --hostfile"):
        network_of("a", 0, "", {}, tmp_path / "hosts")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a slots=2\nb slots=3\n", "a has 2 slots, b 3"),
        ("a slots=0\n", ":1: slots is '0'"),
        ("a:x\n", ":1: slots is 'x'"),
        ("a\nb max_slots=4\n", ":2: 'max_slots=4' is not understood"),
        ("a:2 binding=user:0\n", ":1: 'binding=user:0' is not understood"),
        ("a\n-oProxyCommand=x\n", ":2: '-oProxyCommand=x' is no host"),
        ("user@a\n", ":1: 'user@a' is no host"),
        ("# none\n", "names no host"),
    ],
)
def test_what_a_file_of_hosts_may_not_say(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(UserError) as caught:
        read_hostfile(tmp_path / "hosts")
    assert said in caught.value.cause


SKY = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.1.0.1\n10.1.0.2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}


@pytest.mark.parametrize(
    ("asked", "env", "count", "rank", "address"),
    [
        ((2, 1, "head:1234", 0), {}, 2, 1, "head:1234"),
        ((2, 0, "head", 0), {}, 2, 0, "head:29500"),
        ((2, 0, "head", 77), {}, 2, 0, "head:77"),
        ((2, 0, "", 0), {"MASTER_ADDR": "m", "MASTER_PORT": "5"}, 2, 0, "m:5"),
        ((None, None, "", 0), SKY, 2, 1, "10.1.0.1:29500"),
        ((None, None, "b:9", 0), SKY, 2, 1, "b:9"),
        ((3, 2, "b:9", 0), SKY, 3, 2, "b:9"),  # the option beats the cluster
    ],
)
def test_hosts_that_start_their_own(
    asked: tuple[int | None, int | None, str, int], env: dict[str, str], count: int, rank: int, address: str
) -> None:
    found = nodes_asked(*asked, env)
    assert found is not None
    assert (found.count, found.rank, found.address) == (count, rank, address)


@pytest.mark.parametrize(
    ("asked", "env"),
    [
        ((None, None, "", 0), {}), ((1, None, "", 0), SKY),
        ((None, None, "", 0), SKY | {"SKYPILOT_NODE_IPS": "a", "SKYPILOT_NODE_RANK": "0"}),
    ],
)  # fmt: skip
def test_this_host_alone(asked: tuple[int | None, int | None, str, int], env: dict[str, str]) -> None:
    assert nodes_asked(*asked, env) is None


@pytest.mark.parametrize(
    ("asked", "env", "said"),
    [
        ((2, None, "", 0), {}, "--node-rank and --master is not given"),
        ((None, 1, "a:1", 0), {}, "--nnodes is not given"),
        ((2, 2, "a:1", 0), {}, "--node-rank 2 of --nnodes 2"),
        ((2, 0, "a:x", 0), {}, "the port of --master is 'x'"),
        ((2, 0, "-x:1", 0), {}, "is no HOST:PORT"),
        ((None, None, "", 0), {"PET_NNODES": "2", "PET_NODE_RANK": "0"}, "Kubeflow does not say where 2 hosts meet"),
    ],
)
def test_half_of_where_hosts_meet_is_refused(
    asked: tuple[int | None, int | None, str, int], env: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        nodes_asked(*asked, env)
    assert said in caught.value.cause


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "²"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(UserError, match="DOCKER_SSHD_PORT"):
        network_of("", 0, "", {"MULTI_HLS_IPS": "a", "DOCKER_SSHD_PORT": port})
