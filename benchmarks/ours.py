"""bertkit as a competitor, through its public engine: what `bertkit train` and `bertkit evaluate` call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from competitors import Competitor

from bertkit.conformance.fixtures import with_settings
from bertkit.data.features import Features
from bertkit.data.sampler import Sampler
from bertkit.engine.interface import Calibrates, Engine, Job, Limits, Update
from bertkit.engine.registry import choose
from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig
from bertkit.training.batch_limits import of_training

NAMES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}  # in the engine's description
Step = Callable[[np.ndarray], np.ndarray]  # (B,) example numbers -> the loss, or (T, 2) logits


def engine(
    one: Competitor,
    config: ModelConfig,
    head: Head,
    weights: Mapping[str, np.ndarray],
    threads: int,
    features: Features,
    calibration: np.ndarray,
) -> tuple[Engine, dict[str, str]]:
    """The engine, and what it says of itself; one of few sizes plans them by batches of the features, as for a run.

    `calibration`: (K, B) example numbers; only int8 looks at them.
    """
    most = of_training(features, Sampler(len(features), calibration.shape[1], 1), 1, 0)
    # the type of `precision` grows with bertkit; the backend refuses what it lacks
    job = Job(config, head, weights, precision=one.precision, limits=Limits((most,), ()))  # type: ignore[arg-type]
    made = with_settings(choose(one.backend).backend, job, threads=threads)
    if isinstance(made, Calibrates) and made.wants_calibration():
        made.calibrate([features.batch(row) for row in calibration])
    notes = dict(made.describe())
    if NAMES[one.precision] not in " ".join(notes.values()):
        raise UserError(f"bertkit says that it computes in {notes.get('compute dtype')}", "it lacks " + one.precision)
    return made, notes


def trainer(made: Engine, features: Features, rate: float) -> Step:
    step = 0

    def train(examples: np.ndarray) -> np.ndarray:
        nonlocal step
        step += 1
        scalars = made.train_step(Update(step, (features.batch(examples),), {"sequences": len(examples)}), rate)
        return np.array(float(scalars["loss"]))

    return train


def predictor(made: Engine, features: Features) -> Step:
    def predict(examples: np.ndarray) -> np.ndarray:
        output = made.predict(features.batch(examples))
        if "start_logits" in output:
            return np.stack([output["start_logits"], output["end_logits"]], axis=1)
        return output["logits"]

    return predict
