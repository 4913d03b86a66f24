"""``fleetpulse ca``: the certificates of workers. Works on the files in the data directory; a master may run."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import msgspec

from fleetpulse.master.config import parse_duration
from fleetpulse.master.console.command import LocalContext, local_command
from fleetpulse.master.console.errors import ConsoleError
from fleetpulse.master.console.screen import Cell, Column
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.pki import CERTIFICATE_NAME, ca_folder, workers_need_certificates
from fleetpulse.master.pki.authority import Authority, IssuedRecord, create


def _state_cell(record: IssuedRecord) -> Cell:
    if record.revoked_at is not None:
        return Cell("revoked", "red")
    return Cell("expired", "yellow") if record.expires_at <= time.time() else Cell("good", "green")


def _date(name: str) -> Callable[[IssuedRecord], str]:
    return lambda record: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(getattr(record, name)))


_COLUMNS = (
    Column("WORKER", lambda record: record.worker_id),
    Column("STATE", _state_cell),
    Column("EXPIRES", _date("expires_at")),
    Column("SERIAL", lambda record: record.serial),
    Column("ISSUED", _date("issued_at"), wide=True),
)


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConsoleError(str(error)) from error
    except OSError as error:
        raise ConsoleError(f"{error.strerror or error}: {error.filename or 'the files of the CA'}") from error


@click.group("ca")
def ca_command() -> None:
    """Certificates of workers: make a CA, let machines join, revoke certificates."""


_ca_command = partial(local_command, ca_command, errors=_file_errors)


@_ca_command("init")
@click.option("--if-missing", is_flag=True, help="Do nothing where there is a CA already.")
def init_command(context: LocalContext, if_missing: bool) -> None:
    """Make the CA. After the master's next start, workers need certificates."""
    if not (if_missing and workers_need_certificates(context.data_dir)):
        create(context.data_dir)
        context.record("create_ca", "ca")
    authority = Authority(context.data_dir)
    certificate, fingerprint = ca_folder(context.data_dir) / CERTIFICATE_NAME, authority.fingerprint.hex()
    if context.screen.is_json:
        context.screen.json({"certificate": str(certificate), "fingerprint_sha256": fingerprint})
        return
    context.screen.line(f"CA in {certificate.parent}, SHA-256 fingerprint {fingerprint}")
    context.screen.note("Restart a running master to use it; `fleetpulse ca join-token` lets machines join.")


@_ca_command("join-token")
@click.option("--lifetime", default="1h", show_default=True, help="How long it may be used.")
@click.option(
    "--worker-id",
    metavar="ID",
    help="The id that it is for, also if it is in use; or PREFIX*; by default any. The last two take none in use.",
)
@click.option(
    "--uses", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many may join with it."
)
def join_token_command(context: LocalContext, lifetime: str, worker_id: str | None, uses: int) -> None:
    """Make a join token for `fleetpulse worker --join`. It is shown once."""
    lifetime_seconds = parse_duration("--lifetime", lifetime)
    token = Authority(context.data_dir).new_join_token(lifetime_seconds, worker_id, uses)
    context.record("create_join_token", worker_id or "", f"{uses} uses within {lifetime}")
    if context.screen.is_json:
        expires_at = time.time() + lifetime_seconds
        context.screen.json({"token": token, "expires_at": expires_at, "worker_id": worker_id, "uses": uses})
        return
    context.screen.line(token)
    context.screen.note(f"good for {lifetime}, {'once' if uses == 1 else f'{uses} times'}; it is not shown again")


def _public(record: IssuedRecord) -> dict[str, Any]:
    shown = {name: value for name, value in msgspec.structs.asdict(record).items() if name != "key_fingerprint"}
    return shown | {"revoked": record.revoked_at is not None}


@_ca_command("list")
def list_command(context: LocalContext) -> None:
    """List the certificates of workers. Expired ones stay for a day, 100 of a worker at most."""
    context.screen.table(_COLUMNS, Authority(context.data_dir).issued(), empty="no certificates", public=_public)


@_ca_command("revoke")
@click.argument("target", metavar="WORKER_ID|SERIAL")
def revoke_command(context: LocalContext, target: str) -> None:
    """Revoke one certificate, or all of a worker. A running master ends its stream within seconds."""
    revoked = Authority(context.data_dir).revoke(target)
    for record in revoked:
        context.record("revoke_certificate", record.worker_id, f"serial {record.serial}")
    if context.screen.is_json:
        context.screen.json([_public(record) | {"revoked": True} for record in revoked])
        return
    for record in revoked:
        context.screen.line(f"revoked {record.serial} of {record.worker_id}")
    if not revoked:
        context.screen.note("there was nothing left to revoke")
