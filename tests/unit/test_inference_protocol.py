"""Requests and responses of the Open Inference Protocol: round trips, faults, and beside Triton's own client."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bertkit.engine.inference_protocol import (
    Body,
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    error_body,
)
from bertkit.engine.protocol_tensors import BF16, BYTES, DATATYPES, RAW_TYPES, Tensor, tensor
from bertkit.errors import UserError
from triton_server import client

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
IN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw: Any, binary: bool = True, name: str | None = None) -> Tensor:
    """A tensor of any datatype; where not `binary`, one that JSON can hold."""
    called = draw(NAMES) if name is None else name
    datatype = draw(st.sampled_from([each for each in DATATYPES if binary or each != BF16]))
    shape = draw(SHAPES)
    if datatype == BYTES:
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(str.encode)
        elements = st.binary(max_size=8) if binary else texts
        size = int(np.prod(shape))
        values = np.empty(size, object)
        values[:] = draw(st.lists(elements, min_size=size, max_size=size))
        return Tensor(name=called, datatype=BYTES, values=values.reshape(shape))
    kind = np.dtype("f4") if datatype == BF16 else RAW_TYPES[datatype].newbyteorder("=")
    finite = None if binary or kind.kind != "f" else {"allow_nan": False, "allow_infinity": False}
    values = draw(npst.arrays(kind, shape, elements=finite))
    if datatype == BF16:
        bits = np.ascontiguousarray(values).view("u4") & np.uint32(0xFFFF0000)  # what BF16 has
        values = bits.view("f4").reshape(shape)
    return Tensor(name=called, datatype=datatype, values=values)


def same(one: Tensor, other: Tensor) -> bool:
    return (
        (one.name, one.datatype, one.shape) == (other.name, other.datatype, other.shape)
        and one.values.dtype == other.values.dtype
        and (one.values.tolist() == other.values.tolist() if one.datatype == BYTES else bits(one) == bits(other))
    )


def bits(one: Tensor) -> bytes:
    return one.values.tobytes()


def unique(found: list[Tensor]) -> bool:
    return len({each.name for each in found}) == len(found)


@given(st.lists(tensors(), max_size=4).filter(unique), NAMES, st.booleans())
def test_a_request_in_binary_comes_back(inputs: list[Tensor], name: str, all_binary: bool) -> None:
    outputs = (RequestedOutput(name=name, binary=True, parameters={"classification": 3}),)
    asked = InferRequest(
        inputs=tuple(inputs), outputs=outputs, id="7", parameters={"timeout": 5}, binary_outputs=all_binary
    )
    body = encode_request(asked)
    found = decode_request(body.content, body.headers.get("Inference-Header-Content-Length"))
    assert (found.id, found.outputs, found.parameters) == ("7", outputs, {"timeout": 5})
    assert found.binary_outputs == all_binary
    assert len(found.inputs) == len(inputs)
    assert all(same(one, other) for one, other in zip(found.inputs, inputs, strict=True))


@given(st.lists(tensors(binary=False), max_size=4).filter(unique))
def test_a_request_in_json_comes_back(inputs: list[Tensor]) -> None:
    body = encode_request(InferRequest(inputs=tuple(inputs)), binary_inputs=False)
    assert body.header_length is None
    found = decode_request(body.content)
    assert found.outputs == ()
    assert all(same(one, other) for one, other in zip(found.inputs, inputs, strict=True))


@given(st.lists(tensors(binary=False), max_size=4).filter(unique), st.data())
def test_a_response_with_some_tensors_in_binary_comes_back(outputs: list[Tensor], data: st.DataObject) -> None:
    binary = [each.name for each in outputs if data.draw(st.booleans())]
    told = InferResponse(model="m", version="1", id="x", outputs=tuple(outputs), parameters={"a": 1})
    body = encode_response(told, binary)
    assert (body.header_length is not None) == bool(binary)
    found = decode_response(body.content, body.header_length)
    assert (found.model, found.version, found.id, found.parameters) == ("m", "1", "x", {"a": 1})
    assert all(same(one, other) for one, other in zip(found.outputs, outputs, strict=True))


@given(tensors(binary=False))
def test_nested_data_is_the_same_as_flat(one: Tensor) -> None:
    data = [each.decode() for each in one.values.reshape(-1)] if one.datatype == BYTES else one.values.tolist()
    nested = np.array(data, object).reshape(one.shape).tolist() if one.datatype == BYTES else data
    entry = {"name": one.name, "shape": list(one.shape), "datatype": one.datatype}
    if one.shape:
        found = decode_request(json.dumps({"inputs": [entry | {"data": nested}]}).encode())
        assert same(found.inputs[0], one)


def test_the_bytes_are_those_of_the_protocol() -> None:
    asked = InferRequest(
        inputs=(tensor("ids", np.array([[1, 258]], np.int32)), tensor("text", ["a", "é"])), binary_outputs=True
    )
    body = encode_request(asked)
    end = body.header_length
    assert json.loads(body.content[:end]) == {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "ids", "datatype": "INT32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        ],
    }
    assert body.content[end:] == b"\1\0\0\0\2\1\0\0" + b"\1\0\0\0a" + b"\2\0\0\0\xc3\xa9"
    assert body.headers == {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(end),
    }
    in_json = encode_request(InferRequest(inputs=asked.inputs), binary_inputs=False)
    assert json.loads(in_json.content)["inputs"][1]["data"] == ["a", "é"]
    assert in_json.headers == {"Content-Type": "application/json"}


def test_an_output_says_more_than_the_request() -> None:
    outputs = (RequestedOutput(name="a", binary=False), RequestedOutput(name="b"))
    asked = InferRequest(inputs=(), outputs=outputs, binary_outputs=True)
    assert [asked.wants_binary(name) for name in "ab"] == [False, True]
    assert not InferRequest(inputs=()).wants_binary("a")


def entry(**changed: Any) -> dict[str, Any]:
    told = {"name": "ids", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]} | changed
    return {key: value for key, value in told.items() if value is not None}


FAULTS: list[tuple[dict[str, Any], str]] = [
    (entry(name=None), "has no name"),
    (entry(name="x" * 300), "has no name"),
    (entry(shape=None), "'ids' has a shape that is not"),
    (entry(shape=[1, -2]), "'ids' has a shape that is not"),
    (entry(shape=[1.0, 2]), "'ids' has a shape that is not"),
    (entry(shape=[1] * 17), "'ids' has a shape that is not"),
    (entry(shape=[0, 2**30, 2**30, 2**30], data=[]), "'ids' has a shape of too many elements"),
    (entry(shape=[3]), "'ids' has 2 elements, but its shape is [3]"),
    (entry(shape=[0]), "'ids' has 2 elements, but its shape is [0]"),
    (entry(data=[[1], [2]]), "'ids' has data that is not nested"),
    (entry(data=[[1, [2]]]), "'ids': element 1 is not a whole number"),
    (entry(data=[1, [2]]), "'ids' has data that is not nested"),
    (entry(data={"a": 1}), "'ids' has data that is not a list"),
    (entry(data=None), "'ids' has neither data nor binary_data_size"),
    (entry(parameters={"binary_data_size": 16}), "'ids' has both data and binary_data_size"),
    (entry(parameters={"shared_memory_region": "r"}), "'ids' is in shared memory"),
    (entry(parameters=[1]), "the parameters of 'ids'"),
    (entry(datatype="INT65"), "'ids' has no known datatype"),
    (entry(datatype=["INT64"]), "'ids' has no known datatype"),
    (entry(datatype="BF16"), "'ids' is BF16, which has no form in JSON"),
    (entry(data=[1, 2.0]), "'ids': element 1 is not a whole number"),
    (entry(data=[True, 2]), "'ids': element 0 is not a whole number"),
    (entry(data=[1, "2"]), "'ids': element 1 is not a whole number"),
    (entry(data=[1, 2**63]), "'ids' holds numbers that INT64 cannot hold"),
    (entry(datatype="UINT8", data=[1, 256]), "'ids' holds numbers that UINT8 cannot hold"),
    (entry(datatype="UINT64", data=[1, -1]), "'ids' holds numbers that UINT64 cannot hold"),
    (entry(datatype="BOOL", data=[True, 1]), "'ids': element 1 is not true or false"),
    (entry(datatype="FP32", data=[1, None]), "'ids': element 1 is not a number"),
    (entry(datatype="FP16", data=[1, 70000]), "'ids' holds numbers that FP16 cannot hold"),
    (entry(datatype="FP64", data=[1, 10**400]), "'ids' holds numbers that FP64 cannot hold"),
    (entry(datatype="FP64", data=[1, float("nan")]), "'ids' holds numbers that FP64 cannot hold"),
    (entry(datatype="BYTES"), "'ids': element 0 is not a text"),
]


@pytest.mark.parametrize(("told", "cause"), FAULTS, ids=[cause for _, cause in FAULTS])
def test_a_fault_of_a_tensor_names_it(told: dict[str, Any], cause: str) -> None:
    with pytest.raises(UserError) as error:
        decode_request(json.dumps({"inputs": [told]}).encode())
    assert cause in error.value.cause
    assert error.value.cure


@pytest.mark.parametrize(
    ("content", "length", "cause"),
    [
        (b"", None, "the request:1:1: not JSON"),
        (b"[1]", None, "not a JSON object"),
        (b'{"inputs": []', None, "not JSON"),
        (b"\xff{}", None, "not UTF-8"),
        (b"[" * 100_000, None, "nested too deep"),
        (b'{"inputs": [], "id": ' + b"9" * 5000 + b"}", None, "thousands of digits"),
        (b"{}", None, "inputs is not a list"),
        (b'{"inputs": [1]}', None, "an element of inputs"),
        (b'{"inputs": [], "id": 7}', None, "id is not a text"),
        (b'{"inputs": [], "id": "\\ud800"}', None, "surrogate pair"),
        (b'{"inputs": [], "parameters": 7}', None, "parameters"),
        (b'{"inputs": [], "parameters": {"binary_data_output": "yes"}}', None, "binary_data_output"),
        (b'{"inputs": [], "outputs": [{}]}', None, "an element of outputs has no name"),
        (b'{"inputs": [], "outputs": [{"name": "a"}, {"name": "a"}]}', None, "'a' is there twice"),
        (b'{"inputs": []}', "15", "Inference-Header-Content-Length"),
        (b'{"inputs": []}', "-1", "Inference-Header-Content-Length"),
        (b'{"inputs": []}', "\u0661", "Inference-Header-Content-Length"),
        (b'{"inputs": []}', "9" * 5000, "Inference-Header-Content-Length"),
        (b'{"inputs": []}xy', 14, "2 bytes behind the JSON"),
    ],
)  # fmt: skip
def test_a_fault_of_a_body_is_one_line(content: bytes, length: str | int | None, cause: str) -> None:
    with pytest.raises(UserError) as error:
        decode_request(content, length)
    assert cause in str(error.value)


def raw_request(raw: bytes, size: int | None = None, **changed: Any) -> tuple[bytes, int]:
    told = entry(data=None, parameters={"binary_data_size": len(raw) if size is None else size}, **changed)
    text = json.dumps({"inputs": [told]}).encode()
    return text + raw, len(text)


@pytest.mark.parametrize(
    ("raw", "changed", "cause"),
    [
        (b"\0" * 15, {}, "'ids' has 15 bytes, but INT64 of shape [1, 2] has 16"),
        (b"\0" * 16, {"size": 17}, "'ids': binary_data_size is not"),
        (b"\0" * 16, {"size": -1}, "'ids': binary_data_size is not"),
        (b"\0" * 16, {"size": True}, "'ids': binary_data_size is not"),
        (b"\0\2", {"datatype": "BOOL"}, "'ids' is BOOL and holds bytes other than 0 and 1"),
        (b"\0" * 7, {"datatype": BYTES}, "'ids' has 7 bytes, too few for 2 elements"),
        (b"\4\0\0\0abcd\1\0\0", {"datatype": BYTES}, "'ids': element 1 is cut off"),
        (b"\xff\xff\xff\xffabcd", {"datatype": BYTES}, "'ids': element 0 is cut off"),
        (b"\0" * 9, {"datatype": BYTES}, "'ids' has 1 bytes behind its 2 elements"),
        (b"\0" * 8, {"datatype": BYTES, "shape": [2**31 - 1]}, "too few for"),
    ],
)
def test_a_fault_of_raw_bytes_names_the_tensor(raw: bytes, changed: dict[str, Any], cause: str) -> None:
    with pytest.raises(UserError) as error:
        decode_request(*raw_request(raw, **changed))
    assert cause in error.value.cause


@given(IN_JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    for told in (value, {"inputs": value}, {"inputs": [value]}, {"inputs": [entry(data=value)]}):
        with contextlib.suppress(UserError):
            decode_request(json.dumps(told).encode())


@given(st.binary(max_size=60), st.integers(-5, 70))
def test_any_bytes_are_read_or_refused(raw: bytes, size: int) -> None:
    for datatype in (BYTES, "BOOL", BF16, "FP16"):
        with contextlib.suppress(UserError):
            decode_request(*raw_request(raw, size, datatype=datatype))


def test_a_name_twice_is_a_fault() -> None:
    with pytest.raises(UserError, match="'ids' is there twice among the inputs"):
        decode_request(json.dumps({"inputs": [entry(), entry()]}).encode())


def test_arrays_without_a_datatype_are_refused() -> None:
    with pytest.raises(UserError, match="complex128"):
        tensor("a", np.zeros(2, complex))
    with pytest.raises(UserError, match="not INT64"):
        tensor("a", np.zeros(2, np.int32), "INT64")
    with pytest.raises(UserError, match="NoneType"):
        tensor("a", np.array([None]))
    assert tensor("a", np.zeros(2, np.float32), BF16).datatype == BF16


def test_json_cannot_hold_everything() -> None:
    with pytest.raises(UserError, match="'a' holds numbers that are not finite"):
        encode_response(InferResponse(model="m", outputs=(tensor("a", np.array([np.nan])),)))
    with pytest.raises(UserError, match="'a' holds bytes that are not UTF-8"):
        encode_response(InferResponse(model="m", outputs=(tensor("a", [b"\xff"]),)))
    with pytest.raises(UserError, match="'a' is BF16"):
        encode_response(InferResponse(model="m", outputs=(tensor("a", np.zeros(1, np.float32), BF16),)))


def test_the_text_of_a_user_is_in_no_error() -> None:
    told = entry(datatype="INT64", data=["my secret", 1])
    with pytest.raises(UserError) as error:
        decode_request(json.dumps({"inputs": [told]}).encode())
    assert "secret" not in str(error.value)


def test_a_server_s_error_reaches_the_client() -> None:
    with pytest.raises(UserError, match="the server refuses: no such model"):
        decode_response(error_body("no such model"))


# ---- beside Triton's own client ----


def of_triton(one: Tensor) -> Any:
    """The tensor as Triton's client has it."""
    http = client()
    made = http.InferInput(one.name, list(one.shape), one.datatype)
    values = one.values
    if one.datatype == BYTES and not one.shape:  # numpy makes no array of objects of a single one by itself
        values = np.array(values.item(), object)
    return made.set_data_from_numpy(values)


@pytest.mark.slow  # its package comes with the slow tests
@given(st.lists(tensors(), min_size=1, max_size=3).filter(unique))
def test_a_request_of_tritons_client_is_understood(inputs: list[Tensor]) -> None:
    http = client()
    made = [of_triton(one) for one in inputs]
    content, length = http.InferenceServerClient.generate_request_body(made, request_id="7")
    found = decode_request(content, length)
    assert found.id == "7"
    assert found.binary_outputs
    assert all(same(one, other) for one, other in zip(found.inputs, inputs, strict=True))
    ours = encode_request(InferRequest(inputs=tuple(inputs), id="7", binary_outputs=True))
    assert ours.content[ours.header_length :] == bytes(content)[length:]
    theirs = json.loads(bytes(content)[:length])
    assert {key: json.loads(ours.content[: ours.header_length])[key] for key in theirs} == theirs


@pytest.mark.slow  # its package comes with the slow tests
@given(st.lists(tensors(), min_size=1, max_size=3).filter(unique))
def test_a_response_is_understood_by_tritons_client(outputs: list[Tensor]) -> None:
    http = client()
    body = encode_response(InferResponse(model="m", outputs=tuple(outputs)), [each.name for each in outputs])
    read = http.InferenceServerClient.parse_response_body(body.content, header_length=body.header_length)
    for each in outputs:
        found = read.as_numpy(each.name)
        assert found.shape == each.shape
        if each.datatype == BYTES:
            assert found.tolist() == each.values.tolist()
        else:
            assert found.astype(each.values.dtype).tobytes() == each.values.tobytes()


@pytest.mark.slow
def test_tritons_client_reads_json_too() -> None:
    http = client()
    body: Body = encode_response(InferResponse(model="m", outputs=(tensor("a", np.array([[0.1]], np.float32)),)))
    read = http.InferenceServerClient.parse_response_body(body.content)
    assert read.as_numpy("a") == np.array([[0.1]], np.float32)


def test_elements_of_bytes_are_as_tritons_own() -> None:
    utils = pytest.importorskip("tritonclient.utils", reason="tritonclient is not installed")
    values = tensor("a", [b"", b"abc", "é"]).values
    assert utils.serialize_byte_tensor(values).item() == b"".join(struct.pack("<I", len(v)) + v for v in values)
