"""``token``: make, list and revoke what lets somebody ask the master.

Works on the file itself, as who may write that file may do anything anyway, and so needs no master that runs.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from fleetpulse.master.access.store import OWNER, TOKENS_FILE_NAME, TokenFile, TokenFileError
from fleetpulse.master.access.tokens import GRANTED, NAME_RULE, Token, is_name, make_token
from fleetpulse.master.audit.entry import ANONYMOUS, MASTER
from fleetpulse.master.console import values
from fleetpulse.master.console.command import local_command
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.options import DURATION
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.tables import Cell, Column
from fleetpulse.master.console.trail import tell_trail

_COLUMNS = (
    Column("ID"), Column("NAME"), Column("ROLE"), Column("STATE"), Column("MADE", spare=2), Column("EXPIRES", spare=1),
)  # fmt: skip
_STYLES = {"expired": "yellow", "revoked": "dim"}
_NINETY_DAYS = 90 * 24 * 3600.0
_TAKEN = {OWNER, ANONYMOUS, MASTER}
_LONGEST_SECONDS = 100 * 365 * 24 * 3600.0


class _Desk(NamedTuple):
    file: TokenFile
    screen: Screen
    data_dir: Path

    def record(self, action: str, token: Token) -> None:
        """Tell the master's audit trail."""
        detail = f"token {token.token_id}, {token.role.name.lower()}"
        tell_trail(self.screen, self.data_dir, action, token.name, detail)


_tokens_file_option = click.option(
    "--tokens-file", envvar="FLEETPULSE_TOKENS_FILE", default=None, show_envvar=True,
    show_default="tokens.json in the data directory", type=click.Path(path_type=Path),
    help="The master's file of tokens.",
)  # fmt: skip


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TokenFileError as error:
        raise ConsoleError(str(error)) from error


def _token_command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function, which takes a ``_Desk`` before its own parameters."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(screen: Screen, data_dir: Path, *, tokens_file: Path | None, **own: Any) -> None:
            function(_Desk(TokenFile(tokens_file or data_dir / TOKENS_FILE_NAME), screen, data_dir), **own)

        return local_command(name, _told, _tokens_file_option)(run)

    return decorate


@click.group("token")
def token_command() -> None:
    """Tokens: what lets somebody ask the master. Run on its machine, as its user.

    From the first token on every request needs one. The commands of the master's own user have theirs by themselves.
    """


@_token_command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(list(GRANTED)),
    default="read",
    show_default=True,
    help="read: look; submit: also submit and cancel tasks; admin: also drain and forget workers.",
)
@click.option(
    "--expires",
    "lifetime",
    type=DURATION,
    default=_NINETY_DAYS,
    show_default="90d",
    help="For how long it is good, as 12h or 90d.",
)
@click.option("--no-expiry", is_flag=True, help="It is good until it is revoked.")  # fmt: skip
def create_command(desk: _Desk, name: str, role: str, lifetime: float, no_expiry: bool) -> None:
    """Make a token for NAME. Its secret is shown once and kept nowhere."""
    if not is_name(name):
        raise click.UsageError(f"NAME must be {NAME_RULE}")
    if name in _TAKEN:
        raise click.UsageError(
            f"NAME must be none of {', '.join(sorted(_TAKEN))}: the audit trail means others by those"
        )
    if not 0.0 < lifetime <= _LONGEST_SECONDS:
        raise click.UsageError("--expires must be above 0 and at most 36500d; --no-expiry is for longer")
    token, secret = make_token(name, GRANTED[role], time.time(), None if no_expiry else lifetime)

    def with_it(tokens: list[Token]) -> list[Token]:
        if any(one.name == name and one.is_active(token.created) for one in tokens):
            raise ConsoleError(f"there is a token for {name} already; revoke it first, or choose another name")
        return [*tokens, token]

    desk.file.change(with_it)
    desk.record("create_token", token)
    if desk.screen.is_json:
        desk.screen.json({**_shown(token), "token": secret})
        return
    desk.screen.line(secret)
    desk.screen.note(f"token {token.token_id} for {name}, role {role}, {_until(token)}; it is not shown again")


@_token_command("list")
def list_command(desk: _Desk) -> None:
    """List the tokens that were made, without their secrets."""
    tokens, now = desk.file.read(), time.time()
    if desk.screen.is_json:
        desk.screen.json([_shown(token) for token in tokens])
        return
    rows: list[list[Cell | str]] = [
        [
            token.token_id, token.name, token.role.name.lower(),
            Cell(token.state(now), _STYLES.get(token.state(now), "")),
            values.moment(token.created), values.MISSING if token.expires is None else values.moment(token.expires),
        ]
        for token in tokens
    ]  # fmt: skip
    desk.screen.table(_COLUMNS, rows, nothing="no tokens: whoever is on this machine may ask the master anything")


@_token_command("revoke")
@click.argument("which", metavar="ID|NAME")
def revoke_command(desk: _Desk, which: str) -> None:
    """Revoke a token. A running master hears of it within a second."""
    revoked: list[Token] = []

    def without_it(tokens: list[Token]) -> list[Token]:
        now = time.time()
        found = [one for one in tokens if which in (one.token_id, one.name) and one.revoked is None]
        if not found:
            known = ", ".join(sorted({one.name for one in tokens if one.revoked is None})) or "none"
            raise UnknownId(f"no token has the id or name {which!r}; there are: {known}")
        revoked.extend(found)
        return [one._replace(revoked=now) if one in found else one for one in tokens]

    desk.file.change(without_it)
    for token in revoked:
        desk.record("revoke_token", token)
    if desk.screen.is_json:
        desk.screen.json([_shown(token) for token in revoked])
        return
    for token in revoked:
        desk.screen.line(f"token {token.token_id} for {token.name} is revoked")


for _command in (create_command, list_command, revoke_command):
    token_command.add_command(_command)


def _shown(token: Token) -> dict[str, Any]:
    shown = token.to_json() | {"state": token.state(time.time())}
    del shown["digest"]
    return shown


def _until(token: Token) -> str:
    return "for ever" if token.expires is None else f"until {values.moment(token.expires)}"
