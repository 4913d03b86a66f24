"""Where tokens are kept: one JSON file, which the command line writes and a running master reads."""

import json
from collections.abc import Callable
from pathlib import Path

from fleetpulse.master.access.tokens import Token
from fleetpulse.master.private_files import locked, write_private

NAME = "tokens.json"
_VERSION = 1


class TokenFileError(Exception):
    """The file cannot be read or written, or is none; the message names it and says why."""


class TokenFile:
    """The tokens of one master. Its methods raise ``TokenFileError``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Token]:
        """All that were made and not forgotten; none where there is no file."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["version"] != _VERSION:
                raise TokenFileError(
                    f"{self.path} is of version {document['version']}, which this FleetPulse cannot read"
                )
            return [Token.from_json(data) for data in document["tokens"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenFileError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TokenFileError(f"{self.path} is no file of tokens: {error}") from error

    def change(self, change: Callable[[list[Token]], list[Token]]) -> None:
        """Write what ``change`` makes of the tokens. One process at a time, all or nothing, on disk when it returns."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                tokens = change(self.read())
                document = {"version": _VERSION, "tokens": [token.to_json() for token in tokens]}
                write_private(self.path, json.dumps(document, indent=1).encode() + b"\n")
        except OSError as error:
            raise TokenFileError(f"{self.path}: cannot be written: {error.strerror or error}") from error
