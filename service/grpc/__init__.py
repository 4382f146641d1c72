"""The Open Inference Protocol over gRPC, on the event loop of HTTP and with the same queues.

`server` opens it where `ZOOSERVE_GRPC_PORT` names a port. grpcio is an extra, so only that imports the other files.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from service.settings import SettingError, Settings
from zoo.extras import install

if TYPE_CHECKING:
    from service.health import Health
    from service.oip.dataplane import Dataplane
    from service.request import Lifecycle


def require(port: int) -> None:
    """Raise `SettingError` where a port is asked for, and what is needed for it is not installed."""
    if port and not all(find_spec(name) for name in ("grpc", "grpc_health", "grpc_reflection")):
        raise SettingError(f"ZOOSERVE_GRPC_PORT={port}: gRPC is not installed: {install('grpc')}.")


def listening(
    lifecycle: "Lifecycle", dataplane: "Dataplane", health: "Health", settings: Settings
) -> AbstractAsyncContextManager[None]:
    """Serve while the context lasts, if a port is asked for."""
    require(settings.grpc_port)
    if not settings.grpc_port:
        return nullcontext()
    from service.grpc.server import serving  # noqa: PLC0415 - grpcio may not be there

    return serving(lifecycle, dataplane, health, settings)
