"""Boxes by option and by environment."""

from __future__ import annotations

import pytest

from bertkit.errors import UserError
from bertkit.hosts import Network, network_of


def test_the_option_beats_the_environment() -> None:
    env = {"MULTI_HLS_IPS": "10.0.0.1, 10.0.0.2", "MPI_TPC_INCLUDE": "eth1"}
    assert network_of("", 0, "", env) == Network(("10.0.0.1", "10.0.0.2"), 3022, "eth1")
    assert network_of("", 22, "eth0", env) == Network(("10.0.0.1", "10.0.0.2"), 22, "eth0")
    assert network_of("a,b", 0, "", env) == Network(("a", "b"), 0, "")
    assert network_of("", 0, "", env | {"DOCKER_SSHD_PORT": "2022", "MPI_TCP_INCLUDE": "ib0"}) == Network(
        ("10.0.0.1", "10.0.0.2"), 2022, "ib0"
    )
    assert network_of("", 7, "x", {}) == Network((), 7, "x")
    assert network_of("[fe80::1],box-2.example", 0, "", {}).hosts == ("[fe80::1]", "box-2.example")


@pytest.mark.parametrize("hosts", ["a,,b", "a,a", "-oProxyCommand=x", "a;b", "a b", "$(x)"])
def test_what_is_no_host_is_refused(hosts: str) -> None:
    with pytest.raises(UserError, match="--hosts: "):
        network_of(hosts, 0, "", {})


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="DOCKER_SSHD_PORT"):
        network_of("", 0, "", {"MULTI_HLS_IPS": "a", "DOCKER_SSHD_PORT": "ssh"})
