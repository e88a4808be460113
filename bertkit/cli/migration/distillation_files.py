"""NVIDIA's distill_config files: what a student is trained on, as the stage of `bertkit distill` that does the same."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.files import inputs

CURE = "give a file as NVIDIA's distillation_config_backbone.json"
UNNAMED = "distillation_config.json"  # the program's own value
SHIPPED = {"backbone": "last_layer", "head": "logits"}  # part of the name of NVIDIA's own files -> stage
SAID = {"last_layer": "attention, context and hidden states of the last layer", "logits": "the predictions alone"}
PARTS = {  # key that turns a state on -> key of its loss
    "use_attention_scores": "attention_loss",
    "use_hidden_states": "hidden_state_loss",
    "use_value_states": "value_state_loss",
    "use_embedding_states": "embedding_state_loss",
}
# losses that are on, and whether of the last layer alone -> stage
STAGES: tuple[tuple[Mapping[str, str], bool, str], ...] = (
    ({"attention_loss": "kld", "hidden_state_loss": "cosine", "value_state_loss": "kld"}, True, "last_layer"),
    ({"attention_loss": "mse", "hidden_state_loss": "mse", "embedding_state_loss": "mse"}, False, "tinybert"),
)


def assumed_stage(file: str, draft: Draft) -> str:
    """The stage that the file asks for; where it is not here, that of NVIDIA's file of this name, with a note.

    Raises NotUnderstood for a file of another name that is not here, and for losses that no stage has.
    """
    path = Path(file or UNNAMED)
    if inputs.is_file(path):
        return stage_of(path, inputs.read_object(path, CURE), draft)
    name = posixpath.basename(file).lower()
    stage = next((stage for part, stage in SHIPPED.items() if part in name), "")
    if not stage:
        raise NotUnderstood(
            f"{path} is not here, which says whether states or predictions are learned",
            "give the command in the folder of that file, or name the file by --distill_config",
        )
    draft.differs(f"{file} is not here: it is taken to ask for {SAID[stage]}, as NVIDIA's own does")
    return stage


def stage_of(path: Path, told: Mapping[str, Any], draft: Draft) -> str:
    """The stage that learns what a file asks for. Raises NotUnderstood where there is none."""
    asked = inputs.mapping_value(told.get("distillation_config"), f"{path}: distillation_config", CURE)
    losses = {loss: str(asked.get(loss)) for key, loss in PARTS.items() if asked.get(key)}
    if asked.get("use_pred_states"):
        if losses:
            draft.differs(
                f"{path} has {', '.join(losses)} beside the predictions: theirs does not train on them either"
            )
        return "logits"
    last = asked.get("student_teacher_layer_mapping") == "last_layer"
    for wanted, of_last, stage in STAGES:
        if losses == wanted and last == of_last:
            return stage
    said = ", ".join(f"{name} {form}" for name, form in losses.items()) or "no loss"
    raise NotUnderstood(
        f"{path} asks for {said} of {'the last layer' if last else 'every layer'}, which no stage here has",
        "choose a stage of `bertkit distill`: relations, tinybert or last_layer",
    )
