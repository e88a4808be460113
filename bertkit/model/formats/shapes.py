"""Whether a checkpoint is whole: every parameter there, none unknown, each of the shape that its config asks for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertkit.errors import UserError
from bertkit.model.config import Arrays, Head, ModelConfig
from bertkit.model.formats.tf1 import FIRST, SECOND
from bertkit.model.parameters import Shapes, shapes
from bertkit.model.weights import check_numbers, unpadded

# Parts of a model that are there or not, each whole; without any of them it is a bare encoder.
PARTS = ("bert.pooler.", "cls.predictions.", "cls.seq_relationship.", "classifier.", "qa_outputs.")


def check_weights(weights: Mapping[str, np.ndarray], config: ModelConfig, where: str) -> tuple[Arrays, list[str]]:
    """The weights without the vocabulary's padding, and notes.

    Raises UserError naming the tensor with its shape where one is missing, unknown or of another shape than asked for,
    and where its numbers are not finite.
    """
    wanted = _wanted(weights, config)
    for name, array in weights.items():
        if name not in wanted:
            layers = f" of {config.num_hidden_layers} layers" if name.startswith("bert.encoder.layer.") else ""
            raise UserError(
                f"{where}: {name} {array.shape} is no parameter of a BERT{layers}",
                "give the config that belongs to it (--config), or leave it out with --leave-out",
            )
    kept, notes = dict(weights), []
    for name, shape in wanted.items():
        if name not in weights:
            raise UserError(f"{where}: lacks {name} {shape}", "the checkpoint is not whole; copy it again")
        check_numbers(name, weights[name], where)
        kept[name], note = unpadded(name, weights[name], shape)
        notes += note
        if kept[name].shape != shape:
            raise UserError(
                f"{where}: {name} is {weights[name].shape}, but the config asks for {shape}",
                "config and weights belong to different models, or its names are mixed up",
            )
    return kept, notes


def check_moments(moments: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], where: str) -> Arrays:
    """Moments fitted to the weights, padding rows away. Raises UserError naming one that does not fit."""
    made: Arrays = {}
    for name, array in moments.items():
        parameter = name.removeprefix(FIRST).removeprefix(SECOND)
        made[name] = array
        if parameter != name:
            if parameter not in weights:
                raise UserError(f"{where}: {name} {array.shape} belongs to no weight", "leave it out with --leave-out")
            made[name] = unpadded(parameter, array, weights[parameter].shape)[0]
            if made[name].shape != weights[parameter].shape:
                raise UserError(
                    f"{where}: {name} is {array.shape}, but {parameter} is {weights[parameter].shape}",
                    "convert without --moments",
                )
    return made


def head_of(weights: Mapping[str, np.ndarray]) -> tuple[Head, str]:
    """The head that the weights have, and the class of transformers that has the same parameters."""
    if "classifier.weight" in weights:
        outputs = len(weights["classifier.weight"])
        if "bert.pooler.dense.weight" not in weights:
            return Head("tokens", outputs), "BertForTokenClassification"
        return Head("regression" if outputs == 1 else "classification", outputs), "BertForSequenceClassification"
    if "qa_outputs.weight" in weights:
        return Head("span", 2), "BertForQuestionAnswering"
    mlm, nsp = "cls.predictions.bias" in weights, "cls.seq_relationship.bias" in weights
    if mlm or nsp:
        names = {(True, True): "BertForPreTraining", (True, False): "BertForMaskedLM"}
        return Head("pretraining", 2), names.get((mlm, nsp), "BertForNextSentencePrediction")
    return Head("classification", 2), "BertModel"


def _wanted(weights: Mapping[str, np.ndarray], config: ModelConfig) -> Shapes:
    """All parameters of the encoder and of those parts of which the checkpoint has something."""
    outputs = {part: len(weights[f"{part}weight"]) for part in PARTS if weights.get(f"{part}weight", np.empty(())).ndim}
    table: Shapes = {}
    for head in (
        Head("pretraining", outputs.get("cls.seq_relationship.", 2)),
        Head("span", outputs.get("qa_outputs.", 2)),
        Head("classification", outputs.get("classifier.", 2)),
    ):
        table |= shapes(config, head)
    absent = tuple(part for part in PARTS if not any(name.startswith(part) for name in weights))
    return {name: shape for name, shape in table.items() if not (absent and name.startswith(absent))}
