"""Bodies of the Open Inference Protocol's REST form: JSON, with tensors behind it as raw bytes where that is wanted.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.errors import Reason, RequestError
from service.oip.messages import Answer, Call
from service.oip.parameters import check_parameters
from service.oip.tensors import Array, datatype_of, from_json, from_raw, to_json, to_raw

HEADER_LENGTH = b"inference-header-content-length"
_ZLIB = {b"gzip": 31, b"deflate": 15}  # window bits, which choose the format, too
_SMALL = 1024  # bytes; a shorter answer is not compressed
LARGE = 65536  # bytes of JSON or to compress; what has more is done beside the event loop
_LEVEL = 1  # tensors hardly get smaller by more effort


class _Input(Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = UNSET
    parameters: dict[str, Any] | None = None


class _Output(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


class _OutputTensor(Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class _Response(Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_OutputTensor]
    id: str = ""


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


class Form:
    """Which outputs a request wants as raw bytes."""

    def __init__(self, binary: bool, by_name: Mapping[str, bool]) -> None:
        self._binary, self._by_name = binary, by_name

    def binary(self, name: str) -> bool:
        """Whether an output is to be raw bytes."""
        return self._by_name.get(name, self._binary)


def parse(body: bytes, header_length: bytes | None, model: str, version: str) -> tuple[Call, Form]:
    """Make a call of a request's body.

    Args:
        body: decompressed.
        header_length: the value of the header that says where the JSON ends; None: it is all JSON.
        model: of the path.
        version: of the path.

    Raises:
        RequestError: `bad_request`: not of the protocol's form.
    """
    length = json_length(header_length, len(body))
    view = memoryview(body)
    try:
        request = _decode(view[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"The body is not JSON of a request to infer: {error}") from error
    rest, inputs = view[length:], dict[str, Array]()
    for given in request.inputs:
        if given.name in inputs:
            raise _bad(f"The input `{given.name[:80]}` is there twice.")
        inputs[given.name], rest = _array(given, rest)
    if len(rest):
        raise _bad(f"{len(rest)} bytes are left behind the tensors: their `binary_data_size` are too small in all.")
    outputs = request.outputs or []
    parameters, by_name = request.parameters or {}, dict[str, bool]()
    for output in outputs:
        wishes = output.parameters or {}
        check_parameters(output.name, wishes, {"binary_data"})
        if "binary_data" in wishes:
            by_name[output.name] = wishes["binary_data"] is True
    form = Form(parameters.get("binary_data_output") is True, by_name)
    names = tuple(dict.fromkeys(output.name for output in outputs))
    return Call(model, inputs, version, names, parameters, id=request.id or ""), form


def render(answer: Answer, form: Form) -> tuple[bytes, int | None]:
    """Write an answer. Returns the body, and where its JSON ends if tensors come behind it as raw bytes.

    Raises:
        RequestError: `bad_request`: an output that is no text was not asked for as binary data.
    """
    chunks: list[bytes] = []
    outputs = []
    for name, array in answer.outputs.items():
        tensor = _OutputTensor(name, datatype_of(array), array.shape)
        if form.binary(name):
            chunks.append(to_raw(array))
            tensor.parameters = {"binary_data_size": len(chunks[-1])}
        else:
            tensor.data = to_json(array)
        outputs.append(tensor)
    header = _encode(_Response(answer.model, answer.version, outputs, answer.id))
    return (b"".join([header, *chunks]), len(header)) if chunks else (header, None)


async def decompressed(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a request's Content-Encoding.

    Raises:
        RequestError: `too_large`: it would have more than `limit` bytes; `bad_request`: another encoding, or not it.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in _ZLIB:
        raise _bad(f"Content-Encoding `{encoding[:80].decode('latin-1')}` is not served: expected gzip or deflate.")

    def undo() -> bytes:
        engine = zlib.decompressobj(_ZLIB[encoding])
        try:
            data = engine.decompress(body, limit + 1)
        except zlib.error as error:
            raise _bad(f"The body is not {encoding.decode()}: {error}") from error
        if len(data) > limit:
            raise RequestError(Reason.TOO_LARGE, f"Decompressed, the body has more than {limit} bytes, the limit.")
        if not engine.eof or engine.unused_data:
            raise _bad(f"The body is not {encoding.decode()}: it ends too early, or goes on behind its end.")
        return data

    return await asyncio.to_thread(undo) if len(body) > LARGE else undo()


async def compressed(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """Compress an answer as its client accepts it. Returns it with its Content-Encoding, empty where there is none."""
    encoding = next((name for name in _ZLIB if _accepts(accepted, name)), b"")
    if not encoding or len(body) < _SMALL:
        return body, b""

    def pack() -> bytes:
        engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _ZLIB[encoding])
        return engine.compress(body) + engine.flush()

    return (await asyncio.to_thread(pack) if len(body) > LARGE else pack()), encoding


def _accepts(header: bytes, encoding: bytes) -> bool:
    """Whether an Accept-Encoding names an encoding, and not with `q=0`."""
    for part in header.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == encoding:
            return weight.strip().replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def json_length(header: bytes | None, size: int) -> int:
    """Where a body's JSON ends, by its header; without one it is all JSON.

    Raises:
        RequestError: `bad_request`: no length, or one beyond the body.
    """
    if header is None:
        return size
    text = header.decode("latin-1").strip()
    if not text.isdecimal() or len(text) > 12 or int(text) > size:
        raise _bad(f"Inference-Header-Content-Length: {text[:80]}: expected the length of the JSON, at most {size}.")
    return int(text)


def _array(given: _Input, rest: memoryview) -> tuple[Array, memoryview]:
    """Take one input from its JSON, or from the raw bytes that are left. Returns those that are left then."""
    name, parameters = given.name, given.parameters or {}
    check_parameters(name, parameters, {"binary_data_size", "content_type"})
    size = parameters.get("binary_data_size")
    if size is None:
        if given.data is UNSET:
            raise _bad(f"`{name[:80]}` has neither `data` nor the parameter `binary_data_size`.")
        encoded = parameters.get("content_type") == "base64"
        return from_json(name, given.datatype, given.shape, given.data, encoded=encoded), rest
    if given.data is not UNSET:
        raise _bad(f"`{name[:80]}` has both `data` and `binary_data_size`.")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise _bad(f"`{name[:80]}`: `binary_data_size` is {str(size)[:80]}, but {len(rest)} bytes are left.")
    return from_raw(name, given.datatype, given.shape, rest[:size]), rest[size:]


def _bad(detail: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, detail)
