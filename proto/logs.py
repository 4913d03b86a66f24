"""The log format of the master and the worker: ``2026-11-30 12:00:00,123 INFO master.web: a message``."""

import logging
import sys

_PREFIX = "fleetpulse."
_SHORT_NAMES = {"gunicorn.error": "gunicorn"}


class LineFormatter(logging.Formatter):
    """Writes a message as one line without control characters, whatever it quotes. Tracebacks keep their lines."""

    def __init__(self, format_string: str = "%(asctime)s %(levelname)s %(short_name)s: %(message)s") -> None:
        """``short_name`` is the logger's name without ``fleetpulse.``."""
        super().__init__(format_string)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Called by ``format``."""
        record.short_name = _SHORT_NAMES.get(record.name) or record.name.removeprefix(_PREFIX)
        if not record.message.isprintable():
            record.message = "".join(
                letter if letter.isprintable() else ascii(letter)[1:-1] for letter in record.message
            )
        return super().formatMessage(record)


def configure_logging(level: str) -> None:
    """Logs to stderr from this level on, one line per event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
