"""The ``.env`` file of the working directory, for the commands that run a service.

The folder may be anybody's: somebody's clone, a shared folder, ``/tmp``. So only some commands read the file, only when
no other user can have written it, and only the settings that they know. It says neither who gets in, nor which programs
run, nor which token is sent where.
"""

import grp
import io
import os
import pwd
import stat
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

import click
from dotenv import dotenv_values

from fleetpulse.proto.safe_files import UnusableFile, read_regular

NAME = ".env"
SWITCH = "FLEETPULSE_NO_ENV_FILE"
"""If this environment variable is not empty, no file is read. ``up`` sets it for the processes that it starts."""

NEVER = frozenset({
    # Where a client goes, and with which token.
    "FLEETPULSE_URL", "FLEETPULSE_TOKEN", "FLEETPULSE_TOKEN_FILE", "FLEETPULSE_JOIN_TOKEN", "FLEETPULSE_JOIN_FILE",
    "FLEETPULSE_MASTER_USER",
    # Who gets in.
    "FLEETPULSE_TOKENS_FILE", "FLEETPULSE_ALLOWED_HOSTS", "FLEETPULSE_INSECURE_NETWORK",
    # Which programs run.
    "FLEETPULSE_METRICS_DIR",
})  # fmt: skip
_NEVER_PREFIXES = ("PYTHON", "LD_", "DOCKER_HOST", "GUNICORN_")

_LIMIT_BYTES = 64 * 1024
_ROOT = 0


class EnvFileRefused(click.UsageError):
    """The file has settings of this user, and somebody else could have written them."""


class Settings(NamedTuple):
    """What a file gives."""

    taken: Mapping[str, str]
    """Known settings that the environment does not have. Names and values."""

    line: str
    """What was read, or why nothing was; empty if there is no file."""


def read_settings(path: Path, known: AbstractSet[str], environment: Mapping[str, str], user: int) -> Settings:
    """Reads the file. ``user``: the effective user id. Raises ``EnvFileRefused``, which quotes nothing of the file."""
    try:
        data, status = read_regular(path, _LIMIT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return Settings({}, "")
    except UnusableFile as error:
        return Settings({}, f"{path} is not read: it {error.strerror}.")
    except OSError as error:
        return Settings({}, f"{path} is not read: {error.strerror}.")
    if status.st_uid not in (_ROOT, user):
        return Settings({}, f"{path} is not read: it belongs to another user, {_user_name(status.st_uid)}.")
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_private_group(status)):
        raise EnvFileRefused(
            f"other users may write {path}. Say `chmod go-w {NAME}` there if its content is yours, "
            f"or set {SWITCH}=1 to go on without it"
        )
    try:
        found = dotenv_values(stream=io.StringIO(data.decode()), interpolate=False)
    except UnicodeDecodeError:
        raise EnvFileRefused(f"{path} is not text in UTF-8. Repair it, or set {SWITCH}=1 to go on without it") from None
    taken = {name: value for name, value in found.items() if name in known - NEVER and value is not None}
    line = f"Read {path}: {', '.join(sorted(taken)) or 'no settings of this command'}."
    if refused := sorted(name for name in found if name in NEVER or name.startswith(_NEVER_PREFIXES)):
        line += f" Not taken from a file: {', '.join(refused)}."
    new = {name: value for name, value in taken.items() if name not in environment}
    return Settings(new, "".join(letter if letter.isprintable() else "?" for letter in line))


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _is_private_group(status: os.stat_result) -> bool:
    """Whether the owner is the group's only member, as where each user has a group and files have mode 0664."""
    try:
        owner = pwd.getpwuid(status.st_uid)
        group = grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    has_others = any(user.pw_gid == status.st_gid and user.pw_uid != status.st_uid for user in pwd.getpwall())
    return owner.pw_gid == status.st_gid and set(group.gr_mem) <= {owner.pw_name} and not has_others


class ServiceCommand(click.Command):
    """A command that runs a service: settings that neither a flag nor the environment gives come from ``.env``."""

    def known_settings(self) -> AbstractSet[str]:
        """Returns the environment variables of the options."""
        return frozenset(str(option.envvar) for option in self.params if option.envvar)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Reads the file, but not for the completion of a command line. Called by click before it parses."""
        if not extra.get("resilient_parsing") and not os.environ.get(SWITCH):
            path = Path.cwd() / NAME
            taken, line = read_settings(path, self.known_settings(), os.environ, os.geteuid())
            os.environ.update(taken)
            if line:
                click.echo(line, err=True)
        return super().make_context(info_name, args, parent, **extra)
