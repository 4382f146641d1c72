"""A request taken apart and put together is the request; whatever else comes ends in a refusal."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import RequestError
from service.grpc.contents import typed
from service.grpc.schema import message
from service.grpc.wire import fields, split, varint

Request, Contents = message("ModelInferRequest"), message("InferTensorContents")
texts = st.text(max_size=5)
contents = st.fixed_dictionaries(
    {},
    optional={
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32, allow_nan=False), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
    },
)
tensors = st.fixed_dictionaries(
    {"name": texts, "datatype": texts, "shape": st.lists(st.integers(-1, 2**40), max_size=3)},
    optional={"contents": contents},
)
requests = st.fixed_dictionaries(
    {"model_name": texts, "id": texts, "inputs": st.lists(tensors, max_size=3)},
    optional={
        "raw_input_contents": st.lists(st.binary(max_size=9), max_size=3),
        "outputs": st.lists(st.fixed_dictionaries({"name": texts}), max_size=2),
    },
)


@given(requests)
def test_splitting_a_request_loses_no_data(given_fields):
    whole = Request(**given_fields)
    apart = split(whole.SerializeToString())
    again = Request.FromString(apart.head)
    assert not again.raw_input_contents
    again.raw_input_contents.extend(map(bytes, apart.raws))
    for tensor, parts in zip(again.inputs, apart.contents, strict=True):
        assert not tensor.HasField("contents")
        if parts is not None:
            tensor.contents.ParseFromString(b"".join(parts))
    assert again == whole


@given(st.binary(max_size=60))
@example(b"\x2a\x80")
@example(b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0b")
@example(b"\x00\x00")
def test_any_bytes_are_split_or_refused(data):
    with contextlib.suppress(RequestError):
        apart = split(data)
        assert len(apart.head) + sum(map(len, apart.raws)) <= len(data) + 10 * len(apart.contents)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x2a\x00" * 5000, "more fields than such a request needs"),
        (b"\x2a\x88\x27" + b"\x18\x01" * 2500 + b"\x2a\x88\x27" + b"\x18\x01" * 2500, "more fields"),
        (b"\x0a" + varint(300_000) + bytes(300_000), "300004 bytes apart from its tensors; at most 262144"),
        (b"\x0a\x05abc", "extends beyond the end"),
        (b"\x0d\x00\x00", "extends beyond the end"),
        (b"\x0b\x0c", "byte 0 begins no field"),
        (b"\x02\x00", "a field has the number 0"),
        (b"\x80" * 20, "does not end"),
    ],
)
def test_invalid_requests_are_refused(data, message):
    with pytest.raises(RequestError, match=message):
        split(data)


@given(st.sampled_from(["INT8", "UINT64", "BOOL", "FP32", "FP64", "BYTES"]), st.integers(0, 9), st.binary(max_size=40))
@example("INT64", 1, b"\x1a\x02\xff\xff")
@example("INT64", 2, b"\x1a\x16" + b"\xff" * 20 + b"\x01\x01")
@example("INT64", 2, b"\x1a\x0c" + b"\xff" * 10 + b"\x01\x01")
def test_any_contents_are_decoded_or_refused(datatype, size, data):
    with contextlib.suppress(RequestError):
        assert typed("x", datatype, [size], [memoryview(data)]).shape == (size,)


@given(st.integers(0, 2**64 - 1))
def test_varints_are_encoded_and_decoded(number):
    data = memoryview(b"\x08" + varint(number))
    (field,) = fields(data, 1)
    assert field == (1, 0, 0, 1, len(data))
    assert Contents.FromString(b"\x28" + varint(number)).uint64_contents == [number]
