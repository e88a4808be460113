"""A model of Triton's python backend: texts in, answers out; another model of the repository computes the logits.

This file is copied into the exported repository as `model.py`. It needs numpy and tokenizers in the backend's Python.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from answering import Tokens, answer_question, answer_texts, batches, encode_question, encode_texts, padded
from tokenizers import Tokenizer


class TritonPythonModel:
    """What the backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"])
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "rules.json"), encoding="utf-8") as file:
            self.rules = json.load(file)
        outputs = json.loads(args["model_config"])["output"]
        self.types = {one["name"]: pb_utils.triton_string_to_numpy(one["data_type"]) for one in outputs}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """The sequences of all requests go to the model together, those of like length side by side."""
        encoded: list[list[list[Tokens]] | Exception] = []
        for request in requests:
            try:
                encoded.append(self._encode(request))
            except Exception as error:  # of one request; the others have theirs
                encoded.append(error)
        sequences = [one for each in encoded if isinstance(each, list) for several in each for one in several]
        failed: Exception | None = None
        try:
            for together in batches(sequences, self.rules["max_batch"]):
                self._compute(together)
        except Exception as error:
            failed = error
        return [self._respond(request, failed or each) for request, each in zip(requests, encoded, strict=True)]

    def _encode(self, request: Any) -> list[list[Tokens]]:
        """Of each of the request's rows: its sequences."""
        if self.rules["head"] == "span":
            asked = zip(_texts(request, "question"), _texts(request, "context"), strict=True)
            return [encode_question(self.tokenizer, self.rules, *both) for both in asked]
        pairs = _texts(request, "text_pair") or None
        return [[one] for one in encode_texts(self.tokenizer, self.rules, _texts(request, "text"), pairs)]

    def _compute(self, together: Sequence[Tokens]) -> None:
        """Fill in their logits."""
        rules = self.rules
        tensors = [
            pb_utils.Tensor(name, values.astype(rules["input_type"]))
            for name, values in zip(rules["inputs"], padded(together), strict=True)
        ]
        asked = pb_utils.InferenceRequest(
            model_name=rules["model"], requested_output_names=rules["outputs"], inputs=tensors
        )
        answer = asked.exec()
        if answer.has_error():
            raise RuntimeError(answer.error().message())
        found = [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in rules["outputs"]]
        for row, one in enumerate(together):
            one.logits = [values[row] for values in found]

    def _respond(self, request: Any, encoded: list[list[Tokens]] | Exception) -> Any:
        if isinstance(encoded, Exception):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(encoded)))
        if self.rules["head"] == "span":
            contexts = _texts(request, "context")
            rows = [answer_question(self.rules, *both) for both in zip(contexts, encoded, strict=True)]
        else:
            rows = [answer_texts(self.rules, one) for (one,) in encoded]
        outputs = []
        for name, kind in self.types.items():
            values = [[_bytes(value) for value in row[name]] for row in rows]
            outputs.append(pb_utils.Tensor(name, np.array(values, kind)))
        return pb_utils.InferenceResponse(outputs)


def _texts(request: Any, name: str) -> list[str]:
    """The rows of an input; [] where it is not given."""
    found = pb_utils.get_input_tensor_by_name(request, name)
    return [] if found is None else [text.decode("utf-8") for text in found.as_numpy().reshape(-1)]


def _bytes(value: Any) -> Any:
    return value.encode("utf-8") if isinstance(value, str) else value
