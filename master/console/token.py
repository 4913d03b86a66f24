"""``token``: create, list and revoke tokens.

Works on the tokens file itself, so no master has to run. Whoever can write that file has all rights anyway.
"""

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from fleetpulse.master.access.store import OWNER, STATE_FILE_NAME, TOKENS_FILE_NAME, TokenFile, TokenFileError
from fleetpulse.master.access.tokens import GRANTED, NAME_RULE, Token, is_name, make_token
from fleetpulse.master.audit.entries import ANONYMOUS, MASTER
from fleetpulse.master.console import formatting as fmt
from fleetpulse.master.console.command import DURATION, LocalContext, local_command
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.screen import Column, styled

_STYLES = {"expired": "yellow", "revoked": "dim"}
_DAY_SECONDS = 24 * 3600.0
_MAX_LIFETIME_SECONDS = 100 * 365 * _DAY_SECONDS
_RESERVED_NAMES = {OWNER, ANONYMOUS, MASTER}
_local_date = partial(fmt.local_time, form="%Y-%m-%d %H:%M")


_COLUMNS = (
    Column("ID", lambda token: token.token_id),
    Column("NAME", lambda token: token.name),
    Column("ROLE", lambda token: token.role.name.lower()),
    Column("STATE", lambda token: styled(token.state(time.time()), _STYLES)),
    Column("MADE", lambda token: _local_date(token.created), spare=2),
    Column("EXPIRES", lambda token: _local_date(token.expires), spare=1),
)


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except TokenFileError as error:
        raise ConsoleError(str(error)) from error


@click.group("token")
def token_command() -> None:
    """Tokens for the REST API. Run on the master's machine, as its user.

    Once there is a token, every request needs one. Commands of the master's own user have one automatically. Losing
    the file of tokens opens nothing: `fleetpulse token open` does.
    """


_token_command = partial(
    local_command, token_command, errors=_file_errors,
    options=[click.option(
        "--tokens-file", envvar="FLEETPULSE_TOKENS_FILE", default=None, show_envvar=True,
        show_default="tokens.json in the data directory", type=click.Path(path_type=Path),
        help="The master's file of tokens.",
    )],
)  # fmt: skip


def _file(context: LocalContext, tokens_file: Path | None) -> TokenFile:
    return TokenFile(tokens_file or context.data_dir / TOKENS_FILE_NAME, context.data_dir / STATE_FILE_NAME)


def _record(context: LocalContext, action: str, token: Token) -> None:
    context.record(action, token.name, f"token {token.token_id}, {token.role.name.lower()}")


@_token_command("create")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(list(GRANTED)), default="read", show_default=True,
    help="read: look; submit: also submit and cancel tasks; admin: also drain and forget workers.",
)  # fmt: skip
@click.option(
    "--expires", "lifetime", type=DURATION, default=90 * _DAY_SECONDS, show_default="90d",
    help="How long it is valid, as 12h or 90d.",
)  # fmt: skip
@click.option("--no-expiry", is_flag=True, help="Valid until it is revoked.")
def create_command(
    context: LocalContext, tokens_file: Path | None, name: str, role: str, lifetime: float, no_expiry: bool
) -> None:
    """Create a token for NAME. Its secret is shown once and not stored."""
    if not is_name(name):
        raise click.UsageError(f"NAME must be {NAME_RULE}")
    if name in _RESERVED_NAMES:
        raise click.UsageError(
            f"NAME must not be one of {', '.join(sorted(_RESERVED_NAMES))}: the audit trail uses those"
        )
    if not 0.0 < lifetime <= _MAX_LIFETIME_SECONDS:
        raise click.UsageError("--expires must be above 0 and at most 36500d; --no-expiry is for longer")
    token, secret = make_token(name, GRANTED[role], time.time(), None if no_expiry else lifetime)

    def add(tokens: list[Token]) -> list[Token]:
        if any(one.name == name and one.is_active(token.created) for one in tokens):
            raise ConsoleError(f"there is a token for {name} already; revoke it first, or choose another name")
        return [*tokens, token]

    _file(context, tokens_file).change(add)
    _record(context, "create_token", token)
    if context.screen.is_json:
        context.screen.json({**_public(token), "token": secret})
        return
    context.screen.line(secret)
    until = "for ever" if token.expires is None else f"until {_local_date(token.expires)}"
    context.screen.note(f"token {token.token_id} for {name}, role {role}, {until}; it is not shown again")


@_token_command("list")
def list_command(context: LocalContext, tokens_file: Path | None) -> None:
    """List the tokens, without their secrets."""
    file = _file(context, tokens_file)
    empty = "no tokens: the master's own user and root have full access without one"
    if file.is_closed():
        empty = "no tokens, and the master is closed: `fleetpulse token open` opens it for its own user and root"
    context.screen.table(_COLUMNS, file.read(), empty=empty, public=_public)


@_token_command("revoke")
@click.argument("which", metavar="ID|NAME")
def revoke_command(context: LocalContext, tokens_file: Path | None, which: str) -> None:
    """Revoke a token. A running master obeys within a second."""
    revoked: list[Token] = []

    def revoke(tokens: list[Token]) -> list[Token]:
        now = time.time()
        found = [one for one in tokens if which in (one.token_id, one.name) and one.revoked is None]
        if not found:
            known = ", ".join(sorted({one.name for one in tokens if one.revoked is None})) or "none"
            raise UnknownId(f"no token has the id or name {which!r}; there are: {known}")
        revoked.extend(found)
        return [one._replace(revoked=now) if one in found else one for one in tokens]

    _file(context, tokens_file).change(revoke)
    for token in revoked:
        _record(context, "revoke_token", token)
    if context.screen.is_json:
        context.screen.json([_public(token) for token in revoked])
        return
    for token in revoked:
        context.screen.line(f"token {token.token_id} for {token.name} is revoked")


@_token_command("open")
def open_command(context: LocalContext, tokens_file: Path | None) -> None:
    """Remove all tokens, and open the master again: its own user and root then need none.

    Refused while there is an active token. A running master obeys within a second.
    """

    def check(tokens: list[Token]) -> None:
        if active := sorted({one.name for one in tokens if one.is_active(time.time())}):
            raise ConsoleError(f"there are active tokens ({', '.join(active)}); revoke them first")

    _file(context, tokens_file).open(check)
    context.record("open_access", "master", "no token is needed by the master's own user and root")
    if context.screen.is_json:
        context.screen.json({"open": True})
        return
    context.screen.line("the master is open to its own user and root; `fleetpulse token create NAME` closes it")


def _public(token: Token) -> dict[str, Any]:
    """The token as JSON, without its digest."""
    return {name: value for name, value in token.to_json().items() if name != "digest"} | {
        "state": token.state(time.time())
    }
