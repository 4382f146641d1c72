"""The Open Inference Protocol over gRPC, on the same event loop and with the same queues as HTTP.

`service.server` starts it if `ZOOSERVE_GRPC_PORT` is set. grpcio is an extra, so only `grpc.server` is imported then.
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
    """Raise `SettingError` if a port is set, but the packages that gRPC needs are not installed."""
    if port and not all(find_spec(name) for name in ("grpc", "grpc_health", "grpc_reflection")):
        raise SettingError(f"ZOOSERVE_GRPC_PORT={port}: gRPC is not installed: {install('grpc')}.")


def listening(
    lifecycle: "Lifecycle", dataplane: "Dataplane", health: "Health", settings: Settings
) -> AbstractAsyncContextManager[None]:
    """Serve while the context lasts, if a port is set; raises `SettingError` as `require` does."""
    require(settings.grpc_port)
    if not settings.grpc_port:
        return nullcontext()
    from service.grpc.server import serving  # noqa: PLC0415 - grpcio may not be there

    return serving(lifecycle, dataplane, health, settings)
