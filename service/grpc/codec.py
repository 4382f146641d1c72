"""Converts inference requests to the dataplane's calls, and its answers to responses. `inference` calls it."""

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from service.arrays import Array
from service.grpc.contents import FIELDS, typed
from service.grpc.schema import InferRequest, Parameter, message
from service.grpc.wire import LENGTH, Request, varint
from service.oip.messages import Answer, Call
from service.oip.takes import Takes, check_parameters, declared_of
from service.oip.tensors import bad, datatype_of, from_raw, to_raw

MessageT = TypeVar("MessageT", bound=Message)
_Response = message("ModelInferResponse")
_IDLE = ("binary_data", "binary_data_size")  # of REST; KServe's client sends them over gRPC, too, without effect
_WANTS_FINAL = "triton_enable_empty_final_response"  # sent by Triton's clients; ignored, see `_FINAL`
_FINAL = "triton_final_response"  # Triton's mark of a request's last response; set on all responses of a stream
_RAWS_TAG = bytes([_Response.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | LENGTH])
_ERROR_TAG, _ANSWER_TAG = (
    bytes([message("ModelStreamInferResponse").DESCRIPTOR.fields_by_name[name].number << 3 | LENGTH])
    for name in ("error_message", "infer_response")
)
_PIECE = 1 << 13  # elements that are converted in one call


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """Parse a message from its wire format; raises `RequestError` (`bad_request`) if it is invalid."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise bad(f"The request is not a valid {kind.DESCRIPTOR.full_name}: {error}.") from error


def read(head: InferRequest, request: Request, takes: Takes) -> tuple[Call, bool]:
    """Convert a request to a call.

    Args:
        head: the message parsed from `request.head`.
        request: the result of `wire.split`.
        takes: what requests for the model may hold.

    Returns:
        The call, and whether its tensors were sent as raw bytes.

    Raises:
        RequestError: `bad_request`: the request does not follow the protocol, or does not fit the model.
    """
    raws = request.raws
    if raws and len(raws) != len(head.inputs):
        raise bad(f"There are {len(raws)} `raw_input_contents` for {len(head.inputs)} inputs; expected one each.")
    declared = declared_of((tensor.name, tensor.datatype, list(tensor.shape)) for tensor in head.inputs)
    takes.check_inputs(declared)
    inputs = dict[str, Array]()
    for number, (tensor, contents) in enumerate(zip(head.inputs, request.contents, strict=True)):
        name, (datatype, shape) = tensor.name, declared[tensor.name]
        check_parameters(name, tensor.parameters, _IDLE)
        if not raws:
            array = typed(name, datatype, shape, contents or [])
        elif contents is not None:
            raise bad(f"`{name[:80]}` has both `contents` and `raw_input_contents`.")
        else:
            array = from_raw(name, datatype, shape, raws[number])
        inputs[name] = takes.fit(name, array)
    for output in head.outputs:
        check_parameters(output.name, output.parameters, _IDLE)
    wanted = tuple(dict.fromkeys(output.name for output in head.outputs))
    takes.check_outputs(wanted)
    parameters = values(head.parameters)
    parameters.pop(_WANTS_FINAL, None)
    call = Call(head.model_name, inputs, head.model_version, wanted, parameters, id=head.id, card=takes.card)
    return call, bool(raws)


def write(answer: Answer, *, raw: bool, final: bool = False) -> bytes:
    """Encode an answer as `ModelInferResponse`.

    Args:
        answer: the dataplane's answer.
        raw: whether to send tensors as raw bytes. Else they are sent in typed fields, if there is one for each output.
        final: whether to mark it as the request's last response.
    """
    response = _Response(model_name=answer.model, model_version=answer.version, id=answer.id)
    if final:
        response.parameters[_FINAL].bool_param = True
    raw = raw or any(datatype_of(array) not in FIELDS for array in answer.outputs.values())
    raws: list[bytes | memoryview] = []
    for name, array in answer.outputs.items():
        tensor = response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if raw:
            data = to_raw(array)
            raws += [_RAWS_TAG, varint(len(data)), data]
        else:
            field, flat = getattr(tensor.contents, FIELDS[tensor.datatype]), array.ravel()
            for start in range(0, flat.size, _PIECE):
                field.extend(flat[start : start + _PIECE].tolist())
    return b"".join([response.SerializeToString(), *raws])  # encoded fields can be joined, which saves a copy


def write_in_stream(response: bytes) -> bytes:
    """Encode `ModelStreamInferResponse` with an encoded response in it."""
    return b"".join([_ANSWER_TAG, varint(len(response)), response])


def write_refusal(detail: str, call_id: str) -> bytes:
    """Encode `ModelStreamInferResponse` with an error in it.

    Args:
        detail: the error's message.
        call_id: the id of the request.
    """
    response = _Response(id=call_id)
    response.parameters[_FINAL].bool_param = True
    text = detail.encode()
    return b"".join([_ERROR_TAG, varint(len(text)), text, write_in_stream(response.SerializeToString())])


def values(parameters: Mapping[str, Parameter]) -> dict[str, object]:
    """Return the values of parameters; raises `RequestError` (`bad_request`) if one has no value."""
    found = {}
    for name, parameter in parameters.items():
        field = parameter.WhichOneof("parameter_choice")
        if field is None:
            raise bad(f"The parameter `{name[:80]}` has no value.")
        found[name] = getattr(parameter, field)
    return found
