"""What an export in int8 costs of the dev set's score: the engine's in fp32, and the export's in its own runtime."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.exports import PaddedModel
from bertkit.engine.interface import Engine
from bertkit.engine.padded_engine import PaddedEngine
from bertkit.errors import UserError
from bertkit.recipes.recipe import Recipe
from bertkit.training.calibration import warn_of_loss
from bertkit.training.evaluation import evaluate
from bertkit.training.export_checks import ALL, dev_parts
from bertkit.training.inference import Ready
from bertkit.training.recipe_parts import answer_rules

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportScores:
    """Metrics of the same examples, by name."""

    metric: str  # the task's main one
    examples: int
    fp32: dict[str, float]
    int8: dict[str, float]


def scores(
    recipe: Recipe, ready: Ready, exported: PaddedModel, engine: Engine, count: int | None, display: Display
) -> ExportScores | None:
    """On the run's dev set, or the first `count` examples; a loss beyond the bound is a warning.

    None for a count of 0, and, with a warning, where the dev set is not to be had; with a count, UserError.
    """
    if count == 0:
        return None
    try:
        parts = dev_parts(recipe, ready, recipe.data.eval_rows if count in (None, ALL) else int(count or 0), display)
    except UserError as error:
        if count is not None:
            raise
        logger.warning("what int8 costs of the score is not known: %s", error.cause)
        return None
    task, rules, size = ready.task, answer_rules(recipe), recipe.evaluation.batch_size
    found = [
        evaluate(one, task, parts, rules, size, World(), display)[0]
        for one in (engine, PaddedEngine(exported, task.head))
    ]
    made = ExportScores(task.primary, sum(part.examples for part in parts), found[0], found[1])
    after = made.int8.get(task.primary, math.nan)
    warn_of_loss(task.primary, after, made.fp32.get(task.primary), "fp32", "export it in fp32 or bf16")
    return made
