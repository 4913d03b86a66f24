"""proto.logs: one line per event"""

import io
import logging

import pytest

from fleetpulse.proto.logs import LineFormatter


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(log: io.StringIO) -> logging.Logger:
    logger = logging.getLogger(f"test-{id(log)}")
    handler = logging.StreamHandler(log)
    handler.setFormatter(LineFormatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    return logger


@pytest.mark.parametrize(
    ("name", "shown"),
    [("fleetpulse.master.web", "master.web"), ("gunicorn.error", "gunicorn"), ("sqlalchemy.pool", "sqlalchemy.pool")],
)
def test_line_has_time_level_and_short_logger_name(name: str, shown: str) -> None:
    record = logging.makeLogRecord(
        {"levelname": "INFO", "name": name, "msg": "it starts", "created": 0.5, "msecs": 500}
    )
    assert LineFormatter().format(record).endswith(f",500 INFO {shown}: it starts")


@pytest.mark.parametrize(
    ("quoted", "line"),
    [
        ("plain, with an \u2026 and \u00e4", "plain, with an \u2026 and \u00e4"),
        ("a\nINFO: forged", r"a\nINFO: forged"),
        ("a\r\x1b[2J\x9b\u202e\u2028", r"a\r\x1b[2J\x9b\u202e\u2028"),
        ("\ud800", r"\ud800"),
    ],
    ids=["plain", "newline", "escapes", "surrogate"],
)
def test_message_is_one_line(quoted: str, line: str) -> None:
    # Without a logger: pytest would keep what it is told, and cannot hand every letter on between its processes.
    record = logging.makeLogRecord({"levelname": "WARNING", "name": "x", "msg": "it says %s", "args": (quoted,)})
    assert LineFormatter("%(levelname)s: %(message)s").format(record) == f"WARNING: it says {line}"


def test_traceback_keeps_its_lines(logger: logging.Logger, log: io.StringIO) -> None:
    try:
        list[str]().index("why")
    except ValueError:
        logger.exception("it failed\n")
    lines = log.getvalue().splitlines()
    assert lines[0] == r"ERROR: it failed\n"
    assert lines[-1].startswith("ValueError: ")
    assert len(lines) > 3
