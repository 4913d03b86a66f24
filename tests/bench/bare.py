"""A bare ``grpc.aio`` server, which registers every stream and does nothing with what arrives: the floor of the master.

``python -m tests.bench.bare SECONDS`` asks for heartbeats at this interval, prints its port as JSON and serves until
SIGTERM. It decodes nothing, keeps nothing and answers nothing else.
"""

import asyncio
import json
import signal
import sys
from typing import Any

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.ports import LOCALHOST

_INACTIVITY_TIMEOUT_SECONDS = 30.0
# As the master: a bandwidth probe with every message would make the floor higher than it is.
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.http2.bdp_probe", 0))
_END_OF_STREAM: object = grpc.aio.EOF


async def serve(interval_seconds: float) -> None:
    """Serves until SIGTERM."""
    registered = pb.Registered(
        heartbeat_interval_seconds=interval_seconds, inactivity_timeout_seconds=_INACTIVITY_TIMEOUT_SECONDS
    )
    answer = pb.MasterMessage(registered=registered).SerializeToString()

    async def connect(_requests: object, call: Any) -> None:
        await call.read()
        await call.write(answer)
        while await call.read() is not _END_OF_STREAM:
            pass

    server = grpc.aio.server(options=_OPTIONS)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(connect)
    service = pb.DESCRIPTOR.services_by_name["Fleet"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Connect": handler}),))
    port = server.add_insecure_port(f"{LOCALHOST}:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"port": port}), flush=True)
    await stop.wait()
    await server.stop(0.0)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
