"""Settings of all tests."""

import contextlib
import os
import signal
import tempfile

from hypothesis import settings

from tests.guardian import guarded_run

# A shell's background jobs ignore Ctrl-C. The processes of tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline, for busy machines. The parent keeps hypothesis' defaults: in CI, the same examples in every run.
settings.register_profile("fleetpulse", parent=settings(), deadline=None)
settings.load_profile("fleetpulse")

_guards = contextlib.ExitStack()


def pytest_configure() -> None:
    """Removes processes and temporary files of tests when this process ends, however it ends. pytest keeps its own."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _guards.enter_context(guarded_run("fleetpulse-tests-"))


def pytest_unconfigure() -> None:
    """Ends what ``pytest_configure`` started."""
    _guards.close()


pytest_plugins = ["tests.browser", "tests.docker_engine", "tests.postgres"]
