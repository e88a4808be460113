"""The null backend: computes nothing, so that the loop, the commands and checkpoints are tested in seconds."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import Capabilities, Engine, Job, Probe, Setting, World


class NullBackend:
    name = "null"
    aliases: tuple[str, ...] = ()
    preference = -1  # never by itself
    capabilities = Capabilities(
        precisions=("fp32", "bf16"),
        heads=("classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder"),
        layouts=("padded", "unpadded", "packed"),
        extras=("class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze", "teacher_logits"),
        computes=False,
    )
    settings: Mapping[str, Setting] = {
        "step_seconds": Setting(0.0, "seconds that every update takes; for tests that interrupt a run"),
    }

    def probe(self) -> Probe:
        return Probe(True, "computes nothing; for tests and dry runs", self.capabilities.precisions)

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        from bertkit_null.engine import NullEngine

        return NullEngine(job, world)
