"""What one model's requests may hold: names, datatypes, shapes and rows, and how large its answer may become.

The bodies of REST and gRPC ask before they convert any data, the dataplane before a run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import Reason, RequestError
from service.oip.describe import IMAGE, RESULT
from service.oip.tensors import DATATYPES, MOST_TEXTS, bad, check, shape_text
from service.settings import Settings
from zoo.card import AnyServed, ServedCard, Tensor

Declared = Mapping[str, tuple[str, Sequence[int]]]  # datatype and shape of every input, by name
_TEXT_QUOTES = 2  # round a text in JSON
_OTHER_QUOTES = 1 << 14  # quotation marks in a body of JSON beside those of texts: names and parameters


class Takes:
    """The bounds of the requests for one model.

    Attributes:
        card: of the model.
        texts: the most elements of BYTES in one request.
        quotes: the most quotation marks in the JSON of one request, which bounds the objects that are made of it.
    """

    def __init__(self, card: AnyServed, settings: Settings) -> None:
        self.card = card
        self._settings = settings
        if isinstance(card, ServedCard):
            self.texts = settings.max_images
        else:
            self.texts = MOST_TEXTS if any(tensor.dtype == "string" for tensor in card.inputs) else 0
        self.quotes = _OTHER_QUOTES + _TEXT_QUOTES * self.texts

    def check_inputs(self, declared: Declared) -> int:
        """Check what a request says of its inputs, and return its rows.

        Raises:
            RequestError: `bad_request`: other inputs than the model takes; `too_large`: more rows than it may.
        """
        for name, (datatype, shape) in declared.items():
            check(name, datatype, shape)
        if isinstance(self.card, ServedCard):
            return self._check_images(self.card, declared)
        rows = _check_tensors(self.card.inputs, declared)
        if rows > self._settings.max_rows:
            raise RequestError(
                Reason.TOO_LARGE,
                f"The inputs have {rows} rows; the limit is {self._settings.max_rows}. Send several requests.",
            )
        texts = sum(math.prod(shape) for datatype, shape in declared.values() if datatype == "BYTES")
        if texts > self.texts:
            raise RequestError(
                Reason.TOO_LARGE,
                f"The inputs have {texts} elements of BYTES; the limit is {self.texts}. Send several requests.",
            )
        return rows

    def check_outputs(self, names: Sequence[str]) -> None:
        """Check the names of the outputs that are asked for; raises `RequestError` (`bad_request`)."""
        known = [output.name for output in self.card.outputs]
        _check_names("output", names, [*known, RESULT] if isinstance(self.card, ServedCard) else known)

    def check_answer(self, rows: int, names: Sequence[str]) -> None:
        """Refuse, before it is computed, an answer whose known dimensions make it too large.

        Args:
            rows: of the request.
            names: of the outputs that are asked for; none: all of the graph's.

        Raises:
            RequestError: `too_large`.
        """
        size = 0
        for output in self.card.outputs:
            if not names or output.name in names:
                width = 1 if output.dtype == "string" else np.dtype(output.dtype).itemsize
                size += rows * width * math.prod(side or 1 for side in output.shape[1:])
        check_size(size, self._settings)

    def fit(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring an input that was checked into the form in which the graph takes it.

        Raises:
            RequestError: `bad_request`: the graph takes texts, and these BYTES are none.
        """
        if array.dtype.kind != "O":
            return np.require(array, requirements=("C", "A"))  # behind a header, numbers may lie anywhere
        if isinstance(self.card, ServedCard):
            return array
        try:
            texts = [value.decode() for value in array.ravel()]
        except UnicodeDecodeError as error:
            raise bad(f"`{name}`: the graph takes texts, and these BYTES are none in UTF-8: {error}") from error
        made = np.empty(len(texts), object)
        made[:] = texts
        return made.reshape(array.shape)

    def _check_images(self, card: ServedCard, declared: Declared) -> int:
        (graphs,) = card.inputs
        if len(declared) != 1:
            raise bad(
                f"`{card.name}` takes one input, `{graphs.name}` (pixels) or `{IMAGE}` (encoded pictures), not "
                f"{', '.join(f'`{name[:80]}`' for name in declared) or 'none'}."
            )
        (name, (datatype, shape)), *_ = declared.items()
        count = shape[0] if shape else 0
        if not 0 < count <= self._settings.max_images:
            raise bad(f"`{name[:80]}` has {count} pictures; expected 1 to {self._settings.max_images}.")
        if name == IMAGE:
            if datatype != "BYTES" or math.prod(shape) != count:
                raise bad(f"`{IMAGE}`: expected BYTES of the shape [N] or [N, 1], an encoded picture each.")
            return count
        return _check_tensors(card.inputs, declared)


def check_size(size: int, settings: Settings) -> None:
    """Refuse an answer of more bytes than `ZOOSERVE_MAX_ANSWER_MB` (`too_large`)."""
    if size > settings.max_answer_mb * 1e6:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The answer would have about {size / 1e6:.0f} MB; the limit is {settings.max_answer_mb:g} MB. Send fewer "
            "rows, ask for fewer outputs, or, where it is JSON, for binary data.",
        )


def _check_tensors(expected: Sequence[Tensor], declared: Declared) -> int:
    """Check the graph's own inputs, and return their rows."""
    _check_names("input", list(declared), [tensor.name for tensor in expected])
    if missing := [tensor.name for tensor in expected if tensor.name not in declared]:
        raise bad(f"The input `{missing[0]}` is missing.")
    rows = {name: shape[0] if shape else 0 for name, (_, shape) in declared.items()}
    (count, *others) = set(rows.values())
    if others or not count:
        raise bad(f"The inputs have {rows} rows: the first dimension is the batch, the same of all, and not 0.")
    for tensor in expected:
        datatype, shape = declared[tensor.name]
        if datatype != DATATYPES[tensor.dtype]:
            raise bad(f"`{tensor.name}` is {datatype}; expected {DATATYPES[tensor.dtype]}.")
        fits = len(shape) == len(tensor.shape) and all(
            side is None or side == got for side, got in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted = [-1 if side is None else side for side in tensor.shape]
            raise bad(f"`{tensor.name}` has the shape {shape_text(shape)}; expected {wanted}, where -1 is any.")
        if not math.prod(shape):
            raise bad(f"`{tensor.name}` has the shape {shape_text(shape)}, which has no elements; expected some.")
    return count


def _check_names(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise bad(f"There is no {kind} `{name[:80]}`; expected {', '.join(f'`{one}`' for one in known)}.")
