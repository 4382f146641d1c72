"""Tensors to JSON and to raw bytes and back, and what is refused of them."""

import base64
import contextlib
import json
import struct
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.errors import Reason, RequestError
from service.oip.json_tensors import from_json, from_numbers, to_json
from service.oip.tensors import DATATYPES, datatype_of, from_raw, to_raw

NUMBERS = [np.dtype(dtype) for dtype in DATATYPES if dtype != "string"]
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def finite(dtype):
    return {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(dtype, shapes, elements=finite(dtype))))
def test_numbers_survive_a_round_trip_through_json(array):
    again = from_json("x", datatype_of(array), array.shape, b"".join(to_json(array)))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    if array.dtype.kind != "b":
        again = from_numbers("x", datatype_of(array), array.shape, array.ravel().tolist())
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    ("datatype", "numbers"),
    [
        ("UINT64", [2**63, 1]),
        ("UINT64", [2**64 - 1, 0]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP64", [10**30, 1]),
        ("FP32", [2**63, 0.5]),
        ("FP32", [3.4028235e38]),
    ],
)
def test_the_largest_numbers_of_a_datatype_are_exact(datatype, numbers):
    for array in (
        from_json("x", datatype, [len(numbers)], json.dumps(numbers).encode()),
        from_numbers("x", datatype, [len(numbers)], numbers),
    ):
        dtype = next(dtype for dtype, name in DATATYPES.items() if name == datatype)
        assert array.tolist() == [np.dtype(dtype).type(number) for number in numbers]


@given(hnp.arrays(object, shapes, elements=st.binary(max_size=9)))
def test_bytes_survive_a_round_trip_through_raw_form(array):
    again = from_raw("x", "BYTES", array.shape, memoryview(to_raw(array)))
    np.testing.assert_array_equal(again, array)


@given(hnp.arrays(object, shapes, elements=st.text(max_size=9)))
def test_texts_survive_a_round_trip_through_json(array):
    encoded = np.vectorize(str.encode, otypes=[object])(array) if array.size else array
    again = from_json("x", "BYTES", array.shape, b"".join(to_json(encoded)))
    np.testing.assert_array_equal(again, encoded)
    assert json.loads(b"".join(to_json(again))) == array.ravel().tolist()
    if array.size:
        again = from_json("x", "BYTES", array.shape, json.dumps(array.tolist()).encode())
        np.testing.assert_array_equal(again, encoded)


@given(st.sampled_from(list(DATATYPES.values())), st.lists(st.integers(-1, 3), max_size=3), st.binary(max_size=40))
def test_any_raw_bytes_are_decoded_or_refused(datatype, shape, data):
    with contextlib.suppress(RequestError):
        assert list(from_raw("x", datatype, shape, memoryview(data)).shape) == shape


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=3)
)


@given(st.sampled_from(list(DATATYPES.values())), st.lists(st.integers(0, 3), max_size=3), json_values)
def test_any_json_is_decoded_or_refused(datatype, shape, data):
    with contextlib.suppress(RequestError):
        assert list(from_json("x", datatype, shape, msgspec.json.encode(data)).shape) == shape


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], [1, 2, 3], "the shape [2] has 2 elements, but 3 came"),
        ("FP32", [3], [[1], [2, 3]], "its rows have different lengths"),
        ("FP32", [4], [[[1], [2]], [3, 4]], "its rows have different lengths"),
        ("FP32", [2], [1, [2]], "its rows have different lengths"),
        ("FP32", [1], [1e300], "the largest number of FP32 is 3.4"),
        ("FP16", [2], [1, 70000], "the largest number of FP16 is 65504"),
        ("FP32", [1], [None], "its elements are not FP32"),
        ("FP32", [1], [True], "its elements are not FP32"),
        ("INT32", [1], [[{}]], "its elements are not INT32"),
        ("INT32", [2], ["a" * 30_000, ""], "its elements are not INT32"),
        ("BYTES", [2, 1], [["a"], []], "its elements are not BYTES"),
        ("FP32", [1], ["1"], "its elements are not FP32"),
        ("INT32", [1], [1.5], "its elements are not INT32"),
        ("UINT8", [2], [0, 256], "UINT8 has the range 0 to 255"),
        ("UINT8", [1], [-1], "UINT8 has the range 0 to 255"),
        ("BOOL", [1], [1], "its elements are not BOOL"),
        ("INT64", [1], [2**70], "INT64 has the range"),
        ("UINT64", [2], [-1, 2**63], "UINT64 has the range"),
        ("BYTES", [1], json.loads("[" * 99 + "]" * 99), "lie 99 lists deep; expected one list, or 1"),
        ("FP32", [1], json.loads("[" * 99 + "]" * 99), "have 99 lists and more"),
        ("FP32", [1], [[]], "but 0 came"),
        ("BYTES", [1], [1], "in JSON they are texts"),
        ("BF16", [1], [1], "the datatype `BF16` is not served"),
        ("FP32", [-1], [], "the shape [-1] cannot be"),
        ("FP32", [1 << 30, 1 << 30], [], "cannot be"),
    ],
)
def test_json_that_does_not_fit_the_tensor_is_refused(datatype, shape, data, message):
    with pytest.raises(RequestError) as refusal:
        from_json("x", datatype, shape, json.dumps(data).encode())
    assert message in refusal.value.detail


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], b"1234567", "has 8 bytes, but 7 came"),
        ("BYTES", [1], struct.pack("<I", 5) + b"four", "end within an element"),
        ("BYTES", [1], b"\0\0", "at least 4 bytes, but 2 came"),
        ("BYTES", [2], struct.pack("<I", 4) + b"four", "has 2 elements, but 1 came"),
        ("BOOL", [2], b"\1\2", "a BOOL is a byte of 0 or 1"),
    ],
)
def test_raw_bytes_that_do_not_fit_the_tensor_are_refused(datatype, shape, data, message):
    with pytest.raises(RequestError) as refusal:
        from_raw("x", datatype, shape, memoryview(data))
    assert message in refusal.value.detail


def test_base64_in_json_is_decoded_if_declared():
    assert from_json("x", "BYTES", [1], b'["/9j/"]', encoded=True).tolist() == [b"\xff\xd8\xff"]
    for text in (b"/9j", b"/9j=" + b"A" * (1 << 20), b"A" * (1 << 20) + b"/9j"):
        with pytest.raises(RequestError, match="says base64"):
            from_json("x", "BYTES", [1], b'["%b"]' % text, encoded=True)
    data = np.random.default_rng(1).bytes(2_000_000)
    assert from_json("x", "BYTES", [1], b'["%b"]' % base64.b64encode(data), encoded=True).tolist() == [data]


def test_bytes_that_are_not_utf_8_cannot_be_json():
    with pytest.raises(RequestError, match="ask for it as binary data"):
        list(to_json(np.array([b"\xff"], object)))


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT16", "UINT64", "BOOL"])
@pytest.mark.parametrize("nesting", [[18_000], [1, 18_000], [300, 60], [2, 1, 9000], [18_000, 1, 1]])
@pytest.mark.parametrize("space", ["", " ", "\n  ", " " * 70_000])
def test_data_of_several_pieces_are_decoded(datatype, nesting, space):
    """Flat, nested as the shape, or otherwise, with more white space than a piece has."""
    dtype = next(dtype for dtype, name in DATATYPES.items() if name == datatype)
    array = np.random.default_rng(1).integers(0, 2 if datatype == "BOOL" else 9000, nesting).astype(dtype)
    text = json.dumps(array.tolist(), separators=(", ", ": ")).encode()
    text = text.replace(b", ", b"," + space.encode(), 50).replace(b"[", b"[" + space.encode(), 3)
    again = from_json("x", datatype, [300, 60], text)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array.reshape(300, 60))


@pytest.mark.parametrize("shape", [[2**62] * 100_000, [1] * 33, [0, 2**70], [1 << 40, 2], [-1]])
@pytest.mark.parametrize("datatype", ["BYTES", "FP32"])
def test_an_impossible_shape_is_refused_at_once(shape, datatype):
    start = time.perf_counter()
    for make, data in ((from_json, b"[]"), (from_raw, memoryview(b""))):
        with pytest.raises(RequestError, match="cannot be") as refusal:
            make("x", datatype, shape, data)
        assert refusal.value.reason is Reason.BAD_REQUEST
        assert len(refusal.value.detail) < 400
    assert time.perf_counter() - start < 1


def test_memory_is_allocated_for_received_and_not_for_declared_data():
    start = time.perf_counter()
    with pytest.raises(RequestError, match="but 1 came"):
        from_json("x", "BYTES", [1 << 39], b'["a"]')
    with pytest.raises(RequestError, match="but 2 came"):
        from_raw("x", "BYTES", [1], memoryview(bytes(4 * 1_000_000)))
    assert time.perf_counter() - start < 1
