"""A trained model as a SavedModel, which any program with TensorFlow loads without bertkit.

Legend: B sequences, S length that they are padded to, N slots (B * S), C outputs of the head.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from bertkit.plugin import PER_TOKEN, Arrays, ExportedModel, PaddedModel
from bertkit_tensorflow.device import DTYPES
from bertkit_tensorflow.model import Dropout, Seen, Weights, outputs

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SIGNATURES = {"serving_default": tf.int32, "serving_int64": tf.int64}
FLOAT32 = ("bert.embeddings.", "classifier.")  # parameters that are read in float32 whatever the precision


class Served:
    """An encoder with its head, over padded sequences."""

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.dtype = DTYPES[model.precision]
        self.parameters = {
            name: tf.Variable(tf.cast(array, self._kept_as(name)), trainable=False, name=name)
            for name, array in model.weights.items()
        }

    def _kept_as(self, name: str) -> tf.DType:
        """What is only read in the compute dtype is stored so."""
        return tf.float32 if name.startswith(FLOAT32) or "LayerNorm" in name else self.dtype

    def __call__(
        self, input_ids: tf.Tensor, token_type_ids: tf.Tensor, attention_mask: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """(B, S) each, of whole numbers -> logits (B, C), tokens: (B, S, C); span: start_logits, end_logits (B, S).

        Positions count from each row's first place. Tokens see those whose mask is as theirs: real ones the real.
        """
        most = self.model.config.max_position_embeddings
        fits = tf.debugging.assert_less_equal(
            tf.shape(input_ids)[1], most, f"sequences are over the {most} positions of the model"
        )
        with tf.control_dependencies([fits]):
            input_ids = tf.identity(input_ids)
        sequences, length = tf.shape(input_ids)[0], tf.shape(input_ids)[1]
        whole = {
            "input_ids": tf.reshape(tf.cast(input_ids, tf.int32), [-1]),
            "token_type_ids": tf.reshape(tf.cast(token_type_ids, tf.int32), [-1]),
            "position_ids": tf.tile(tf.range(length), [sequences]),
            "segments": tf.reshape(tf.cast(attention_mask != 0, tf.int32), [-1]),
            "first": tf.range(sequences) * length,
        }
        weights = Weights(self.parameters, self.dtype)
        found = outputs(weights, self.model.config, self.model.head, Seen(whole, sequences), Dropout())
        if self.model.head.kind not in PER_TOKEN:
            return found
        return {name: tf.reshape(t, tf.concat([[sequences, length], t.shape[1:]], 0)) for name, t in found.items()}


def write(model: ExportedModel, folder: Path) -> None:
    """The signatures `serving_default` (int32) and `serving_int64`; B and S are any."""
    served = Served(model)
    signatures = {
        name: tf.function(served, autograph=False).get_concrete_function(
            *(tf.TensorSpec([None, None], dtype, name=each) for each in INPUTS)
        )
        for name, dtype in SIGNATURES.items()
    }
    module = tf.Module()
    module.parameters = served.parameters  # what is not held by it is not saved
    tf.saved_model.save(module, str(folder), signatures)


def load(folder: Path) -> PaddedModel:
    loaded = tf.saved_model.load(str(folder))
    return functools.partial(_computed, loaded, loaded.signatures["serving_default"])


def _computed(owner: object, signature: object, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """`owner` keeps the variables alive."""
    found = signature(**{name: tf.constant(inputs[name], tf.int32) for name in INPUTS})  # type: ignore[operator]
    return {name: tensor.numpy() for name, tensor in found.items()}
