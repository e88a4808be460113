"""What a backend declares that it cannot do is refused by name, or warned about once; what it can do passes."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from bertkit.data.tasks import find_task
from bertkit.distributed.world import World
from bertkit.engine.interface import Backend
from bertkit.engine.registry import installed
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.recipes.recipe import Recipe, build
from bertkit.training.setup import check_job, check_processes, choose_target

TWO = World(rank=0, size=2)
CARDS = list(installed().values())


def asked(**settings: str | bool) -> Recipe:
    return build({name.replace("__", "."): value for name, value in settings.items()}, {})


def without(card: Backend, **capabilities: object) -> Backend:
    """The card with fewer capabilities."""
    copy = type(card)()
    copy.capabilities = dataclasses.replace(card.capabilities, computes=True, **capabilities)  # type: ignore[arg-type]
    return copy


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_backend_takes_what_it_declares(card: Backend) -> None:
    for gradients in card.capabilities.gradients:
        check_processes(
            card, asked(ranks__gradients=gradients, optimizer__shard=card.capabilities.sharded_optimizer), TWO
        )


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_what_changes_numbers_or_memory_is_refused(card: Backend) -> None:
    with pytest.raises(UserError, match=f"{card.name} does not send gradients as bf16"):
        check_processes(without(card, gradients=("fp32",)), asked(ranks__gradients="bf16"), TWO)
    with pytest.raises(UserError, match=f"{card.name} cannot shard the optimizer"):
        check_processes(without(card, sharded_optimizer=False), asked(optimizer__shard=True), TWO)
    with pytest.raises(UserError, match=f"{card.name} computes in one process, not in 2"):
        check_processes(without(card, multi_process=False), asked(), TWO)
    with pytest.raises(UserError, match=f"{card.name} has no optimizer lamb"):
        check_job(without(card, optimizers=("adamw",)), find_task("mrpc").head, "mrpc", asked(optimizer__name="lamb"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_overlap_that_has_no_effect_is_warned_about_by_one_process(
    card: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = without(card, overlap=False)
    with caplog.at_level(logging.WARNING):
        for world in (World(), World(rank=1, size=2), TWO):
            check_processes(lacking, asked(ranks__overlap=True), world)
    assert [record.getMessage() for record in caplog.records] == [
        f"ranks.overlap has no effect on backend {card.name}: gradients are sent after the last pass"
    ]
    caplog.clear()
    check_processes(without(card, overlap=True), asked(ranks__overlap=True), TWO)
    assert not caplog.records


def test_hidden_states_are_not_trained() -> None:
    with pytest.raises(UserError, match="mine: hidden states have no loss to train with; train another head"):
        choose_target(asked(backend="null"), Head("encoder", 8, (1,)), "mine")
