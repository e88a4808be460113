"""The contract in `bertkit.checks`, over every installed backend that is ready here."""

from __future__ import annotations

import pytest

from bertkit.backend import Backend
from bertkit.checks import CHECKS, Skip
from bertkit.registry import installed

BACKENDS = installed()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BACKENDS)
def test_backend_keeps_the_contract(name: str, check: str) -> None:
    backend: Backend = BACKENDS[name]
    probe = backend.probe()
    if not probe.ready:
        pytest.skip(f"{name} is not ready here: {probe.detail}")
    try:
        assert CHECKS[check](backend)
    except Skip as reason:
        pytest.skip(str(reason))
