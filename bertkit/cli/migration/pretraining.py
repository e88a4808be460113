"""Pre-training commands in bertkit's words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.cli.migration.command import Draft, spell_batch

RULES = {  # whose LAMB has a trust ratio for which parameters, and the power of its polynomial
    "nvidia": ("decayed", "0.5"),
    "tensorflow": ("all", "0.5"),
    "iluvatar": ("decayed", "1.0"),
}
COUNTS_FROM_ONE = ("nvidia",)  # update n has the rate at n, not at n - 1


@dataclass(frozen=True)
class PhaseOptions:
    """One phase of a pre-training."""

    length: int
    batch: int  # of one update on each process
    at_once: int
    rate: str
    warmup: str  # share of the updates; "": steps follow
    steps: str
    precision: str = ""
    seed: str = ""
    warmup_steps: str = ""
    scaling: str = ""  # of the rate with the processes


def pretrain(draft: Draft, phase: PhaseOptions, rules: str, model: str = "large") -> Draft:
    """A phase as a command of its own."""
    made = copy.deepcopy(draft)
    made.options |= {"-t": "pretrain", "-m": model, "-s": str(phase.length), "--lr": phase.rate}
    if phase.precision:
        made.options["-d"] = phase.precision
    if phase.seed:
        made.options["--seed"] = phase.seed
    spell_batch(made, phase.batch, phase.at_once)
    made.sets["train.steps"] = phase.steps
    if phase.warmup:
        made.sets["schedule.warmup"] = phase.warmup
    if phase.warmup_steps:
        made.sets["schedule.warmup_steps"] = phase.warmup_steps
    if phase.scaling:
        made.sets["ranks.learning_rate_scaling"] = phase.scaling
    if rules in RULES:
        trust, power = RULES[rules]
        made.sets |= {"optimizer.name": "lamb", "optimizer.trust_ratio": trust}
        made.sets |= {"optimizer.epsilon": "1e-6"}
        made.sets |= {"schedule.name": "polynomial", "schedule.power": power, "schedule.decay_from": "start"}
    if rules in COUNTS_FROM_ONE:
        made.sets["schedule.start"] = "1"
    if "--data-dir" not in made.options:
        made.do(
            "shards are read from the folder data, where `bertkit data prepare` may put them; --data-dir names another"
        )
    return made


def pretrain_phases(draft: Draft, phases: Sequence[PhaseOptions], rules: str, model: str = "large") -> list[Draft]:
    """Phases that go on from one another, each a command of its own: the moments are taken along."""
    folder = draft.options.get("-o", "runs")
    made = [pretrain(draft, phase, rules, model) for phase in phases]
    for number, one in enumerate(made, 1):
        one.options["-o"] = f"{folder}/phase{number}"
        if number > 1:
            one.sets["train.moments_from"] = f"{folder}/phase{number - 1}"
    return made
