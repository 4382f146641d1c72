"""Parser of multipart form bodies (RFC 7578), which reads them piece by piece. `v1.images` feeds it.

Text is read as UTF-8; a declared charset is ignored. The time is linear in the number of bytes. The number of parts,
the size of a part's headers and the stored size of a field are limited.

Why not python-multipart 0.0.34, which BentoML installs: it refuses a preamble, padding after a boundary and folded
headers, all of which RFC 2046 allows, and logs a warning for each refusal. It takes 84 instead of 57 microseconds for
an image of 100 kB, is faster above some megabytes, and has only one of the limits that are needed.
"""

import re
from typing import NamedTuple

from service.errors import Reason, RequestError

MAX_HEAD = 8192  # bytes of the headers of one part
MAX_OTHERS = 32  # parts that are not images
MAX_VALUE = 1024  # bytes of a field's value that are kept: no option is longer
_MAX_BOUNDARY = 200  # bytes; the specification allows 70
_MAX_PADDING = 128  # spaces and tabs after a boundary
_MAX_PARAMETERS = 16
_PARAMETER = re.compile(rb';\s*+([^\s=;"]++)\s*+(?:=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^;]*+)))?+\s*+', re.DOTALL)


class Image(NamedTuple):
    """A part named `image`: its bytes, not yet decoded, and its Content-Transfer-Encoding in lower case."""

    data: bytes
    encoding: bytes


class Multipart:
    """A body of parts.

    Attributes:
        images: the parts named `image`, in order, with or without a file name.
        fields: the values of the other parts by name, cut to `MAX_VALUE` bytes.
    """

    def __init__(self, content_type: bytes, max_images: int) -> None:
        """Start with a request's Content-Type; raises `RequestError` (`bad_request`) if it names no boundary."""
        boundary = _parameters(content_type).get(b"boundary", b"")
        if not 0 < len(boundary) <= _MAX_BOUNDARY:
            raise _bad("its Content-Type names no boundary, or one that is too long")
        self.images: list[Image] = []
        self.fields: dict[str, str] = {}
        self._max_images = max_images
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._searched = 0  # bytes at the buffer's start that were searched: no delimiter begins in them
        self._others = 0
        self._name = self._encoding = b""
        self._step = self._preamble

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            RequestError: `too_large`: too many images; `bad_request`: it is not multipart, or has too many parts.
        """
        if self._step == self._epilogue:
            return
        self._buffer += chunk
        while self._step():
            pass

    def finish(self) -> None:
        """End the body; raises `RequestError` (`bad_request`) if its closing boundary is missing."""
        if self._step != self._epilogue:
            raise _bad("it ends before its closing boundary")

    def _preamble(self) -> bool:
        """Skip what comes before the first boundary."""
        place = self._buffer.find(self._delimiter)
        if place < 0:
            del self._buffer[: -len(self._delimiter)]
            return False
        return self._take_delimiter(place)

    def _take_delimiter(self, place: int) -> bool:
        del self._buffer[: place + len(self._delimiter)]
        self._step = self._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        """Decide whether a boundary closes the body or starts a part."""
        buffer = self._buffer
        if buffer.startswith(b"--"):
            buffer.clear()
            self._step = self._epilogue
            return False
        end = buffer.find(b"\r\n", 0, _MAX_PADDING)
        if end < 0 and len(buffer) < _MAX_PADDING:
            return False
        if end < 0 or buffer[:end].strip(b" \t"):
            raise _bad("a boundary is not at the end of its line")
        del buffer[:end]  # the line break stays: in a part without headers it belongs to the blank line
        self._step = self._head
        return True

    def _head(self) -> bool:
        """Read the headers of a part."""
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                raise _bad(f"the headers of a part have more than {MAX_HEAD} bytes")
            return False
        self._name = self._encoding = b""
        for line in bytes(self._buffer[:end]).replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-disposition":
                self._name = _parameters(value).get(b"name", b"")
            elif name.lower() == b"content-transfer-encoding":
                self._encoding = value.strip().lower()
        self._count()
        del self._buffer[: end + 2]  # the last line break stays: in an empty part it belongs to the delimiter
        self._searched = 0
        self._step = self._data
        return True

    def _count(self) -> None:
        if self._name == b"image":
            if len(self.images) >= self._max_images:
                raise too_many_images(self._max_images)
        else:
            self._others += 1
            if self._others > MAX_OTHERS:
                raise _bad(f"it has more than {MAX_OTHERS} parts that are not named `image`")

    def _data(self) -> bool:
        """Collect the bytes of a part up to the next boundary."""
        buffer, image = self._buffer, self._name == b"image"
        place = buffer.find(self._delimiter, self._searched)
        if place < 0:
            self._searched = max(0, len(buffer) - len(self._delimiter) + 1)
            if not image and self._searched > MAX_VALUE + 2:
                del buffer[MAX_VALUE + 2 : self._searched]
                self._searched = MAX_VALUE + 2
            return False
        with memoryview(buffer) as view:
            data = bytes(view[2 : place if image else min(place, MAX_VALUE + 2)])
        if image:
            self.images.append(Image(data, self._encoding))
        else:
            self.fields[self._name.decode("utf-8", "replace")] = data.decode("utf-8", "replace")
        return self._take_delimiter(place)

    def _epilogue(self) -> bool:
        """Ignore what follows the closing boundary."""
        return False


def too_many_images(limit: int) -> RequestError:
    """Make the error for a body with more images than the server's limit."""
    return RequestError(Reason.TOO_LARGE, f"More than {limit} images in one request. Send several requests.")


def _parameters(header: bytes) -> dict[bytes, bytes]:
    """Parameters of a header such as `form-data; name="image"`, by name in lower case. Of repeated ones, the first.

    Further ones than some are not read: a header may have thousands.
    """
    found: dict[bytes, bytes] = {}
    at = header.find(b";")
    for _ in range(_MAX_PARAMETERS):
        match = _PARAMETER.match(header, at) if at >= 0 else None
        if match is None:
            break
        name, quoted, plain = match.groups()
        value = plain if quoted is None else re.sub(rb'\\(["\\])', rb"\1", quoted)
        found.setdefault(name.lower(), (value or b"").strip() if quoted is None else value)
        at = match.end() if match.end() > at else -1
    return found


def _bad(what: str) -> RequestError:
    return RequestError(
        Reason.BAD_REQUEST,
        f"The multipart body cannot be read: {what}. Send one with `curl -F image=@photo.jpg`, say.",
    )
