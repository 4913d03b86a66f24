"""Where grpc listens."""

import grpc

from fleetpulse.master.addresses import Address
from fleetpulse.master.errors import ConfigError


def listen(
    server: grpc.aio.Server, setting: str, address: Address, credentials: grpc.ServerCredentials | None = None
) -> None:
    """Without credentials there is no TLS. Raises ``ConfigError``, which names the setting."""
    try:
        if credentials is None:
            server.add_insecure_port(str(address))
        else:
            server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise ConfigError(f"{setting}: cannot listen on {address}: {error}") from error
