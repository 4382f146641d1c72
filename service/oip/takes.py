"""The limits on one model's requests: names, datatypes, shapes and rows of tensors, and the size of the answer.

REST and gRPC check them before they convert any data, the dataplane before it submits jobs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from service.arrays import Array, objects
from service.errors import Reason, RequestError
from service.models.inputs import RESULT, made_outputs
from service.oip.describe import IMAGE
from service.oip.messages import Answer, AnyCard, Call
from service.oip.tensors import DATATYPES, MOST_TEXTS, bad, check, shape_text
from service.settings import Settings
from zoo.pipeline_card import PipelineCard
from zoo.served_card import AnyServed, Output, Tensor

Declared = Mapping[str, tuple[str, Sequence[int]]]  # datatype and shape of every input, by name
_CHARACTERS = 12  # about the length of a number in JSON
_TEXT_QUOTES = 2  # quotation marks around a string in JSON
_OTHER_QUOTES = 1 << 14  # the most quotation marks in a JSON body of names and parameters


class Takes:
    """The limits on requests for a model that takes tensors.

    Attributes:
        card: of the model, or of a pipeline.
        texts: the most elements of BYTES in one request.
        quotes: the most quotation marks in the JSON of one request, which limits the number of parsed objects.
    """

    def __init__(self, card: AnyServed, settings: Settings) -> None:
        self.card: AnyCard = card
        self.texts = MOST_TEXTS if any(tensor.dtype == "string" for tensor in card.inputs) else 0
        self._settings = settings
        self._inputs = {tensor.name: (DATATYPES[tensor.dtype], tensor.shape) for tensor in card.inputs}
        self._row_bytes = {output.name: _row_bytes(output) for output in card.outputs}
        self._output_names = list(self._row_bytes)

    @property
    def quotes(self) -> int:
        return _OTHER_QUOTES + _TEXT_QUOTES * self.texts

    def check_inputs(self, declared: Declared) -> int:
        """Check the datatypes and shapes of a request's inputs, and return its number of rows.

        Raises:
            RequestError: `bad_request`: the inputs do not fit the model; `too_large`: too many rows or BYTES.
        """
        for name, (datatype, shape) in declared.items():
            check(name, datatype, shape)
        return self._check_rows(declared)

    def check_outputs(self, names: Sequence[str]) -> None:
        """Check the names of the requested outputs; raises `RequestError` (`bad_request`)."""
        _check_names("output", names, self._output_names)

    def outputs(self, call: Call) -> Sequence[str]:
        """Return the names of the outputs that a call is answered with."""
        return call.outputs or list(self._row_bytes)

    def check_answer(self, rows: int, names: Sequence[str]) -> None:
        """Refuse a request whose answer would be too large by its outputs' fixed dimensions alone.

        Args:
            rows: number of rows in the request.
            names: of the requested outputs; empty: all of the graph's.

        Raises:
            RequestError: `too_large`.
        """
        row = sum(size for name, size in self._row_bytes.items() if not names or name in names)
        check_size(rows * row, self._settings)

    def fit(self, name: str, array: Array) -> Array:
        """Convert a checked input to the form that the graph takes.

        Raises:
            RequestError: `bad_request`: the graph takes strings, and the BYTES are not UTF-8.
        """
        if array.dtype.kind != "O":
            # In a body, numbers may begin at any offset.
            return array if array.flags.aligned else np.require(array, requirements=("C", "A"))
        return self._fit_bytes(name, array)

    def _check_rows(self, declared: Declared) -> int:
        rows = self._check_tensors(declared)
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

    def _fit_bytes(self, name: str, array: Array) -> Array:
        try:
            texts = [value.decode() for value in array.ravel()]
        except UnicodeDecodeError as error:
            raise bad(f"`{name}`: the graph takes texts, and these BYTES are not UTF-8: {error}") from error
        return objects(texts, array.shape)

    def _check_tensors(self, declared: Declared) -> int:
        """Check the graph's inputs, and return their number of rows."""
        _check_names("input", declared, self._inputs)
        if missing := [name for name in self._inputs if name not in declared]:
            raise bad(f"The input `{missing[0]}` is missing.")
        rows = {name: shape[0] if shape else 0 for name, (_, shape) in declared.items()}
        (count, *others) = set(rows.values())
        if others or not count:
            raise bad(f"The inputs have {rows} rows: the first dimension is the batch, the same of all, and not 0.")
        for name, (expected, sides) in self._inputs.items():
            datatype, shape = declared[name]
            if datatype != expected:
                raise bad(f"`{name}` is {datatype}; expected {expected}.")
            if len(shape) != len(sides) or any(
                side != got for side, got in zip(sides, shape, strict=True) if side is not None
            ):
                wanted = [-1 if side is None else side for side in sides]
                raise bad(f"`{name}` has the shape {shape_text(shape)}; expected {wanted}, where -1 is any.")
            if 0 in shape:
                raise bad(f"`{name}` has the shape {shape_text(shape)}, which has no elements; expected some.")
        return count


class ImageTakes(Takes):
    """The limits on requests for a model with a recipe for images, which takes them encoded or as pixels."""

    def __init__(self, card: AnyServed, settings: Settings) -> None:
        super().__init__(card, settings)
        self.texts = settings.max_images
        self._output_names += made_outputs(card)

    def _check_rows(self, declared: Declared) -> int:
        if len(declared) != 1:
            (pixels,) = self._inputs
            raise bad(
                f"`{self.card.name}` takes one input, `{pixels}` (pixels) or `{IMAGE}` (encoded images), not "
                f"{', '.join(f'`{name[:80]}`' for name in declared) or 'none'}."
            )
        ((name, (datatype, shape)),) = declared.items()
        count = shape[0] if shape else 0
        if not 0 < count <= self._settings.max_images:
            raise bad(f"`{name[:80]}` has {count} images; expected 1 to {self._settings.max_images}.")
        if name != IMAGE:
            return self._check_tensors(declared)
        if datatype != "BYTES" or math.prod(shape) != count:
            raise bad(f"`{IMAGE}`: expected BYTES of the shape [N] or [N, 1], an encoded image each.")
        return count

    def outputs(self, call: Call) -> Sequence[str]:
        made = self._output_names[len(self._row_bytes) :]
        return call.outputs or (made if IMAGE in call.inputs else []) or list(self._row_bytes)

    def _fit_bytes(self, name: str, array: Array) -> Array:  # noqa: ARG002 - overrides the base class' method
        return array


class PipelineTakes(ImageTakes):
    """The limits on requests for a pipeline, which takes encoded images and answers results."""

    def __init__(self, card: PipelineCard, settings: Settings) -> None:  # it has no graph, so no base class reads it
        self.card = card
        self.texts = settings.max_images
        self._settings = settings
        self._inputs, self._row_bytes, self._output_names = {}, {}, [RESULT]

    def _check_rows(self, declared: Declared) -> int:
        _check_names("input", declared, [IMAGE])
        if not declared:
            raise bad(f"The input `{IMAGE}` is missing.")
        return super()._check_rows(declared)


def declared_of(inputs: Iterable[tuple[str, str, Sequence[int]]]) -> Declared:
    """Return what a request declares of its inputs, each a name, a datatype and a shape.

    Raises:
        RequestError: `bad_request`: a name occurs twice.
    """
    declared: dict[str, tuple[str, Sequence[int]]] = {}
    for name, datatype, shape in inputs:
        if name in declared:
            raise bad(f"The input `{name[:80]}` occurs twice.")
        declared[name] = datatype, shape
    return declared


def takes_of(card: AnyCard, settings: Settings) -> Takes:
    """Return the limits on requests for a model or a pipeline."""
    if isinstance(card, PipelineCard):
        return PipelineTakes(card, settings)
    return Takes(card, settings) if card.recipe is None else ImageTakes(card, settings)


def check_parameters(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse parameters that have no effect here.

    Args:
        name: of the tensor.
        given: names of its parameters.
        known: names of those that have an effect.

    Raises:
        RequestError: `bad_request`; its message says what to do instead.
    """
    for parameter in given:
        if parameter.startswith("shared_memory"):
            raise bad(f"`{name[:80]}`: shared memory is not served: send the tensor.")
        if parameter == "classification":
            raise bad(f"`{name[:80]}`: ask for the output `result` with the parameter `top_k` instead.")
        if parameter not in known:
            raise bad(f"`{name[:80]}`: there is no parameter `{parameter[:80]}` here.")


def size_of(answer: Answer, binary: Callable[[str], bool] = lambda _: True) -> int:
    """Return the size of an answer's tensors in bytes: in raw form, or about that of their JSON where not `binary`."""
    return sum(
        sum(map(len, array.ravel())) + 4 * array.size
        if array.dtype.kind == "O"
        else (array.nbytes if binary(name) else _CHARACTERS * array.size)
        for name, array in answer.outputs.items()
    )


def check_size(size: int, settings: Settings) -> None:
    """Refuse an answer of more bytes than `ZOOSERVE_MAX_ANSWER_MB` (`too_large`)."""
    if size > settings.max_answer_mb * 1e6:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The answer would have about {size / 1e6:.0f} MB; the limit is {settings.max_answer_mb:g} MB. Send fewer "
            "rows, ask for fewer outputs, or for binary data instead of JSON.",
        )


def _row_bytes(output: Output | Tensor) -> int:
    """Return the smallest size of a row of an output, in bytes."""
    width = 1 if output.dtype == "string" else np.dtype(output.dtype).itemsize
    return width * math.prod(side or 1 for side in output.shape[1:])


def _check_names(kind: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise bad(f"There is no {kind} `{name[:80]}`; expected {', '.join(f'`{one}`' for one in known)}.")
