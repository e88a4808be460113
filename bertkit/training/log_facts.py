"""The optional logs that a run's recipe asks for, with the settings that they begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertkit.distributed.world import World
from bertkit.records.loggers import CURVES, DLLOGGER, MLLOG, Curves, DlLogger, Follower, MlLog
from bertkit.training.objective import Objective


def loggers(objective: Objective, folder: Path, world: World) -> tuple[Follower, ...]:
    """Of the first rank; none of the others."""
    wanted = objective.setup.logs
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
    setup, update_settings, amounts = objective.setup, objective.update_settings, objective.amounts()
    section, schedule = update_settings.optimizer, update_settings.schedule
    name = section.name
    own = {
        f"opt_{name}_beta_1": section.beta1,
        f"opt_{name}_beta_2": section.beta2,
        f"opt_{name}_epsilon": section.epsilon,
        f"opt_{name}_{'weight_decay_rate' if name == 'lamb' else 'weight_decay'}": section.weight_decay,
    }
    lamb = {"opt_lamb_learning_rate_decay_poly_power": schedule.power} if name == "lamb" else {}
    return {
        "submission_benchmark": "bert" if setup.task.head.kind == "pretraining" else setup.task.name,
        "submission_org": "none: a run of bertkit",
        "submission_division": "open",
        "submission_status": "onprem",
        "submission_platform": f"{world.size} x {setup.target.backend.name}",
        "seed": setup.job.seed,
        "global_batch_size": update_settings.global_batch,
        "gradient_accumulation_steps": update_settings.accumulation,
        "train_samples": amounts["training_sequences"],
        "eval_samples": amounts["evaluation_sequences"],
        "max_sequence_length": update_settings.sequence_length,
        "opt_name": name,
        "opt_base_learning_rate": update_settings.peak_rate,
        "opt_end_learning_rate": schedule.end_rate,
        "opt_learning_rate_training_steps": update_settings.updates,
        "opt_learning_rate_warmup_steps": update_settings.warmup_updates,
        "num_warmup_steps": update_settings.warmup_updates,
        "start_warmup_step": schedule.warmup_start,
        **own,
        **lamb,
    }
