"""Keepalive pings, as Go's clients and meshes send them: neither the connection nor its streams end for them."""

import time

import grpc
import pytest
from grpc_health.v1 import health_pb2

_PING_MS = 600  # where a server allows none, it ends the connection at the third
_PINGS = [
    ("grpc.keepalive_time_ms", _PING_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@pytest.mark.parametrize("calls", [True, False])
def test_frequent_pings_are_allowed_with_and_without_calls(oip, calls):
    states = []
    with grpc.insecure_channel(oip.grpc, [*_PINGS, ("grpc.use_local_subchannel_pool", 1)]) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"") if calls else None
        if watch:
            assert health_pb2.HealthCheckResponse.FromString(next(watch)).status
        grpc.channel_ready_future(channel).result(10)
        time.sleep(10 * _PING_MS / 1000)
        assert states[-1] is grpc.ChannelConnectivity.READY
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states
        assert states.count(grpc.ChannelConnectivity.READY) == 1
        assert watch is None or watch.is_active()
