"""``fleetpulse ca``: who may speak as which worker. Works on the files in the data directory; a master may run."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from fleetpulse.master.config import parse_duration
from fleetpulse.master.console.command import local_command
from fleetpulse.master.console.errors import ConsoleError
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.tables import Cell, Column
from fleetpulse.master.console.trail import tell_trail
from fleetpulse.master.errors import ConfigError
from fleetpulse.master.pki import CERTIFICATE_NAME, ca_folder, workers_need_certificates
from fleetpulse.master.pki.authority import Authority, IssuedRecord, create

_COLUMNS = (Column("WORKER"), Column("STATE"), Column("EXPIRES"), Column("SERIAL"), Column("ISSUED", wide=True))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConsoleError(str(error)) from error
    except OSError as error:
        raise ConsoleError(f"{error.strerror or error}: {error.filename or 'the files of the CA'}") from error


@click.group("ca")
def ca_command() -> None:
    """Certificates of workers: make a CA, let machines join, take certificates back."""


@local_command("init", _told)
@click.option("--if-missing", is_flag=True, help="Do nothing where there is a CA already.")
def init_command(screen: Screen, data_dir: Path, if_missing: bool) -> None:
    """Make the CA. From the master's next start on its workers need certificates."""
    if not (if_missing and workers_need_certificates(data_dir)):
        create(data_dir)
        tell_trail(screen, data_dir, "create_ca", "ca")
    authority = Authority(data_dir)
    certificate, fingerprint = ca_folder(data_dir) / CERTIFICATE_NAME, authority.fingerprint.hex()
    if screen.is_json:
        screen.json({"certificate": str(certificate), "fingerprint_sha256": fingerprint})
        return
    screen.line(f"CA in {certificate.parent}, SHA-256 fingerprint {fingerprint}")
    screen.note(
        "A master that runs takes it up when it is started again; `fleetpulse ca join-token` lets machines join."
    )


@local_command("join-token", _told)
@click.option("--lifetime", default="1h", show_default=True, help="For how long it may be used.")
@click.option("--worker-id", metavar="ID", help="The id that it is for, or PREFIX*; by default any that is not in use.")
@click.option(
    "--uses", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many may join with it."
)
def join_token_command(screen: Screen, data_dir: Path, lifetime: str, worker_id: str | None, uses: int) -> None:
    """Make a join token, for `fleetpulse worker --join`. It is shown this once."""
    lifetime_seconds = parse_duration("--lifetime", lifetime)
    token = Authority(data_dir).new_join_token(lifetime_seconds, worker_id, uses)
    tell_trail(screen, data_dir, "create_join_token", worker_id or "", f"{uses} uses within {lifetime}")
    if screen.is_json:
        expires_at = time.time() + lifetime_seconds
        screen.json({"token": token, "expires_at": expires_at, "worker_id": worker_id, "uses": uses})
        return
    screen.line(token)
    screen.note(f"good for {lifetime}, {'once' if uses == 1 else f'{uses} times'}; it is not shown again")


@local_command("list", _told)
def list_command(screen: Screen, data_dir: Path) -> None:
    """List the certificates that workers were given. Expired ones stay for a day, 100 of a worker at most."""
    now = time.time()
    issued = Authority(data_dir).issued()
    if screen.is_json:
        screen.json([msgspec.structs.asdict(one) | {"revoked": one.revoked_at is not None} for one in issued])
        return
    screen.table(_COLUMNS, [_row(one, now) for one in issued], nothing="no certificates")


@local_command("revoke", _told)
@click.argument("target", metavar="WORKER_ID|SERIAL")
def revoke_command(screen: Screen, data_dir: Path, target: str) -> None:
    """Take back one certificate, or all of a worker. A master that runs ends its stream within seconds."""
    revoked = Authority(data_dir).revoke(target)
    for one in revoked:
        tell_trail(screen, data_dir, "revoke_certificate", one.worker_id, f"serial {one.serial}")
    if screen.is_json:
        screen.json([msgspec.structs.asdict(one) | {"revoked": True} for one in revoked])
        return
    for one in revoked:
        screen.line(f"revoked {one.serial} of {one.worker_id}")
    if not revoked:
        screen.note("there was nothing to revoke any more")


for _command in (init_command, join_token_command, list_command, revoke_command):
    ca_command.add_command(_command)


def _row(one: IssuedRecord, now: float) -> list[Cell | str]:
    if one.revoked_at is not None:
        state = Cell("revoked", "red")
    else:
        state = Cell("expired", "yellow") if one.expires_at <= now else Cell("good", "green")
    return [one.worker_id, state, _date(one.expires_at), one.serial, _date(one.issued_at)]


def _date(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_seconds))
