"""The contract in `bertkit.conformance`, over every installed backend that is ready here."""

from __future__ import annotations

import re

import pytest

from bertkit.conformance import CHECKS, Skip
from bertkit.conformance.progress import Watched, engines
from bertkit.engine.interface import Backend
from bertkit.engine.registry import installed

BACKENDS = installed()
READY = [name for name, backend in BACKENDS.items() if backend.probe().ready]
COMPILED = ("tensorflow", "jax", "openvino")  # a program for each model or size: up to minutes


# Checks that make programs for every trained head, and where. The losses of the heads left out here are held to the
# CPU's by tests/device/test_frameworks.py, once each.
SOME_HEADS = {
    "reference": "numerics",
    "layouts": "contract",
    "split": "contract",
    "learns": "contract",
    "teacher_logits": "distillation",
}


def some_heads(backend: Backend) -> tuple[str, ...]:
    return ("classification", "tokens", "span") if backend.capabilities.trains else ()


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in READY])
def test_a_backend_that_is_not_ready_says_what_would_help(name: str) -> None:
    detail = BACKENDS[name].probe().detail
    assert re.search(r"install|run|check|container", detail), detail


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in COMPILED else ()) for name in READY]
)
def test_backend_keeps_the_contract(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Backend = BACKENDS[name]
    if name in COMPILED and check in SOME_HEADS:
        for place in (SOME_HEADS[check], "progress"):
            monkeypatch.setattr(f"bertkit.conformance.{place}.trained_heads", some_heads)
    watched = Watched(backend, lambda made: None, float("inf"))
    try:
        assert CHECKS[check](watched)
    except Skip as reason:
        pytest.skip(str(reason))
    expected = engines(check, backend) if backend.capabilities.computes else watched.made
    assert watched.made == expected, "what is announced is not what is done: bertkit/conformance/progress.py"
