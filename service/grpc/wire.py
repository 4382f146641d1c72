"""Scans protobuf's wire format before it is parsed: https://protobuf.dev/programming-guides/encoding.

Two bytes on the wire may take a hundred in memory as a message. So inference requests are split here: their fields are
counted, their tensors are located without a copy, and only the rest is parsed. `codec` calls it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from service.errors import Reason, RequestError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types; no message of the service has groups, types 3 and 4
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_LONGEST = 10  # bytes of a varint
_ONE_BYTE, _MORE = 127, 128  # the largest varint of one byte; a byte that is not a varint's last
_INPUTS, _RAWS = 5, 7  # fields of ModelInferRequest
_CONTENTS = 5  # field of InferInputTensor
_INPUT_TAG = bytes([_INPUTS << 3 | LENGTH])
MOST_FIELDS = 4096  # of a request and its inputs, without those of typed contents
LARGEST_HEAD = 1 << 18  # bytes of a request without its tensors


Field = tuple[int, int, int, int, int]  # number, wire type, and offsets: of its tag, of its value, of its end


class Request(NamedTuple):
    """The parts of a `ModelInferRequest`.

    Attributes:
        head: the message without its tensors, in the wire format.
        contents: for each input, the parts of its typed contents, views of the request; None: it has none.
        raws: `raw_input_contents`, views of the request.
    """

    head: bytes
    contents: list[list[memoryview] | None]
    raws: list[memoryview]


def fields(data: memoryview, most: int) -> Iterator[Field]:
    """Find the fields of a message, in their order, without parsing their values.

    Args:
        data: the message.
        most: the largest allowed number of fields.

    Raises:
        RequestError: `bad_request`: the message is invalid or has more fields.
    """
    at, end = 0, len(data)
    while at < end:
        start = at
        most -= 1
        if most < 0:
            raise _bad("it has more fields than such a request needs")
        tag = data[at]
        at += 1
        if tag > _ONE_BYTE:
            tag, at = _number(data, start)
        kind = tag & 7
        value = at
        if kind in (LENGTH, VARINT):
            number = data[at] if at < end else _MORE
            at += 1
            if number > _ONE_BYTE:
                number, at = _number(data, value)
            if kind == LENGTH:
                value = at
                at += number
        elif kind in _WIDTHS:
            at += _WIDTHS[kind]
        else:
            raise _bad(f"byte {start} begins no field")
        if at > end:
            raise _bad(f"the field at byte {start} extends beyond the end")
        if tag <= kind:
            raise _bad("a field has the number 0")
        yield tag >> 3, kind, start, value, at


def split(data: bytes) -> Request:
    """Split a `ModelInferRequest` into its head and its tensors.

    Raises:
        RequestError: `bad_request`: it is invalid, or has more fields or a larger head than a request needs.
    """
    view = memoryview(data)
    head: list[bytes | memoryview] = []
    request = Request(b"", [], [])
    left = MOST_FIELDS
    for number, kind, start, value, end in fields(view, MOST_FIELDS):
        left -= 1
        if kind != LENGTH or (number not in (_INPUTS, _RAWS)):
            head.append(view[start:end])
        elif number == _RAWS:
            request.raws.append(view[value:end])
        else:
            given = view[value:end]
            contents: list[memoryview] | None = None
            kept: list[memoryview] = []
            for part, kind_, start_, value_, end_ in fields(given, left):
                left -= 1
                if part == _CONTENTS and kind_ == LENGTH:
                    contents = contents if contents is not None else []
                    contents.append(given[value_:end_])
                else:
                    kept.append(given[start_:end_])
            request.contents.append(contents)
            if contents is None:
                head.append(view[start:end])
            else:
                head += [_INPUT_TAG, varint(sum(map(len, kept))), *kept]
    size = sum(map(len, head))
    if size > LARGEST_HEAD:
        raise _bad(f"it has {size} bytes apart from its tensors; at most {LARGEST_HEAD} are expected")
    return request._replace(head=b"".join(head))


def varint(number: int) -> bytes:
    """Encode an integer that is not negative."""
    written = bytearray()
    while number > _ONE_BYTE:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """Decode the varint at offset `at`. Returns it and the offset after it."""
    number = shift = 0
    for byte in data[at : at + _LONGEST]:
        at += 1
        number |= (byte & 127) << shift
        if byte <= _ONE_BYTE:
            return number, at
        shift += 7
    raise _bad(f"the number at byte {at} does not end")


def _bad(detail: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, f"The request is not a valid inference.ModelInferRequest: {detail}.")
