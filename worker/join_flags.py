"""The flags by which a worker, or a simulated fleet, gets its certificate."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetpulse.worker.credentials import JoinEndpoint

if TYPE_CHECKING:
    from fleetpulse.proto.join import JoinToken


def join_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to join a master that wants certificates."""
    options = (
        # The flag is for a look: everybody on the machine may read it.
        click.option("--join", "join_token", envvar="FLEETPULSE_JOIN_TOKEN", metavar="TOKEN", show_envvar=True,
                     help="Get a certificate with this token of `fleetpulse ca join-token`."),
        click.option("--join-file", envvar="FLEETPULSE_JOIN_FILE", show_envvar=True,
                     type=click.Path(path_type=Path), help="The same, with the token in this file."),
        click.option("--join-address", envvar="FLEETPULSE_JOIN_ADDRESS", metavar="HOST:PORT", show_envvar=True,
                     show_default="the master's gRPC port + 1", help="The master's join port."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def token_from(join_token: str | None, join_file: Path | None, *, has_joined: bool) -> "JoinToken | None":
    """What the flags give; ``None`` without any, and for a file that is gone after somebody joined with it.

    Raises ``click.UsageError``, which shows no token.
    """
    from fleetpulse.proto.join import parse_join_token  # noqa: PLC0415 - mostly not needed

    name, text = "--join", join_token
    if not text and join_file is not None:
        name = f"--join-file {join_file}"
        try:
            text = join_file.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError as error:
            if has_joined:
                return None
            raise click.UsageError(f"{name}: {error.strerror}") from error
        except OSError as error:
            raise click.UsageError(f"{name}: {error.strerror}") from error
    try:
        return parse_join_token(text) if text else None
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from error


def door_from(join_address: str | None, master: str) -> JoinEndpoint:
    """Where to join: as given, or one port after the master's. ``master`` is HOST:PORT. Raises ``click.UsageError``."""
    given = join_address or master
    host, colon, port = given.strip().rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.UsageError(f"FLEETPULSE_JOIN_ADDRESS={join_address!r}: expected HOST:PORT, as localhost:50052")
    number = int(port) if join_address else min(int(port) + 1, 65535)
    return JoinEndpoint(host.removeprefix("[").removesuffix("]"), number)
