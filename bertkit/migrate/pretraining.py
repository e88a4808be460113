"""Pre-training commands: said in the words that bertkit will have for them, and marked as not yet to be had."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from bertkit.migrate.ours import Draft, spell_batch

SOON = "pre-training is not in this version: `train -t pretrain` and LAMB are shown as they are planned"
RULES = {  # whose LAMB has a trust ratio for which parameters, and the power of its polynomial
    "nvidia": ("decayed", "0.5"),
    "tensorflow": ("all", "0.5"),
    "iluvatar": ("decayed", "1.0"),
}


@dataclass(frozen=True)
class Phase:
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


def pretrain(draft: Draft, phase: Phase, rules: str, model: str = "large") -> Draft:
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
        made.sets |= {"schedule.name": "polynomial", "schedule.power": power}
    made.not_yet(SOON)
    return made
