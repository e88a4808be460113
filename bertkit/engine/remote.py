"""A model at a server that speaks the Open Inference Protocol: its tensors by name, and requests to it.

Legend: B sequences, S length that they are padded to, C outputs of the head.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from bertkit.engine.inference_protocol import (
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    decode_response,
    encode_request,
)
from bertkit.engine.protocol_tensors import Tensor, tensor
from bertkit.errors import UserError, nearest
from bertkit.files.http import RemoteServer, Reply, Unanswered
from bertkit.files.inputs import parse_json

IDS, TYPES, MASK = "ids", "types", "mask"
# what a BERT's inputs and outputs are called: ours, NVIDIA's TensorFlow and its PyTorch example's
INPUT_NAMES: Mapping[str, tuple[str, ...]] = {
    IDS: ("input_ids", "input__0"),
    TYPES: ("token_type_ids", "segment_ids", "input__1"),
    MASK: ("attention_mask", "input_mask", "input__2"),
    "unused": ("unique_ids",),  # of NVIDIA's TensorFlow export, which gives no use to it
}
OUTPUT_NAMES: Mapping[str, tuple[str, ...]] = {
    "logits": ("logits", "output__0"),
    "start_logits": ("start_logits", "output__0"),
    "end_logits": ("end_logits", "output__1"),
}
BUSY = (429, 503)  # the server's queue is full, or it is not ready
POLL_S = 0.25
INTEGERS = ("INT64", "INT32")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the model's metadata describe it."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1: any


@dataclass(frozen=True)
class RemoteModel:
    """A model that a server has."""

    server: RemoteServer
    name: str
    version: str  # "": the server chooses
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    binary: bool  # whether the server takes raw tensors
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the metadata tell besides, as bertkit's own do

    @property
    def path(self) -> str:
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"/v2/models/{quote(self.name, safe='')}{version}"

    @property
    def of_texts(self) -> bool:
        """Whether it takes texts in place of token ids."""
        return any(one.datatype == "BYTES" for one in self.inputs)

    @property
    def tensors(self) -> str:
        """Its inputs and outputs, for messages."""
        return " -> ".join(", ".join(one.name for one in group) for group in (self.inputs, self.outputs))


# ---- what a server has ----


def wait_ready(server: RemoteServer, seconds: float, alive: Any = None) -> None:
    """Return when the server is ready. `alive`: called meanwhile; it raises where waiting has become pointless.

    Raises Unanswered after `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if server.request("GET", "/v2/health/ready").ok:
                return
            said = f"{server.address} is not ready"
        except Unanswered as error:
            said = error.cause
        if alive is not None:
            alive()
        if time.monotonic() >= end:
            raise Unanswered(f"{said}, {seconds:g} s long", "start the server, or raise --wait")
        time.sleep(POLL_S)


def list_models(server: RemoteServer) -> tuple[str, ...]:
    """The names of the models that the server says it has. Raises UserError where it does not say."""
    reply = server.request("POST", "/v2/repository/index", b"{}", {"Content-Type": "application/json"})
    found = _parsed(reply, server, "the server's index of models")
    names = [one.get("name") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def open_model(server: RemoteServer, name: str, version: str = "", of_texts: bool | None = None) -> RemoteModel:
    """The model called `name`; for "" the only one that takes texts (`of_texts`) or token ids.

    Raises UserError where there is none, and Unanswered where there is no server.
    """
    extensions = _extensions(server)
    if name:
        return _model(server, name, version, extensions)
    try:
        names = list_models(server)
    except Unanswered:
        raise
    except UserError:
        raise UserError(f"{server.address} does not list its models", "name one with --model") from None
    found = [_model(server, one, version, extensions) for one in names]
    fitting = [one for one in found if of_texts is None or one.of_texts == of_texts]
    if len(fitting) != 1:
        what = "" if of_texts is None else " of texts" if of_texts else " of token ids"
        raise UserError(
            f"{server.address} has {len(fitting)} models{what}" + (f": {_names(fitting)}" if fitting else ""),
            "name one with --model" if fitting else f"it has {_names(found) or 'none'}",
        )
    return fitting[0]


def _names(models: Sequence[RemoteModel]) -> str:
    return ", ".join(one.name for one in models)


def _extensions(server: RemoteServer) -> Sequence[str]:
    found = _parsed(server.request("GET", "/v2"), server, "the server's metadata")
    named = found.get("extensions") if isinstance(found, dict) else None
    if not isinstance(named, list):
        raise UserError(f"{server.address} does not speak the Open Inference Protocol", "check the address")
    return [str(one) for one in named]


def _model(server: RemoteServer, name: str, version: str, extensions: Sequence[str]) -> RemoteModel:
    made = RemoteModel(server, name, version, "", (), (), "binary_tensor_data" in extensions)
    reply = server.request("GET", made.path)
    if reply.status in (400, 404):
        raise _unknown(server, name, version)
    told = _parsed(reply, server, f"the metadata of {name}")
    if not isinstance(told, dict):
        raise UserError(f"{server.address}: the metadata of {name} are no JSON object", "check the address")
    facts = told.get("parameters")
    return dataclasses.replace(
        made, platform=str(told.get("platform") or ""), inputs=_specs(told, "inputs", name),
        outputs=_specs(told, "outputs", name), facts=facts if isinstance(facts, dict) else {},
    )  # fmt: skip


def _unknown(server: RemoteServer, name: str, version: str) -> UserError:
    try:
        known = list_models(server)
    except UserError:
        known = ()
    which = f"{name!r}, version {version}" if version else repr(name)
    return UserError(f"{server.address} has no model {which}", f"{nearest(name, known)}" if known else "check --model")


def _specs(told: Mapping[str, Any], key: str, name: str) -> tuple[TensorSpec, ...]:
    try:
        return tuple(
            TensorSpec(str(one["name"]), str(one["datatype"]), tuple(int(size) for size in one["shape"]))
            for one in told[key]
        )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"the server does not describe the {key} of {name}", "check the server's model") from None


def _parsed(reply: Reply, server: RemoteServer, what: str) -> Any:
    if not reply.ok:
        raise refused(reply, f"{server.address}: {what}")
    return parse_json(reply.content, what, "check the address")


def refused(reply: Reply, what: str) -> UserError:
    """The error for a response with an error's status, with what the server says."""
    try:
        told = json.loads(reply.content)
        said = str(told["error"]) if isinstance(told, dict) and "error" in told else ""
    except ValueError:
        said = ""
    return UserError(f"{what}: HTTP {reply.status}{f', {said}' if said else ''}", "correct the request, or the server")


# ---- requests ----


@dataclass(frozen=True)
class InputSpecs:
    """Which of a model's inputs is which of a BERT's."""

    names: Mapping[str, TensorSpec]  # IDS, MASK, TYPES, "unused"

    @property
    def length(self) -> int:
        """What every sequence is padded to; 0: the longest of its request."""
        shape = self.names[IDS].shape
        return max(0, shape[-1]) if shape else 0

    @property
    def batch(self) -> int:
        """Sequences of every request; 0: any."""
        shape = self.names[IDS].shape
        return max(0, shape[0]) * self.each if len(shape) > 1 else 0

    @property
    def each(self) -> int:
        """Sequences of an example: the choices of a model that chooses, else 1."""
        shape = self.names[IDS].shape
        return max(1, shape[1]) if len(shape) == 3 else 1


def input_specs(model: RemoteModel) -> InputSpecs:
    """Raises UserError where the model does not take what a BERT takes."""
    found = {key: one for one in model.inputs for key, names in INPUT_NAMES.items() if one.name in names}
    strange = [one.name for one in model.inputs if one not in found.values()]
    wrong = [one.name for one in found.values() if one.datatype not in INTEGERS]
    if strange or wrong or IDS not in found or MASK not in found:
        what = f"the inputs {', '.join(one.name for one in model.inputs) or '(none)'}"
        if wrong:
            what = f"{', '.join(f'{found_.name} of {found_.datatype}' for found_ in found.values())}"
        raise UserError(
            f"the server's model {model.name} has {what}, not input_ids, attention_mask and token_type_ids of integers",
            "name a model of token ids with --model",
        )
    return InputSpecs(found)


def output_names(model: RemoteModel, wanted: Sequence[str]) -> dict[str, str]:
    """What is wanted -> the model's own name for it. Raises UserError where it is not there."""
    own = [one.name for one in model.outputs]
    found = {}
    for name in wanted:
        there = next((one for one in OUTPUT_NAMES.get(name, (name,)) if one in own), "")
        if not there or ("start_logits" not in wanted and len(own) > 1 and there != name):
            raise UserError(
                f"the server's model {model.name} has the outputs {', '.join(own)}, not {' and '.join(wanted)}",
                "name another model with --model, or another task with -t",
            )
        found[name] = there
    return found


def padded_tensors(
    specs: InputSpecs, ids: Sequence[np.ndarray], types: Sequence[np.ndarray]
) -> tuple[tuple[Tensor, ...], int]:
    """(the inputs, padded; how long). `ids`, `types`: of each sequence, (S,).

    Raises UserError for a sequence that is longer than the server's model takes.
    """
    longest = max(len(one) for one in ids)
    length = specs.length or longest
    if longest > length:
        raise UserError(f"a sequence of {longest} tokens: the server's model takes {length}", f"cut them: -s {length}")
    rows = specs.batch or len(ids)
    made: dict[str, np.ndarray] = {key: np.zeros((rows, length), np.int64) for key in (IDS, TYPES, MASK)}
    for row in range(rows):
        one = min(row, len(ids) - 1)  # of a fixed batch that is not full the last sequence stands in for the rest
        made[IDS][row, : len(ids[one])] = ids[one]
        made[TYPES][row, : len(ids[one])] = types[one]
        made[MASK][row, : len(ids[one])] = 1
    if specs.each > 1:
        made = {key: values.reshape(-1, specs.each, length) for key, values in made.items()}
    made["unused"] = np.zeros((rows, 1), np.int64)
    inputs = tuple(
        tensor(spec.name, made[key].astype(np.int32) if spec.datatype == "INT32" else made[key])
        for key, spec in specs.names.items()
    )
    return inputs, length


def encoded(model: RemoteModel, inputs: Sequence[Tensor]) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a request for all of the model's outputs."""
    body = encode_request(InferRequest(tuple(inputs), binary_outputs=model.binary), model.binary)
    return body.content, body.headers


def send(model: RemoteModel, content: bytes, headers: Mapping[str, str]) -> Reply:
    """One request and its response, whatever its status."""
    return model.server.request("POST", f"{model.path}/infer", content, headers)


def infer(model: RemoteModel, inputs: Sequence[Tensor], patience: float) -> InferResponse:
    """What the model answers. A server whose queue is full is asked again for `patience` seconds.

    Raises UserError with what the server says where it refuses.
    """
    content, headers = encoded(model, inputs)
    end = time.monotonic() + patience
    while True:
        reply = send(model, content, headers)
        if reply.ok:
            return decode_response(reply.content, reply.headers.get(HEADER_LENGTH.lower()))
        wait = _retry_after(reply)
        if reply.status not in BUSY or time.monotonic() + wait > end:
            raise refused(reply, f"{model.server.address} refuses a request to {model.name}")
        time.sleep(wait)


def _retry_after(reply: Reply) -> float:
    said = reply.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() and len(said) < 4 else 1.0


def outputs_of(response: InferResponse, names: Mapping[str, str], model: RemoteModel) -> dict[str, np.ndarray]:
    """The wanted outputs, float32. Raises UserError where the server left one out, or sent no numbers."""
    there = {one.name: one for one in response.outputs}
    found = {}
    for wanted, own in names.items():
        if own not in there or there[own].values.dtype.kind not in "fiu":
            raise UserError(f"the server's model {model.name} sent no numbers as {own}", "check the server's model")
        found[wanted] = there[own].values.astype(np.float32)
    return found


def rows_of(sequences: np.ndarray, bounds: np.ndarray) -> Iterator[np.ndarray]:
    """Flat tokens (T,) sequence by sequence; `bounds` (B + 1,)."""
    for start, end in itertools.pairwise(bounds):
        yield sequences[start:end]
