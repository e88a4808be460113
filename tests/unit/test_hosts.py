"""Boxes by option and by environment."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.launch.hosts import Network, network_of


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


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "²"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(UserError, match="DOCKER_SSHD_PORT"):
        network_of("", 0, "", {"MULTI_HLS_IPS": "a", "DOCKER_SSHD_PORT": port})
