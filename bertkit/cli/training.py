"""What `bertkit train` does once its options are read. Kept apart so that `--help` imports none of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertkit.comparison.load import read_one
from bertkit.comparison.parity import Parity, hold, lines
from bertkit.console import Display
from bertkit.distributed.world import from_env
from bertkit.files.disk import to_json
from bertkit.files.streams import put_json
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import resolve
from bertkit.training.run import Run
from bertkit.training.trainer import Trainer


def run_training(
    options: Mapping[str, Value],
    sets: list[str] | None,
    config: Path | None,
    recipe: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    parity_with: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train, show the result, return the exit code."""
    other = read_one(parity_with) if parity_with else None
    resolved = resolve(options, sets or (), config, recipe)
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    changed = {key: value for key, value in resolved.flat().items() if resolved.sources.get(key) != "default"}
    display.say("settings: " + (", ".join(f"{key}={value}" for key, value in changed.items()) or "all defaults"))
    trainer = Trainer.of(resolved, world, display, resume=resume, overwrite=overwrite)
    outcome = trainer.check() if dry_run else trainer.fit()
    if outcome.record is not None and world.is_first:
        show(outcome, display)
        if as_json:
            put_json(to_json(outcome.record))
        if other is not None:
            return tell_parity(hold(read_one(outcome.folder), other), display)
    return outcome.exit_code


def tell_parity(found: Parity, display: Display) -> int:
    """The verdict; a failure is said even where nothing else is. Returns the exit code."""
    loud = Display(stream=display.stream) if not found.verdict.holds else display
    for line in lines(found):
        loud.say(line)
    return 0 if found.verdict.holds else 1


def show(outcome: Run, display: Display) -> None:
    """The result in a few lines, and what to try next."""
    record = outcome.record or {}
    speed = record["throughput"]
    shown = {name: float("nan") if value is None else value for name, value in record["metrics"].items()}
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    pretraining = "mlm_accuracy" in shown
    display.say(f"result on the {'evaluation' if pretraining else 'dev'} set: {metrics}{_baseline(record)}")
    for what, said in record["method"]["rules"].items():
        if what.startswith("mlm_accuracy"):
            display.say(f"{what}: {said}")
    if speed["tokens_per_second"] is not None:
        mfu = (
            f", {speed['mfu']:.0%} of the peak {speed['peak_flops_per_device'] / 1e9:.0f} GFLOP/s"
            if speed["mfu"]
            else ""
        )
        display.say(
            f"speed: {speed['sequences_per_second']:.1f} sequences/s, {speed['tokens_per_second']:.0f} tokens/s "
            f"without padding (padding efficiency {speed['padding_efficiency']:.3f}){mfu}"
        )
    if pretraining:
        display.say(f"files: {outcome.folder} (record.json, log.jsonl, model.safetensors, checkpoints/)")
        display.say(f"next: bertkit train -m {outcome.folder} -t mrpc, or another task to fine-tune it on")
        return
    display.say(f"files: {outcome.folder} (record.json, log.jsonl, model.safetensors, predictions/)")
    display.say(f"next: bertkit predict {outcome.folder}, bertkit evaluate {outcome.folder}, or bertkit train -h")


def _baseline(record: Mapping[str, Any]) -> str:
    """What the first metric would be without learning anything."""
    name = next(iter(record["metrics"]))
    found = (record["majority_class"] or {}).get(name)
    what = "the training text's frequencies" if name == "mlm_accuracy" else "always the most frequent class"
    return "" if found is None else f"   ({what}: {name} {found:.4f})"
