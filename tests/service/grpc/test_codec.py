"""Requests as calls and answers as responses, without a server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import Reason, RequestError
from service.grpc import codec
from service.grpc.codec import parse
from service.grpc.contents import FIELDS
from service.grpc.contents import typed as typed_contents
from service.grpc.schema import message
from service.grpc.wire import split
from service.oip.messages import Answer, Call
from service.oip.takes import Takes
from service.oip.tensors import DATATYPES, check, to_raw

Request, Parameter = message("ModelInferRequest"), message("InferParameter")
Response, Contents = message("ModelInferResponse"), message("InferTensorContents")
X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}


class Anything(Takes):
    """What a model takes that takes everything."""

    def __init__(self) -> None:
        self.card, self.texts = None, 100

    def check_inputs(self, declared) -> None:
        for name, (datatype, shape) in declared.items():
            check(name, datatype, shape)

    def check_outputs(self, names) -> None:
        pass

    def fit(self, name, array):
        return array


def read(request) -> tuple[Call, bool]:
    """As a request of these bytes is read."""
    apart = split(request.SerializeToString())
    return codec.read(parse(Request, apart.head), apart, Anything())


def write(answer: Answer, *, raw: bool):
    return Response.FromString(codec.write(answer, raw=raw))


def typed(field: str, *values, **changes) -> dict:
    return X | {"contents": {field: values}} | changes


@given(
    st.sampled_from([dtype for dtype in DATATYPES if dtype != "string"]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=3))
    ),
    st.booleans(),
)
def test_an_answer_read_as_a_request_is_the_same(array, raw):
    """The messages of tensors are the same both ways."""
    response = write(Answer("m", "1", {"x": array}), raw=raw)
    assert bool(response.raw_output_contents) is (raw or array.dtype == np.float16)
    inputs = [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in response.outputs]
    request = Request(inputs=inputs, raw_input_contents=response.raw_output_contents)
    if not response.raw_output_contents:
        request.inputs[0].contents.ParseFromString(response.outputs[0].contents.SerializeToString())
    call, was_raw = read(request)
    assert was_raw is bool(response.raw_output_contents)
    assert call.inputs["x"].dtype == array.dtype
    np.testing.assert_array_equal(call.inputs["x"], array)


@pytest.mark.parametrize("raw", [True, False])
def test_bytes_are_encoded_and_decoded(raw):
    array = np.array([[b"", b"\xff\x00"], [b"a", b"b" * 300]], object)
    response = write(Answer("m", "1", {"x": array}), raw=raw)
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2, 2]}
    if not raw:
        tensor["contents"] = {"bytes_contents": response.outputs[0].contents.bytes_contents}
    call, _ = read(Request(inputs=[tensor], raw_input_contents=response.raw_output_contents))
    np.testing.assert_array_equal(call.inputs["x"], array)


def test_id_outputs_and_parameters_of_a_request_are_read():
    parameters = {
        "b": Parameter(bool_param=False),
        "i": Parameter(int64_param=-3),
        "u": Parameter(uint64_param=2**63),
        "s": Parameter(string_param=""),
        "d": Parameter(double_param=0.5),
    }
    request = Request(
        model_name="m", model_version="2", id="seven", parameters=parameters, outputs=[{"name": "y"}, {"name": "y"}]
    )
    call, _ = read(request)
    assert (call.model, call.version, call.id, call.outputs) == ("m", "2", "seven", ("y",))
    assert call.parameters == {"b": False, "i": -3, "u": 2**63, "s": "", "d": 0.5}


@pytest.mark.parametrize("datatype", [dtype for name, dtype in DATATYPES.items() if name not in ("float16", "string")])
@pytest.mark.parametrize("packed", [True, False])
def test_typed_contents_of_all_sizes_are_decoded(datatype, packed):
    """Numbers of one byte to ten, in one piece and in many, packed and not."""
    dtype = np.dtype(next(name for name, other in DATATYPES.items() if other == datatype))
    field = FIELDS[datatype]
    count = 50_000 if packed else 500
    if dtype.kind == "f":
        array = np.random.default_rng(1).random(count).astype(dtype)
    else:
        bits = np.random.default_rng(1).integers(0, 8 * dtype.itemsize, count).astype(np.uint64)
        array = (np.uint64(1) << bits).astype(dtype)
    data = Contents(**{field: array.tolist()}).SerializeToString()
    if not packed:
        number = Contents.DESCRIPTOR.fields_by_name[field].number
        kind = {4: 5, 8: 1}[dtype.itemsize] if dtype.kind == "f" else 0
        singles = [Contents(**{field: [value]}).SerializeToString()[2:] for value in array.tolist()]
        whole, data = data, b"".join(bytes([number << 3 | kind]) + single for single in singles)
        assert Contents.FromString(data) == Contents.FromString(whole)
    again = typed_contents("x", datatype, [count], [memoryview(data)])
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)
    halves = [memoryview(Contents(**{field: half}).SerializeToString()) for half in (array[:7], array[7:])]
    np.testing.assert_array_equal(typed_contents("x", datatype, [count], halves), array)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [X, X], "raw_input_contents": [bytes(8)]}, "1 `raw_input_contents` for 2 inputs"),
        ({"inputs": [X, X], "raw_input_contents": [bytes(8)] * 2}, "`x` occurs twice"),
        ({"inputs": [X], "raw_input_contents": [bytes(9)]}, "has 8 bytes, but 9 came"),
        ({"inputs": [typed("fp32_contents", 1, 2)], "raw_input_contents": [bytes(8)]}, "both `contents` and `raw_inp"),
        ({"inputs": [X]}, "has 2 elements, but 0 came"),
        ({"inputs": [typed("fp32_contents", 1, 2, 3)]}, "has 2 elements, but 3 came"),
        ({"inputs": [typed("int_contents", 1, 2)]}, "FP32 belongs into `fp32_contents`, but int_contents came"),
        ({"inputs": [typed("int_contents", 1, 128, datatype="INT8")]}, "INT8 has the range -128 to 127"),
        ({"inputs": [typed("uint_contents", 1, 256, datatype="UINT8")]}, "UINT8 has the range 0 to 255"),
        ({"inputs": [X | {"datatype": "FP16"}]}, "FP16 has no typed field"),
        ({"inputs": [X | {"datatype": "BF16"}]}, "`BF16` is not served"),
        ({"inputs": [X | {"shape": [-1, 2]}]}, "cannot be"),
        ({"inputs": [X | {"shape": [2**40, 2**40]}]}, "cannot be"),
        ({"inputs": [X | {"parameters": {"shared_memory_region": Parameter(string_param="a")}}]}, "shared memory"),
        ({"outputs": [{"name": "y", "parameters": {"classification": Parameter(int64_param=3)}}]}, "`top_k`"),
        ({"parameters": {"top_k": Parameter()}}, "The parameter `top_k` has no value"),
    ],
)
def test_requests_that_violate_the_protocol_are_refused(fields, message):
    with pytest.raises(RequestError) as refused:
        read(Request(**fields))
    assert refused.value.reason is Reason.BAD_REQUEST
    assert message in refused.value.detail


def test_numbers_are_not_copied():
    array = np.arange(6, dtype=np.float32)
    request = Request(inputs=[X | {"shape": [6]}], raw_input_contents=[bytes(to_raw(array))])
    assert not read(request)[0].inputs["x"].flags.owndata
