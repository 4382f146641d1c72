"""The Open Inference Protocol over gRPC, on the event loop of HTTP: both doors lead to the same queues.

`http.app` opens it beside HTTP where `ZOOSERVE_GRPC_PORT` names a port. grpcio is an extra: nothing needs it before.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from service.settings import SettingError
from zoo.extras import install

if TYPE_CHECKING:
    from service.http.keys import Guard
    from service.http.status import Status
    from service.oip.dataplane import Dataplane
    from service.runtime import Runtime


def require(port: int) -> None:
    """Raise `SettingError` where a port is asked for, and what is needed for it is not installed."""
    if port and not all(find_spec(name) for name in ("grpc", "grpc_health", "grpc_reflection")):
        raise SettingError(f"ZOOSERVE_GRPC_PORT={port}: gRPC is not installed: {install('grpc')}.")


def beside(
    runtime: "Runtime", dataplane: "Dataplane", status: "Status", guard: "Guard"
) -> AbstractAsyncContextManager[None]:
    """Serve while the context lasts, if a port is asked for."""
    require(runtime.settings.grpc_port)
    if not runtime.settings.grpc_port:
        return nullcontext()
    from service.grpc.server import serving  # noqa: PLC0415 - grpcio may not be there

    return serving(runtime, dataplane, status, guard)
