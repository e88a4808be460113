"""Fine-tuning without synchronising gradients: every process trains a model of its own, the best on dev is the result.

Worker r of a run with seed s is exactly the run `bertkit train --seed s+r` (on its share of the data where the recipe
says so), in the folder `worker-r`. The maximum over N workers, chosen on the set that it is scored on, flatters: the
record holds every worker's score, their mean and their standard deviation.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.tasks.metrics import worth
from bertkit.distributed.collectives import join
from bertkit.distributed.consistency import agree, gather_json
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.files.locks import alone_in
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import Resolved
from bertkit.records.files import NAME, load, write
from bertkit.records.schema import blank
from bertkit.training.recipe_parts import scaled_rate
from bertkit.training.run import Run
from bertkit.training.run_folder import OURS, open_folder, output_folder
from bertkit.training.selection import selection_of

SAME = "give every process the same versions, settings and files"
Compare = Callable[[Mapping[str, Any]], None]
PATIENCE = 30 * 86_400.0  # seconds: workers meet at the ends only, and one may be done long before another
OWN = ("seed", "output", "data.shard")  # settings in which workers differ
LINKED = tuple(name for name in OURS if name != NAME)


def train_workers(
    resolved: Resolved,
    world: World,
    display: Display,
    overwrite: bool,
    metric: str,
    fit: Callable[[Resolved, Compare], Run],
) -> Run:
    """Train this process's worker by `fit`; on the first rank, pick the best of all by `metric` when they are done."""

    def compare(facts: Mapping[str, Any]) -> None:
        agree(others.gather, {name: value for name, value in facts.items() if name not in OWN}, SAME)

    folder = output_folder(resolved.recipe)
    mine = announce_workers(resolved, world, display)
    others = join(world, mine.recipe.ranks.collectives, PATIENCE)
    try:
        if world.is_first:
            _clear(folder, overwrite)
        gather_json(others.gather, "the folder is ready")  # before that no worker makes its own folder in it
        run = fit(mine, compare)
        workers = gather_json(others.gather, _summary(run, mine.recipe, world))
        run.exit_code = max(each["exit_code"] for each in workers)
        if run.exit_code:
            run.record = None
        elif world.is_first:
            run.record = publish(folder, workers, metric, run.record or {}, display)
    finally:
        others.close()
    run.folder = folder
    return run


def announce_workers(resolved: Resolved, world: World, display: Display) -> Resolved:
    """This process's worker's settings; what all of them do is shown."""
    mine = worker_recipe(resolved.recipe, world, output_folder(resolved.recipe))
    display.say(
        f"{world.size} workers train without synchronizing, with seeds {resolved.recipe.seed} to "
        f"{resolved.recipe.seed + world.size - 1}, on {'a share of' if mine.data.shard else 'all'} the data each; "
        "the best on dev will be the result"
    )
    return Resolved(mine, resolved.sources)


def worker_recipe(recipe: Recipe, world: World, folder: Path) -> Recipe:
    """What this worker does, such that one process alone does the same with it."""
    shard = f"{world.rank}/{world.size}" if recipe.ranks.shard_data else recipe.data.shard
    return dataclasses.replace(
        recipe,
        seed=recipe.seed + world.rank,
        output=str(folder / f"worker-{world.rank}"),
        data=dataclasses.replace(recipe.data, shard=shard),
        optimizer=dataclasses.replace(recipe.optimizer, learning_rate=scaled_rate(recipe, world.size)),
        ranks=dataclasses.replace(recipe.ranks, learning_rate_scaling="none"),
    )


def _summary(run: Run, recipe: Recipe, world: World) -> dict[str, Any]:
    """What the record tells of one worker."""
    made = run.record or {}
    return {
        "rank": world.rank,
        "host": platform.node(),
        "folder": run.folder.name,
        "seed": recipe.seed,
        "shard": recipe.data.shard or None,
        "exit_code": run.exit_code,
        "metrics": {name: math.nan if value is None else value for name, value in made.get("metrics", {}).items()},
        "counted": made.get("throughput", {}).get("counted"),
        "seconds": made.get("throughput", {}).get("seconds"),
    }


def best_of(workers: list[dict[str, Any]], metric: str) -> int:
    """The place of the worker with the best score; the first of equals, and never one without a finite score."""
    scores = [worth(metric, worker["metrics"][metric]) for worker in workers]
    return max(range(len(scores)), key=lambda at: (scores[at], -at))


def publish(
    folder: Path, workers: list[dict[str, Any]], metric: str, first: Mapping[str, Any], display: Display
) -> dict[str, Any]:
    """Link the best worker's files as the run's own and write the record of the whole, which it returns.

    `first`: the record of this process's worker, for where the best one's is on another host.
    """
    chosen = workers[best_of(workers, metric)]
    scores = [worker["metrics"][metric] for worker in workers]
    selection = selection_of(scores)
    for worker in workers:
        mark = "  <- best" if worker is chosen else ""
        display.say(
            f"worker {worker['rank']} (seed {worker['seed']}): dev {metric} {worker['metrics'][metric]:.4f}{mark}"
        )
    display.say(selection.told("compare the mean"))
    base, own = dict(first), folder / chosen["folder"] / NAME
    if own.exists():
        base = dict(load(own).mapping)
        _link(folder, chosen["folder"])
    else:
        display.warn(f"the best worker's folder is on {chosen['host']}: {folder / chosen['folder']}")
    note = "the best of the workers is selected on the dev set that it is scored on: compare the mean"
    hardware = base["hardware"] | {"processes": len(workers), "hosts": [worker["host"] for worker in workers]}
    made = base | {
        "hardware": hardware | {"device": base["hardware"]["device"] | {"count": len(workers)}},
        "fairness": base["fairness"] | {"synchronised": False, "result": "the best worker's"},
        "metrics": chosen["metrics"],
        "seeds": [{name: worker[name] for name in ("seed", "metrics", "folder", "shard")} for worker in workers],
        "selected": {
            "of": selection.of,
            "seed": chosen["seed"],
            "metric": metric,
            "mean": selection.mean,
            "standard_deviation": selection.standard_deviation,
            "note": note,
        },
        "throughput": _total(base["throughput"], workers),
        "energy": blank("train")["energy"] | {"source": "each worker's record has what it read"},
    }
    return write(folder / NAME, made)


def _total(one: Mapping[str, Any], workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The workers' amounts, added up, over the slowest one's seconds."""
    seconds = max(worker["seconds"] or math.nan for worker in workers)
    names = ("updates", "sequences", "tokens", "slots")
    counted = {name: sum(worker["counted"][name] for worker in workers) for name in names}
    rates = {name: counted[name] / seconds if seconds > 0 else None for name in ("sequences", "tokens")}
    size = len(workers)
    return dict(one) | {
        "counted": counted,
        "seconds": seconds if seconds > 0 else None,
        **{f"{name}_per_second": rate for name, rate in rates.items()},
        **{f"{name}_per_second_per_device": None if rate is None else rate / size for name, rate in rates.items()},
        # known of each worker, in its own record
        **dict.fromkeys(("model_flops_per_second", "mfu", "sequences_per_second_whole", "sequences_per_second_core")),
    }


def _link(folder: Path, chosen: str) -> None:
    """The worker's files as the run's: relative links, so that the folder can be moved."""
    for name in LINKED:
        if (folder / chosen / name).exists():
            (folder / name).symlink_to(Path(chosen, name))


def _clear(folder: Path, overwrite: bool) -> None:
    """Take away the links and record of an earlier end, and all of an earlier run where it is overwritten.

    Raises UserError where the folder holds a run that is not of workers.
    """
    for name in OURS:
        path = folder / name
        if path.is_symlink() or path.name == NAME:
            path.unlink(missing_ok=True)
        elif path.exists() and not overwrite:
            raise UserError(
                f"{folder} holds a run that was synchronised",
                "choose another folder with -o, or replace it: --overwrite",
            )
    open_folder(folder, overwrite)
    for worker in folder.glob("worker-*") if overwrite else ():
        with alone_in(worker, "a training"):
            shutil.rmtree(worker)
