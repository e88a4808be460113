"""Requests and responses of the Open Inference Protocol, version 2, over HTTP: both directions, server's and client's.

A body is JSON, or JSON with the raw bytes of tensors behind it; then the header `Inference-Header-Content-Length` says
where the JSON ends (the protocol's extension "binary tensor data", which Triton's own client uses unless told not to).
What is unknown in a JSON object is passed over, as of extensions; what is known is checked. No web framework.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertkit.engine.protocol_tensors import (
    Tensor,
    check_datatype,
    check_shape,
    tensor_from_json,
    tensor_from_raw,
    tensor_to_json,
    tensor_to_raw,
)
from bertkit.errors import UserError
from bertkit.files.inputs import parse_json

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON_TYPE, BINARY_TYPE = "application/json", "application/octet-stream"
SIZE = "binary_data_size"
LONGEST_NAME = 256  # characters of a tensor's name


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client asks for."""

    name: str
    binary: bool | None = None  # None: as the request's `binary_data_output` says
    parameters: Mapping[str, Any] = field(default_factory=dict)  # without `binary_data`


@dataclass(frozen=True)
class InferRequest:
    """What a client asks of a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()  # (): all that the model has
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # without `binary_data_output`
    binary_outputs: bool = False  # `binary_data_output`

    def wants_binary(self, name: str) -> bool:
        """Whether the output `name` is to be sent as raw bytes."""
        asked = next((each.binary for each in self.outputs if each.name == name), None)
        return self.binary_outputs if asked is None else asked


@dataclass(frozen=True)
class InferResponse:
    """What the model answers."""

    model: str
    outputs: tuple[Tensor, ...]
    version: str = ""
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """What is sent over HTTP."""

    content: bytes
    header_length: int | None = None  # bytes of the JSON, where raw tensors stand behind it

    @property
    def headers(self) -> dict[str, str]:
        if self.header_length is None:
            return {"Content-Type": JSON_TYPE}
        return {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(self.header_length)}


# ---- to bytes ----


def encode_request(request: InferRequest, binary_inputs: bool = True) -> Body:
    """A client's request. Raises UserError for tensors that cannot be sent so."""
    told: dict[str, Any] = {"id": request.id} if request.id else {}
    parameters = {**request.parameters, **({"binary_data_output": True} if request.binary_outputs else {})}
    if parameters:
        told["parameters"] = parameters
    if request.outputs:
        told["outputs"] = [_requested(each) for each in request.outputs]
    return _body(told, "inputs", request.inputs, [each.name for each in request.inputs] if binary_inputs else [])


def encode_response(response: InferResponse, binary: Collection[str] = ()) -> Body:
    """A server's response. `binary`: the outputs that go as raw bytes. Raises UserError for what JSON cannot hold."""
    told: dict[str, Any] = {"model_name": response.model}
    told |= {"model_version": response.version} if response.version else {}
    told |= {"id": response.id} if response.id else {}
    told |= {"parameters": dict(response.parameters)} if response.parameters else {}
    return _body(told, "outputs", response.outputs, binary)


def error_body(message: str) -> bytes:
    """What stands in the body of any response with an error's status."""
    return to_bytes({"error": message})


def to_bytes(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _requested(each: RequestedOutput) -> dict[str, Any]:
    parameters = {**each.parameters, **({} if each.binary is None else {"binary_data": each.binary})}
    return {"name": each.name} | ({"parameters": parameters} if parameters else {})


def _body(told: dict[str, Any], key: str, tensors: Sequence[Tensor], binary: Collection[str]) -> Body:
    raw: list[bytes] = []
    told[key] = [_encoded(each, each.name in binary, raw) for each in tensors]
    text = to_bytes(told)
    return Body(content=b"".join([text, *raw]), header_length=len(text)) if raw else Body(content=text)


def _encoded(one: Tensor, binary: bool, raw: list[bytes]) -> dict[str, Any]:
    """A tensor's entry in the JSON; its bytes are added to `raw` where they go there."""
    told: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
    parameters = dict(one.parameters)
    if binary:
        raw.append(tensor_to_raw(one))
        parameters[SIZE] = len(raw[-1])
    if parameters:
        told["parameters"] = parameters
    return told if binary else told | {"data": tensor_to_json(one)}


# ---- from bytes ----


def decode_request(content: bytes, header_length: str | int | None = None) -> InferRequest:
    """A request as a server gets it; `header_length`: what the header says. Raises UserError for whatever is wrong."""
    told, raw = _parts(content, header_length, "the request")
    parameters = dict(_mapping(told.get("parameters"), "parameters"))
    all_binary = _flag(parameters.pop("binary_data_output", None), "binary_data_output")
    inputs = _tensors(told, "inputs", raw)
    outputs = tuple(_output(each) for each in _list(told.get("outputs", []), "outputs"))
    _check_names([each.name for each in outputs], "outputs")
    return InferRequest(
        inputs=inputs, outputs=outputs, id=_id(told), parameters=parameters, binary_outputs=bool(all_binary)
    )


def decode_response(content: bytes, header_length: str | int | None = None) -> InferResponse:
    """A response as a client gets it. Raises UserError for whatever is wrong, and with what a server's error says."""
    told, raw = _parts(content, header_length, "the response")
    if "error" in told:
        raise UserError(f"the server refuses: {told['error']}", "correct the request")
    return InferResponse(
        model=_text(told.get("model_name"), "model_name"),
        outputs=_tensors(told, "outputs", raw),
        version=_text(told.get("model_version") or "", "model_version"),
        id=_id(told),
        parameters=_mapping(told.get("parameters"), "parameters"),
    )


def json_object(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object that a body is. Raises UserError for anything else."""
    told = parse_json(content, where, "correct it")
    if not isinstance(told, dict):
        raise UserError(f"{where} is not a JSON object", "send one")
    return told


def _parts(content: bytes, header_length: str | int | None, where: str) -> tuple[dict[str, Any], memoryview]:
    """(the JSON object, the bytes behind it)."""
    if header_length is None:
        return json_object(content, where), memoryview(b"")
    spelled = str(header_length)
    end = int(spelled) if spelled.isascii() and spelled.isdecimal() and len(spelled) < 16 else -1
    if not 0 <= end <= len(content):
        raise UserError(f"{HEADER_LENGTH} is not the size of a part of the body", "send the bytes of its JSON")
    return json_object(content[:end], where), memoryview(content)[end:]


def _tensors(told: Mapping[str, Any], key: str, raw: memoryview) -> tuple[Tensor, ...]:
    found = []
    for each in _list(told.get(key), key):
        one, raw = _tensor(_mapping(each, f"an element of {key}"), key, raw)
        found.append(one)
    _check_names([each.name for each in found], key)
    if len(raw):
        raise UserError(f"{len(raw):,} bytes behind the JSON belong to none of the {key}", f"send {SIZE} of each")
    return tuple(found)


def _tensor(told: Mapping[str, Any], key: str, raw: memoryview) -> tuple[Tensor, memoryview]:
    """(the tensor, the bytes that are left for the next)."""
    name = _name(told, key)
    shape = check_shape(name, told.get("shape"))
    datatype = check_datatype(name, told.get("datatype"))
    parameters = dict(_mapping(told.get("parameters"), f"the parameters of {name!r}"))
    shared = next((word for word in parameters if word.startswith("shared_memory")), "")
    if shared:
        raise UserError(f"{name!r} is in shared memory ({shared}), which there is none of here", "send its data")
    size = parameters.pop(SIZE, None)
    if size is None:
        if "data" not in told:
            raise UserError(f"{name!r} has neither data nor {SIZE}", "send one of them")
        one, rest = tensor_from_json(name, datatype, shape, told["data"]), raw
    else:
        if "data" in told:
            raise UserError(f"{name!r} has both data and {SIZE}", "send one of them")
        if type(size) is not int or not 0 <= size <= len(raw):
            raise UserError(f"{name!r}: {SIZE} is not the size of a part of the body", f"set {HEADER_LENGTH}, and it")
        one, rest = tensor_from_raw(name, datatype, shape, raw[:size]), raw[size:]
    return Tensor(name=name, datatype=datatype, values=one.values, parameters=parameters), rest


def _output(told: Any) -> RequestedOutput:
    entry = _mapping(told, "an element of outputs")
    name = _name(entry, "outputs")
    parameters = dict(_mapping(entry.get("parameters"), f"the parameters of {name!r}"))
    binary = _flag(parameters.pop("binary_data", None), f"binary_data of {name!r}")
    return RequestedOutput(name=name, binary=binary, parameters=parameters)


def _name(told: Mapping[str, Any], key: str) -> str:
    name = told.get("name")
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME:
        raise UserError(f"an element of {key} has no name", f"send a text of up to {LONGEST_NAME} characters")
    return name


def _id(told: Mapping[str, Any]) -> str:
    return _text(told.get("id") or "", "id")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{what} is not a text", "send one")
    return value


def _flag(value: Any, what: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{what} is neither true nor false", "send one of them")
    return value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    """An object that may be left out."""
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{what}: not a JSON object", "send one")
    return value or {}


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{what} is not a list", "send one")
    return value


def _check_names(names: Iterable[str], key: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{name!r} is there twice among the {key}", "send each once")
        seen.add(name)
