"""Parameters of single tensors, of which few have a meaning here. The codecs of REST and gRPC call it."""

from collections.abc import Collection

from service.oip.tensors import bad


def check_parameters(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse parameters that have no effect here.

    Args:
        name: of the tensor.
        given: names of its parameters.
        known: those that have a meaning.

    Raises:
        RequestError: `bad_request`: with what to do instead.
    """
    for parameter in given:
        if parameter.startswith("shared_memory"):
            raise bad(f"`{name[:80]}`: shared memory is not served: send the tensor.")
        if parameter == "classification":
            raise bad(f"`{name[:80]}`: ask for the output `result` with the parameter `top_k` instead.")
        if parameter not in known:
            raise bad(f"`{name[:80]}`: there is no parameter `{parameter[:80]}` here.")
