"""What holds for every test."""

import contextlib
import os
import signal
import tempfile

from hypothesis import settings

from tests.guardian import guarded_run

# A shell has ignore Ctrl-C what it starts in the background, and so would the processes in which tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure. The parent keeps what hypothesis chose for this place: in CI, the same examples always.
settings.register_profile("fleetpulse", parent=settings(), deadline=None)
settings.load_profile("fleetpulse")

_guards = contextlib.ExitStack()


def pytest_configure() -> None:
    """What tests start, and their temporary files, end with this process, however it ends. pytest keeps its own."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _guards.enter_context(guarded_run("fleetpulse-tests-"))


def pytest_unconfigure() -> None:
    """As ``pytest_configure`` says."""
    _guards.close()


pytest_plugins = ["tests.browser", "tests.docker_engine", "tests.postgres"]
