"""Requests to infer as the dataplane's calls, and its answers as responses. `inference` calls it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from service.errors import Reason, RequestError
from service.grpc.schema import message
from service.oip.messages import Answer, Call
from service.oip.parameters import check_parameters
from service.oip.tensors import DTYPES, Array, check, datatype_of, from_raw, out_of_range, to_raw

_Response = message("ModelInferResponse")
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_IDLE = ("binary_data", "binary_data_size")  # words of REST that KServe's client sends here, too; they say nothing
_WANTS_FINAL = "triton_enable_empty_final_response"  # Triton's clients ask so; every answer in a stream says it
_TYPES: Mapping[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
    "bytes_contents": np.object_,
}


def parse(kind: Any, data: bytes) -> Any:
    """Make a message of its bytes; raises `RequestError` (`bad_request`) where they are none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise _bad(f"The request is no {kind.DESCRIPTOR.full_name}: {error}.") from error


def read(request: Any) -> tuple[Call, bool]:
    """Make a call of a request. Returns it, and whether its tensors came in raw form.

    Raises:
        RequestError: `bad_request`: not of the protocol's form.
    """
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise _bad(f"There are {len(raw)} `raw_input_contents` for {len(request.inputs)} inputs; expected one each.")
    inputs = dict[str, Array]()
    for number, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise _bad(f"The input `{tensor.name[:80]}` is there twice.")
        check_parameters(tensor.name, tensor.parameters, _IDLE)
        if not raw:
            inputs[tensor.name] = _typed(tensor)
        elif tensor.HasField("contents"):
            raise _bad(f"`{tensor.name[:80]}` has both `contents` and `raw_input_contents`.")
        else:
            inputs[tensor.name] = from_raw(tensor.name, tensor.datatype, tensor.shape, memoryview(raw[number]))
    for output in request.outputs:
        check_parameters(output.name, output.parameters, _IDLE)
    names = tuple(dict.fromkeys(output.name for output in request.outputs))
    parameters = values(request.parameters)
    parameters.pop(_WANTS_FINAL, None)
    return Call(request.model_name, inputs, request.model_version, names, parameters, id=request.id), bool(raw)


def write(answer: Answer, *, raw: bool) -> Any:
    """Make a response of an answer: in raw form, or in typed fields where every output has one."""
    response = _Response(model_name=answer.model, model_version=answer.version, id=answer.id)
    raw = raw or any(datatype_of(array) not in _FIELDS for array in answer.outputs.values())
    for name, array in answer.outputs.items():
        tensor = response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_raw(array))
        else:
            getattr(tensor.contents, _FIELDS[tensor.datatype]).extend(array.ravel().tolist())
    return response


def values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of parameters, each of which holds one in a field of its type."""
    found = {}
    for name, parameter in parameters.items():
        field = parameter.WhichOneof("parameter_choice")
        if field is None:
            raise _bad(f"The parameter `{name[:80]}` has no value.")
        found[name] = getattr(parameter, field)
    return found


def _typed(tensor: Any) -> Array:
    """Read a tensor's elements from the field of its datatype."""
    name, datatype = tensor.name, tensor.datatype
    if datatype == "FP16":
        raise _bad(f"`{name[:80]}`: FP16 has no typed field: send it in `raw_input_contents`.")
    size = check(name, datatype, tensor.shape)
    field = _FIELDS[datatype]
    given = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if given not in ([], [field]):
        raise _bad(f"`{name[:80]}`: {datatype} belongs into `{field}`, but {', '.join(given)} came.")
    elements = getattr(tensor.contents, field)
    if len(elements) != size:
        raise _bad(f"`{name[:80]}`: the shape {list(tensor.shape)} has {size} elements, but {len(elements)} came.")
    array: Array = np.empty(size, _TYPES[field])
    array[:] = elements
    if datatype == "BYTES":
        return array.reshape(tensor.shape)
    wanted = DTYPES[datatype]
    if wanted.kind in "iu" and size:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise out_of_range(name, datatype)
    return array.astype(wanted).reshape(tensor.shape)


def _bad(detail: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, detail)
