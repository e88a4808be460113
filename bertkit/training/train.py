"""One call from settings to a finished run, whichever way its processes train."""

from __future__ import annotations

from collections.abc import Sequence

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.recipes.resolve import Resolved
from bertkit.training.callbacks.base import Callback
from bertkit.training.ensemble import check_ensemble, train_ensemble
from bertkit.training.run import Run
from bertkit.training.trainer import Trainer


def carry_out(
    resolved: Resolved,
    world: World,
    display: Display,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Run:
    """Train one model over all processes or, where gradients are not synchronised, one in each.

    Raises UserError for whatever the user can put right.
    """
    if world.size > 1 and not resolved.recipe.ranks.synchronise:
        if dry_run:
            return check_ensemble(resolved, world, display)
        return train_ensemble(resolved, world, display, callbacks, resume, overwrite)
    trainer = Trainer(resolved, world, display, callbacks, resume, overwrite)
    return trainer.check() if dry_run else trainer.fit()
