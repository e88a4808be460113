"""The optional logs that a run's recipe asks for, with the settings that they begin with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bertkit.distributed.world import World
from bertkit.records.loggers import CURVES, DLLOGGER, MLLOG, Curves, DlLogger, Follower, MlLog
from bertkit.training.objective import Objective
from bertkit.training.recipe_parts import scaled_rate, warming_updates


def loggers(objective: Objective, folder: Path, world: World) -> tuple[Follower, ...]:
    """Of the first rank; none of the others."""
    wanted = objective.setup.recipe.log
    made: list[Follower] = []
    if world.is_first and wanted.mllog:
        made.append(MlLog(folder / MLLOG, facts(objective, world)))
    if world.is_first and wanted.dllogger:
        made.append(DlLogger(folder / DLLOGGER, facts(objective, world)))
    if world.is_first and wanted.tensorboard:
        made.append(Curves(folder / CURVES))
    return tuple(made)


def facts(objective: Objective, world: World) -> dict[str, Any]:
    """The settings of the last phase under MLPerf's keys. What a submission would add is marked as open."""
    recipe, amounts = objective.recipe, objective.amounts()
    section, course_of_rate = recipe.optimizer, recipe.schedule
    micro, share = recipe.train.micro_batch_size, recipe.train.batch_size
    warmup = warming_updates(recipe, amounts["updates"])
    name = section.name
    own = {
        f"opt_{name}_beta_1": section.beta1,
        f"opt_{name}_beta_2": section.beta2,
        f"opt_{name}_epsilon": section.epsilon,
        f"opt_{name}_{'weight_decay_rate' if name == 'lamb' else 'weight_decay'}": section.weight_decay,
    }
    lamb = {"opt_lamb_learning_rate_decay_poly_power": course_of_rate.power} if name == "lamb" else {}
    return {
        "submission_benchmark": "bert" if recipe.task == "pretrain" else recipe.task,
        "submission_org": "none: a run of bertkit",
        "submission_division": "open",
        "submission_status": "onprem",
        "submission_platform": f"{world.size} x {objective.setup.choice.backend.name}",
        "seed": recipe.seed,
        "global_batch_size": amounts["global_batch"],
        "gradient_accumulation_steps": math.ceil(share / micro) if micro else 1,
        "train_samples": amounts["training_sequences"],
        "eval_samples": amounts["evaluation_sequences"],
        "max_sequence_length": recipe.data.seq_length,
        "opt_name": name,
        "opt_base_learning_rate": scaled_rate(recipe, world.size),
        "opt_end_learning_rate": course_of_rate.end_rate,
        "opt_learning_rate_training_steps": amounts["updates"],
        "opt_learning_rate_warmup_steps": warmup,
        "num_warmup_steps": warmup,
        "start_warmup_step": course_of_rate.warmup_start,
        **own,
        **lamb,
    }
