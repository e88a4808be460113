"""A run's setup that learns a teacher's states: an encoder's job in the place of its task's."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from bertkit.engine.interface import Arrays, LossSpec
from bertkit.model.formats.projection import PROJECT, kept_projection
from bertkit.model.parameters import initial_value, shapes, unread_names
from bertkit.training.setup import RunSetup
from bertkit.training.supply import Say
from bertkit.training.teacher_terms import LearnedStates

STATE_LOSS = "state_loss"
SCORED_TOKENS = 50_000  # of the dev set, for the losses by states
Setup = TypeVar("Setup", bound=RunSetup)


def with_projection(setup: RunSetup, learned: LearnedStates, say: Say) -> Arrays:
    """What a student starts with, a projection that another program left beside it included."""
    kept = kept_projection(setup.source.folder, learned.student.projection, setup.source.config.hidden_size)
    if kept:
        say(f"projection: that of {PROJECT} beside the student")
    return {**setup.fit.weights, **kept}


def learning_states(setup: Setup, learned: LearnedStates, start: Arrays) -> Setup:
    """The setup with an encoder's job; what its states do not depend on stays as it is."""
    job, head = setup.job, learned.student
    weights = {
        name: start[name] if name in start else initial_value(name, shape, job.model, job.seed)
        for name, shape in shapes(job.model, head).items()
    }
    frozen = dict.fromkeys((*unread_names(job.model, head), *(name for name in job.frozen if name in weights)))
    loss = LossSpec(states=learned.loss)
    job = dataclasses.replace(job, head=head, weights=weights, loss=loss, frozen=tuple(frozen))
    return dataclasses.replace(setup, job=job, task=dataclasses.replace(setup.task, primary=STATE_LOSS))
