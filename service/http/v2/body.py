"""Bodies of the Open Inference Protocol over REST: JSON, optionally followed by tensors as raw bytes.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.arrays import Array
from service.oip.json_tensors import Numbers, from_json, from_numbers, to_json
from service.oip.messages import Answer, Call
from service.oip.takes import Takes, check_parameters, check_size, declared_of, size_of
from service.oip.tensors import bad, datatype_of, from_raw, to_raw
from service.settings import Settings

HEADER_LENGTH = b"inference-header-content-length"
LARGE = 65536  # bytes of JSON, or elements; larger bodies are read and written on another thread
_PIECE = 1 << 20  # bytes that are searched in one call
_FLAT = 1 << 18  # bytes of JSON that are decoded to lists in one call, which takes a few milliseconds
_LONGEST_SHAPE = 1024  # characters


DataT = TypeVar("DataT", Raw, Numbers)
_Parameters = dict[str, str | int | float | bool | None]


class _Input(Struct, Generic[DataT]):
    name: str
    shape: Raw
    datatype: str
    data: DataT | UnsetType = UNSET
    parameters: _Parameters | None = None


class _Output(Struct):
    name: str
    parameters: _Parameters | None = None


class _Request(Struct, Generic[DataT]):
    inputs: list[_Input[DataT]]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: _Parameters | None = None


class _OutputTensor(Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | UnsetType = UNSET


class _Response(Struct, omit_defaults=True):
    model_name: str
    model_version: str
    id: str = ""


_decode = msgspec.json.Decoder(_Request[Raw]).decode
_decode_flat = msgspec.json.Decoder(_Request[Numbers]).decode
_decode_shape = msgspec.json.Decoder(list[int]).decode
_encode = msgspec.json.Encoder().encode


class Form:
    """Which outputs a request asks for as raw bytes."""

    def __init__(self, binary: bool, by_name: Mapping[str, bool]) -> None:
        self._binary, self._by_name = binary, by_name

    def binary(self, name: str) -> bool:
        """Return whether an output is asked for as raw bytes."""
        return self._by_name.get(name, self._binary)


def parse(body: bytes, header_length: bytes | None, model: str, version: str, takes: Takes) -> tuple[Call, Form]:
    """Parse a request's body.

    Args:
        body: decompressed.
        header_length: the value of `Inference-Header-Content-Length`, the length of the JSON in bytes; None: the whole
            body is JSON.
        model: the model's name, from the path.
        version: from the path.
        takes: what requests for the model may hold.

    Raises:
        RequestError: `bad_request`: the body does not follow the protocol, or does not fit the model.
    """
    length = json_length(header_length, len(body))
    start = len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0  # as `/v1` does
    _check_quotes(body, length, takes.quotes)
    view = memoryview(body)
    try:
        request = _request(view[start:length])
        declared = declared_of((given.name, given.datatype, _shape(given)) for given in request.inputs)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"The body is not JSON of a request to infer: {error}") from error
    takes.check_inputs(declared)
    rest, inputs = view[length:], dict[str, Array]()
    for given in request.inputs:
        array, rest = _array(given, declared[given.name][1], rest)
        inputs[given.name] = takes.fit(given.name, array)
    if len(rest):
        raise bad(f"{len(rest)} bytes are left after the tensors: the sum of their `binary_data_size` is too small.")
    outputs = request.outputs or []
    takes.check_outputs([output.name for output in outputs])
    parameters, by_name = request.parameters or {}, dict[str, bool]()
    for output in outputs:
        options = output.parameters or {}
        check_parameters(output.name, options, {"binary_data"})
        if "binary_data" in options:
            by_name[output.name] = _is_set("binary_data", options)
    form = Form(_is_set("binary_data_output", parameters), by_name)
    wanted = tuple(dict.fromkeys(output.name for output in outputs))
    return Call(model, inputs, version, wanted, parameters, id=request.id or "", card=takes.card), form


def render(answer: Answer, form: Form, settings: Settings) -> tuple[bytes, int | None]:
    """Encode an answer. Returns the body, and the length of its JSON in bytes if raw tensors follow, else None.

    Raises:
        RequestError: `bad_request`: an output of bytes that are not text must be asked for as binary data;
            `too_large`: the answer exceeds the server's limit.
    """
    check_size(size_of(answer, form.binary), settings)
    raws: list[bytes | memoryview] = []
    written = [_encode(_Response(answer.model, answer.version, answer.id))[:-1], b',"outputs":[']
    for number, (name, array) in enumerate(answer.outputs.items()):
        tensor = _OutputTensor(name, datatype_of(array), array.shape)
        if number:
            written.append(b",")
        if form.binary(name):
            raws.append(to_raw(array))
            tensor.parameters = {"binary_data_size": len(raws[-1])}
            written.append(_encode(tensor))
        else:
            written += [_encode(tensor)[:-1], b',"data":', *to_json(array), b"}"]
    written.append(b"]}")
    length = sum(map(len, written)) if raws else None
    return b"".join([*written, *raws]), length


def elements(answer: Answer) -> int:
    """Return the number of elements of all output tensors."""
    return sum(array.size for array in answer.outputs.values())


def json_length(header: bytes | None, size: int) -> int:
    """Return the length of a body's JSON in bytes: the value of `header`, or `size` without a header.

    Raises:
        RequestError: `bad_request`: the header is not a number, or larger than the body.
    """
    if header is None:
        return size
    text = header.decode("latin-1").strip()
    if not text.isdecimal() or len(text) > 12 or int(text) > size:
        raise bad(f"Inference-Header-Content-Length: {text[:80]}: expected the length of the JSON, at most {size}.")
    return int(text)


def _check_quotes(body: bytes, length: int, limit: int) -> None:
    """Refuse JSON with too many quotation marks. This limits the number of objects that the parser creates."""
    found = 0
    for start in range(0, length, _PIECE):
        end = min(start + _PIECE, length)
        found += body.count(b'"', start, end) - body.count(b'\\"', start, end)
        if found > limit:
            raise bad(
                f"The JSON has more than {limit} quotation marks, which is more than names, parameters and the texts "
                "of a request for this model need. Send several requests, or tensors as binary data."
            )


def _request(text: memoryview) -> _Request[Raw] | _Request[Numbers]:
    """Decode the JSON of a request, in one step if it is small and all its data are flat lists of numbers."""
    if len(text) <= _FLAT:
        try:
            return _decode_flat(text)
        except msgspec.ValidationError:
            pass
    return _decode(text)


def _shape(given: _Input[Raw] | _Input[Numbers]) -> list[int]:
    if len(memoryview(given.shape)) > _LONGEST_SHAPE:
        raise bad(f"`{given.name[:80]}`: its shape has more than {_LONGEST_SHAPE} characters, more than any model's.")
    return _decode_shape(given.shape)


def _is_set(name: str, parameters: _Parameters) -> bool:
    """Return the value of a parameter that is true or false; false if it is null or not there."""
    value = parameters.get(name)
    if not (value is None or isinstance(value, bool)):
        raise bad(f"`{name}={str(value)[:80]}`: expected true or false.")
    return value is True


def _array(given: _Input[Raw] | _Input[Numbers], shape: Sequence[int], rest: memoryview) -> tuple[Array, memoryview]:
    """Read one input from its JSON, or from the start of the raw bytes. Returns it and the bytes after it."""
    name, parameters = given.name, given.parameters or {}
    check_parameters(name, parameters, {"binary_data_size", "content_type"})
    size = parameters.get("binary_data_size")
    if size is None:
        if given.data is UNSET:
            raise bad(f"`{name[:80]}` has neither `data` nor the parameter `binary_data_size`.")
        if isinstance(given.data, list):
            return from_numbers(name, given.datatype, shape, given.data), rest
        encoded = parameters.get("content_type") == "base64"
        return from_json(name, given.datatype, shape, memoryview(given.data), encoded=encoded), rest
    if given.data is not UNSET:
        raise bad(f"`{name[:80]}` has both `data` and `binary_data_size`.")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise bad(f"`{name[:80]}`: `binary_data_size` is {str(size)[:80]}, but {len(rest)} bytes are left.")
    return from_raw(name, given.datatype, shape, rest[:size]), rest[size:]
